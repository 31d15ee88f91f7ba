"""Fixtures: a tiny FLUX in a Hub cache, moto as a server process, and a worker process per module."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from bake.localcloud.hub import tiny_flux
from tests.worker.written import assert_event

# Before torch is imported: its threads wait for each other, and where cores are few that is all they do.
os.environ.setdefault("OMP_NUM_THREADS", "1")

COMMAND = str(Path(sys.executable).parent / "flux-worker")
REVISION = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"
REGION = "eu-west-1"
VISIBILITY_SECONDS = 9  # a host that pauses for seconds must not cost a worker its job
LOST_ANSWER_SECONDS = 8  # the worker waits for EventBridge's answer for ten, and tells the event again
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.fixture(scope="session")
def _hub_online() -> None:
    """The worker goes offline before it imports huggingface_hub; other tests in this process must not."""
    import huggingface_hub.constants

    assert not huggingface_hub.constants.HF_HUB_OFFLINE


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a case does to the environment ends with it."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    for name in os.environ:
        if name.startswith(("FLUX_", "AWS_", "HF_HUB_CACHE")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def repository(_hub_online: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository") / "flux"
    tiny_flux.build(folder)
    return folder


@pytest.fixture(scope="session")
def lay_out(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], tuple[Path, Path]]:
    """Makes a fresh Hub cache with the tiny FLUX in it; gives back the cache and the snapshot's folder."""

    def make() -> tuple[Path, Path]:
        cache = tmp_path_factory.mktemp("cache")
        model = cache / "models--black-forest-labs--FLUX.1-dev"
        snapshot = model / "snapshots" / REVISION
        (model / "blobs").mkdir(parents=True)
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text(REVISION)
        for file in repository.rglob("*"):
            inside = file.relative_to(repository)
            # Only what diffusers loads is downloaded; the duplicates lie at the top.
            if file.is_dir() or (len(inside.parts) == 1 and inside.name != "model_index.json"):
                continue
            blob = model / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
            blob.write_bytes(file.read_bytes())
            link = snapshot / inside
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
        return cache, snapshot

    return make


@pytest.fixture(scope="session")
def cache(lay_out: Callable[[], tuple[Path, Path]]) -> Path:
    """One Hub cache for every case that only reads it."""
    return lay_out()[0]


@pytest.fixture(scope="session")
def model(cache: Path) -> Any:
    """The tiny FLUX, loaded as the worker loads it."""
    from flux_worker.inference.model import load
    from flux_worker.settings import ModelSettings

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "0")
        environment = {"FLUX_MODEL_REVISION": REVISION, "HF_HUB_CACHE": str(cache)}
        environment |= {"FLUX_BACKEND": "cpu"}
        return load(ModelSettings.from_environment(environment))


