"""A worker in this process, with moto for AWS and a fake model; every call to AWS is recorded."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError, EndpointConnectionError
from PIL import Image

from flux_worker.background import Background
from flux_worker.host.monitor import Monitor
from flux_worker.host.notify import Notifier
from flux_worker.inference.images import GeneratedImages, Origin
from flux_worker.jobs.claims import Claims
from flux_worker.jobs.delivery import Delivery
from flux_worker.jobs.outbox import Outbox
from flux_worker.jobs.queue import JobQueue, Message
from flux_worker.jobs.results import Results
from flux_worker.jobs.retry import RetryPolicy
from flux_worker.jobspec.job import Job
from flux_worker.worker import Worker

BODY = '{"id": "one", "prompt": "a cat", "width": 256, "height": 256, "steps": 4, "images": 2}'


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


class FakeModel:
    """Stands for the model: even surfaces at once, in a colour that follows from the seed."""

    device = "cpu"
    origin = Origin("black-forest-labs/FLUX.1-dev", "0" * 40, "bf16", "cpu", {"torch": "2"})

    def __init__(self, before_step: Callable[[int], None] = lambda _: None) -> None:
        self.drawn = self.warmed_up = 0
        self.ids: list[str] = []
        self._before_step = before_step

    def check(self, job: Job) -> None:
        """Every prompt is short enough."""

    def generate(self, job: Job, on_step: Callable[[int], None]) -> GeneratedImages:
        for done in range(1, job.steps * job.images + 1):
            self._before_step(done)
            on_step(done)
        assert job.seed is not None
        self.drawn += 1
        self.ids.append(job.id)
        colours = [((job.seed + number) % 256, 0, 0) for number in range(job.images)]
        images = tuple(Image.new("RGB", (job.width, job.height), colour) for colour in colours)
        return GeneratedImages(job, images, self.origin, 0.1, 0.02)

    def warm_up(self, on_step: Callable[[int], None]) -> None:
        self.warmed_up += 1
        self.generate(Job(id="warm-up", prompt="a warm-up", seed=0, steps=2), on_step)
        self.drawn -= 1

    def is_fatal(self, error: Exception) -> bool:
        return isinstance(error, ZeroDivisionError)


class CallLog:
    """What goes to AWS from one worker: `calls` in order, and one of them that may fail."""

    def __init__(self, *, older: float = 0) -> None:
        self._older = timedelta(seconds=older)  # than they are, S3 tells of claims
        self.calls: list[str] = []
        self.at: int | None = None
        """The number of the call that meets `fate`."""
        self.fate: BaseException = Killed()
        self.late = False
        """Whether the fate strikes after AWS did what it was asked, so that the answer is lost."""
        self.over = False
        """Whether the process was killed: then no thread of it calls anybody any more."""

    @contextlib.contextmanager
    def watch(self, client: Any) -> Iterator[Any]:
        """The client, watched until the block ends."""
        hooks = {"before-call.*": self._before, "after-call.*": self._after}
        for name, hook in hooks.items():
            client.meta.events.register(name, hook)
        try:
            yield client
        finally:
            for name, hook in hooks.items():
                client.meta.events.unregister(name, hook)

    def _before(self, model: Any, params: Any, **_: Any) -> None:
        if self.over:
            raise Killed
        self.calls.append(f"{model.name} {_ending(params)}".strip())
        self._strike(late=False)

    def _after(self, model: Any, parsed: Any, **_: Any) -> None:
        if model.name == "GetObject" and "LastModified" in parsed:
            parsed["LastModified"] -= self._older
        self._strike(late=True)

    def _strike(self, *, late: bool) -> None:
        if self.at is not None and len(self.calls) - 1 == self.at and self.late == late:
            self.at = None
            self.over = isinstance(self.fate, Killed)
            raise self.fate


def _ending(params: Any) -> str:
    """Of an object's key what comes after the job's id."""
    _, _, name = params["url_path"].rpartition("/")
    for ending in ("=claim", "=failed.json", ".json", "=1.png", "=2.png", ".png"):
        if name.replace("%3D", "=").endswith(ending):
            return ending
    return ""


def connection_lost() -> EndpointConnectionError:
    """What botocore raises where nobody answers."""
    return EndpointConnectionError(endpoint_url="https://nobody")


def conflict() -> ClientError:
    """What S3 answers to a conditional write while another one of the same object is under way."""
    error = {"Code": "ConditionalRequestConflict", "Message": "A conflicting operation occurred."}
    return ClientError({"Error": error}, "PutObject")  # type: ignore[arg-type]


_CLIENTS: list[list[Any]] = []  # those that no worker has now: making one takes longer than most calls


def _make_clients(aws: Any) -> list[Any]:
    return [
        boto3.client(
            service,
            endpoint_url=aws.endpoint,
            region_name="eu-west-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        for service in ("s3", "sqs", "events")
    ]


class WorkerHarness:
    """Makes workers that share a queue, a bucket and a bus."""

    def __init__(self, aws: Any, folder: Path, stop: Any) -> None:
        self.aws = aws
        self.folder = folder
        self.stop = stop

    @contextlib.contextmanager
    def worker(
        self,
        call_log: CallLog | None = None,
        model: Any = None,
        *,
        host: str = "a",
        lease: float = 300,  # far beyond what a case takes, so that nothing is renewed unless it is to be
        visibility: int = 300,
        max_receives: int | None = 3,
        **places: str,
    ) -> Iterator[Worker]:
        """One worker process, so to speak: its outbox is its host's."""
        call_log = call_log or CallLog()
        watched = contextlib.ExitStack()
        clients = _CLIENTS.pop() if _CLIENTS else _make_clients(self.aws)
        s3, sqs, events = (watched.enter_context(call_log.watch(client)) for client in clients)
        queue = JobQueue(sqs, self.aws.jobs, visibility)
        to = {"bucket": self.aws.bucket, "prefix": "images/", "event_bus": self.aws.bus} | places
        monitor = Monitor(Notifier({}))
        background = Background(monitor)
        retry_policy = RetryPolicy(self.stop, background)
        outbox = Outbox(self.folder / host / "outbox")
        delivery = Delivery(
            queue, Results(s3, events, **to), Claims(s3, to["bucket"], "images/", lease), outbox, retry_policy
        )
        try:
            yield Worker(
                model or FakeModel(),
                queue,
                delivery,
                retry_policy,
                monitor,
                self.stop,
                background,
                max_receives,
            )
        finally:
            watched.close()
            outbox.close()
            _CLIENTS.append(clients)

    def run_until(self, worker: Worker, condition: Callable[[], bool]) -> None:
        """Let the worker serve its queue until something is true, or until it ends by itself."""
        over = threading.Event()

        def watch() -> None:
            deadline = time.monotonic() + 300
            while not (over.wait(0.05) or condition() or time.monotonic() > deadline):
                pass
            if not over.is_set():
                self.stop.request("the case is over", 60)

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            worker.run()
        finally:
            over.set()
            watching.join()
        assert condition(), "it ended for something else"

    def dead_letters(self, most_receives: int) -> str:
        """Give the queue of jobs a dead-letter queue; its URL."""
        sqs = self.aws.client("sqs")
        dead: str = sqs.create_queue(QueueName=f"{self.aws.bucket}-dead")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": most_receives})
        sqs.set_queue_attributes(QueueUrl=self.aws.jobs, Attributes={"RedrivePolicy": policy})
        return dead

    def message(self, body: str = BODY) -> Message:
        """Send a job and receive it, as the first worker would."""
        self.aws.send(body)
        return self.receive()

    def receive(self) -> Message:
        """The next message; one that is not given back stays hidden for longer than this waits."""
        message = JobQueue(self.aws.client("sqs"), self.aws.jobs, 300).receive(5)
        assert message
        return message

    def make_visible(self, message: Message) -> None:
        """The message's visibility ends: what a dead worker's does."""
        self.aws.client("sqs").change_message_visibility(
            QueueUrl=self.aws.jobs, ReceiptHandle=message.receipt, VisibilityTimeout=0
        )

    def stored(self) -> list[str]:
        """All that is in the bucket."""
        listed = self.aws.client("s3").list_objects_v2(Bucket=self.aws.bucket).get("Contents", [])
        return [item["Key"] for item in listed]

    def events(self) -> list[dict[str, Any]]:
        """All events that have come so far."""
        found = []
        sqs = self.aws.client("sqs")
        while messages := sqs.receive_message(QueueUrl=self.aws.events).get("Messages"):
            found += [self.aws.taken(sqs, message) for message in messages]
        return found