@pytest.fixture(scope="session")
def int8(lay_out: Callable[[], tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an int8 checkpoint of the tiny FLUX, in several shards."""
    from flux_worker.inference.quantize import quantize

    folder = tmp_path_factory.mktemp("quantized") / "int8"
    quantize(lay_out()[1], folder, shard_bytes=20_000)
    return folder


@functools.cache
def _client(endpoint: str, service: str) -> Any:
    """Made once: that takes longer than most calls."""
    return boto3.client(
        service,  # type: ignore[call-overload,unused-ignore]
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


class Aws:
    """A queue, a bucket, and a bus whose events arrive on a second queue, on moto's server."""

    def __init__(self, endpoint: str, name: str) -> None:
        self.endpoint = endpoint
        self._late: list[Any] = []  # what was told so late that its answer may have been lost
        self.bucket = f"{name}-images"
        self.bus = f"{name}-bus"
        self.jobs, self.events = (
            self.client("sqs").create_queue(QueueName=f"{name}-{kind}")["QueueUrl"]
            for kind in ("jobs", "events")
        )
        self.make_bucket()
        self.make_bus()

    def client(self, service: str) -> Any:
        return _client(self.endpoint, service)

    def make_bus(self) -> None:
        events = self.client("events")
        events.create_event_bus(Name=self.bus)
        events.put_rule(Name="all", EventBusName=self.bus, EventPattern='{"source": ["flux.worker"]}')
        arn = f"arn:aws:sqs:{REGION}:123456789012:{self.events.rpartition('/')[2]}"
        events.put_targets(Rule="all", EventBusName=self.bus, Targets=[{"Id": "1", "Arn": arn}])

    def remove_bus(self) -> None:
        """An outage of EventBridge, as far as the worker can tell."""
        events = self.client("events")
        events.remove_targets(Rule="all", EventBusName=self.bus, Ids=["1"])
        events.delete_rule(Name="all", EventBusName=self.bus)
        events.delete_event_bus(Name=self.bus)

    def make_bucket(self) -> None:
        self.client("s3").create_bucket(
            Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": REGION}
        )

    def remove_bucket(self) -> None:
        """An outage of S3, as far as the worker can tell."""
        s3 = self.client("s3")
        while True:  # a worker may be writing to it meanwhile
            for stored in s3.list_objects_v2(Bucket=self.bucket).get("Contents", []):
                s3.delete_object(Bucket=self.bucket, Key=stored["Key"])
            with contextlib.suppress(s3.exceptions.ClientError):
                s3.delete_bucket(Bucket=self.bucket)
                return

    def send(self, body: object) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.client("sqs").send_message(QueueUrl=self.jobs, MessageBody=text)

    def event(self, seconds: float = 30) -> dict[str, Any]:
        """The next event that is news: where the host paused for too long, the last one is told again."""
        while True:
            began = time.monotonic()
            event = self.any_event(seconds)
            told = event["detail-type"], event["detail"]
            if told in self._late:
                continue
            if time.monotonic() - began > LOST_ANSWER_SECONDS:
                self._late.append(told)
            return event

    def any_event(self, seconds: float = 30) -> dict[str, Any]:
        """The next event; a failure when none comes in ten times what a host at rest takes at most."""
        deadline = time.monotonic() + seconds * 10
        sqs = self.client("sqs")
        while time.monotonic() < deadline:
            for message in sqs.receive_message(QueueUrl=self.events, WaitTimeSeconds=1).get("Messages", []):
                return self.taken(sqs, message)
        pytest.fail(f"no event within {seconds * 10} s")

    def taken(self, sqs: Any, message: Any) -> dict[str, Any]:
        """The event in a message, which is deleted; each is as its schema says."""
        sqs.delete_message(QueueUrl=self.events, ReceiptHandle=message["ReceiptHandle"])
        event = json.loads(message["Body"])
        assert_event(event)
        return event  # type: ignore[no-any-return]

    def left(self) -> int:
        """Messages still on the queue of jobs, hidden ones too."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.client("sqs").get_queue_attributes(QueueUrl=self.jobs, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    def wait_until_empty(self, seconds: float = 10) -> None:
        """The event comes a moment before the message is deleted."""
        until(lambda: self.left() == 0, seconds, "the queue to be empty")


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for what takes so many seconds at most on a host at rest; a busy one gets ten times that."""
    deadline = time.monotonic() + seconds * 10
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds * 10} s for {what}")
        time.sleep(0.05)


def free_ports(number: int = 1) -> int:
    """The first of so many neighbouring ports that nobody has at this moment."""
    while True:
        with contextlib.suppress(OSError, OverflowError), contextlib.ExitStack() as bound:
            first = bound.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            for next_port in range(port + 1, port + number):
                bound.enter_context(socket.socket()).bind(("127.0.0.1", next_port))
            return port


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    with moto_server() as url:
        yield url


# The system chooses the port: one that is looked for beforehand may be another process's by then.
MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """moto's server, as a process of its own; it ends with this one, too."""
    with subprocess.Popen(
        [sys.executable, "-c", MOTO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        try:
            assert server.stdout
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


@pytest.fixture(scope="session")
def new_aws(endpoint: str) -> Callable[[], Aws]:
    """Makes places of its own for one case or one module."""
    numbers = itertools.count(1)
    return lambda: Aws(endpoint, f"flux-{next(numbers)}")


@pytest.fixture(scope="module")
def aws(new_aws: Callable[[], Aws]) -> Aws:
    return new_aws()


@dataclass
class Served:
    """A `flux-worker serve` process, what it tells systemd, and what it logs."""

    process: subprocess.Popen[bytes]
    socket: socket.socket
    log: Path
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _listen(self) -> None:
        """Read at once, as systemd does: the socket's buffer holds ten datagrams and no more."""
        with contextlib.suppress(OSError):
            while datagram := self.socket.recv(4096):
                self.told += datagram.decode().splitlines()

    def wait_told(self, pattern: str, seconds: float = 30, since: int = 0) -> None:
        until(lambda: self._heard(pattern, since), seconds, pattern)

    def _heard(self, pattern: str, since: int) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"the worker is gone: {self.log.read_text()}")
        return any(re.match(pattern, text) for text in self.told[since:])

    def lines(self) -> list[dict[str, Any]]:
        """What is logged so far; a line that the process has not finished yet waits."""
        whole = self.log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


@pytest.fixture(scope="module")
def environment(aws: Aws, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return serve_environment(aws, cache, tmp_path_factory.mktemp("state"))


def serve_environment(aws: Aws, cache: Path, state: Path) -> dict[str, str]:
    """All that `flux-worker serve` needs, and nothing of what this process has."""
    return CREDENTIALS | {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "OMP_NUM_THREADS": "1",  # threads that wait for each other are slow where cores are few
        "AWS_ENDPOINT_URL": aws.endpoint,
        "AWS_REGION": REGION,
        "FLUX_QUEUE_URL": aws.jobs,
        "FLUX_BUCKET": aws.bucket,
        "FLUX_EVENT_BUS": aws.bus,
        "FLUX_MODEL_REVISION": REVISION,
        "FLUX_BACKEND": "cpu",
        "FLUX_VISIBILITY_SECONDS": str(VISIBILITY_SECONDS),
        "FLUX_DRAIN_SECONDS": "600",  # steps that a busy host made slow must not look as if there was no time
        "FLUX_STATE_DIR": str(state),
        "FLUX_METRICS_PORT": "0",
        "AWS_EC2_METADATA_DISABLED": "true",
        "HF_HUB_CACHE": str(cache),
    }


@pytest.fixture(scope="module")
def worker(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One process for a whole module, since loading torch takes its time."""
    with serving(environment, tmp_path_factory.mktemp("worker")) as served:
        yield served


@contextlib.contextmanager
def serving(environment: dict[str, str], folder: Path, until_told: str = "READY=1") -> Iterator[Served]:
    """A `flux-worker serve` that is ready, or has told systemd something else."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener, (folder / "log").open("wb") as log:
        listener.bind(str(folder / "notify"))
        extra = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "60000000"}
        process = subprocess.Popen([COMMAND, "serve"], env=environment | extra, stderr=log, cwd=folder)
        served = Served(process, listener, folder / "log")
        try:
            served.wait_told(until_told, 60)
            yield served
        finally:
            process.kill()
            process.wait()
            # Else the thread would read on where the descriptor's number is used again.
            listener.shutdown(socket.SHUT_RDWR)
            served.listener.join()


@pytest.fixture
def stop() -> Iterator[Any]:
    """A StopRequest; the handlers of signals that it sets go when the case is over."""
    from flux_worker.host.stop import StopRequest

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield StopRequest()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.fixture
def harness(new_aws: Callable[[], Aws], tmp_path: Path, stop: Any) -> Any:
    """Workers in this process, with places of their own."""
    from tests.worker.worker_harness import WorkerHarness

    return WorkerHarness(new_aws(), tmp_path, stop)
