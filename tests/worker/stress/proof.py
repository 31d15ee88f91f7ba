"""The run itself: workers, faults, outages and kills, until nothing is left to do; then the evidence."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from . import evidence, orders
from .faults import SERVICES, FaultyProxy
from .fleet import DONE, Fleet, Kill, Slot

VISIBILITY_SECONDS = 18  # a host that pauses for seconds must not cost a worker its job
_MAX_RECEIVES = 100  # a fault costs a receipt, too; what is good must never end among the dead letters
_OUTAGE_SECONDS = (1.0, 2.5)
_PATIENCE_SECONDS = 1800  # a busy host is ten times slower at times


@dataclass(frozen=True)
class Storm:
    """What is asked for and what goes wrong; the seed decides which jobs, which calls and when."""

    seed: int
    jobs: int
    kills: int
    workers: int = 2
    one_in: int | None = 5
    """Of so many calls to AWS one fails, and each service is down once; None: AWS is well."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to, in figures."""

    storm: Storm
    messages: int
    seconds: float
    calls: int
    faults: int
    kills: int
    drawn: int
    given_up: int
    announced: Counter[str]
    announced_again: int
    recoveries: list[float]

    def __str__(self) -> str:
        lines = [
            ("seed, workers", f"{self.storm.seed}, {self.storm.workers}"),
            ("messages, of which jobs to draw", f"{self.messages}, {self.storm.jobs}"),
            ("seconds, jobs a second", f"{self.seconds:.1f}, {self.storm.jobs / self.seconds:.2f}"),
            ("calls to AWS, of which failed", f"{self.calls}, {self.faults}"),
            ("workers killed", f"{self.kills}"),
            ("times a job was drawn, of which given up", f"{self.drawn}, {self.given_up}"),
            ("events", ", ".join(f"{kind} {count}" for kind, count in sorted(self.announced.items()))),
            ("duplicates announced again, not drawn", f"{self.announced_again}"),
        ]
        if self.recoveries:
            spans = f"{median(self.recoveries):.1f} s, {max(self.recoveries):.1f} s"
            lines.append(("from a kill to its job done: median, longest", spans))
        return "\n".join(f"{name:<48}{value}" for name, value in lines)


@dataclass(frozen=True)
class _Outage:
    """When a whole service is to fail for a while."""

    after: int
    service: str
    seconds: float


def prove(aws: Any, environment: dict[str, str], folder: Path, storm: Storm) -> Outcome:
    """Serve all jobs while the storm lasts, hold the end against what was asked, give figures."""
    sqs, s3 = aws.client("sqs"), aws.client("s3")
    dead = _dead_letters(sqs, aws)
    wanted = orders.make(storm.seed, storm.jobs)
    for body in wanted.bodies:
        sqs.send_message(QueueUrl=aws.jobs, MessageBody=body)
    proxy = FaultyProxy(aws.endpoint, seed=storm.seed, one_in=storm.one_in)
    changes = {"AWS_ENDPOINT_URL": proxy.url, "FLUX_VISIBILITY_SECONDS": str(VISIBILITY_SECONDS)}
    started = time.monotonic()
    with proxy.running(), Fleet(folder, environment | changes, size=storm.workers) as fleet:
        _break(fleet, proxy, _plan(storm))
        _until(fleet, lambda: not _left(sqs, aws.jobs), "the queue to be empty")
        _until(fleet, lambda: not fleet.outbox(), "the outboxes to be empty")
        seconds = time.monotonic() - started
        assert fleet.stop() == [0] * storm.workers
    assert not _left(sqs, aws.jobs)
    assert not _left(sqs, dead), "good jobs are among the dead letters"
    found = evidence.objects(s3, aws.bucket)
    records = evidence.every_job_has_one_set_of_objects(wanted, found)
    announced = evidence.everything_was_announced(wanted, records, evidence.events(sqs, aws.events))
    drawn = list(evidence.drawings(fleet))
    evidence.nothing_was_drawn_twice_without_need(drawn, found)
    given_up = sum(one.given_up for one in drawn)
    assert given_up <= storm.jobs / 20, "claims are lost although their workers live"
    return Outcome(
        storm=storm,
        messages=len(wanted.bodies),
        seconds=seconds,
        calls=proxy.calls.total(),
        faults=proxy.failed.total(),
        kills=sum(life.killed is not None for life in fleet.lives()),
        drawn=len(drawn),
        given_up=given_up,
        announced=announced,
        announced_again=_logged(fleet, "announced again"),
        recoveries=_recoveries(fleet),
    )


def _dead_letters(sqs: Any, aws: Any) -> str:
    """A dead-letter queue behind the queue of jobs, as the README asks for; gives back its URL."""
    url: str = sqs.create_queue(QueueName=f"{aws.bucket}-dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": _MAX_RECEIVES})
    sqs.set_queue_attributes(QueueUrl=aws.jobs, Attributes={"RedrivePolicy": policy})
    return url


def _left(sqs: Any, queue: str) -> int:
    """Messages on a queue, hidden ones too."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)
    return sum(int(answer["Attributes"][name]) for name in names)


def _plan(storm: Storm) -> list[Kill | _Outage]:
    """The kills, and one outage of each service, in the order in which they come due."""
    plan: list[Kill | _Outage] = [*Kill.plan(storm.seed, storm.kills, storm.jobs, storm.workers)]
    dice = random.Random(f"{storm.seed} outages")
    for service in SERVICES if storm.one_in else ():
        plan.append(_Outage(dice.randrange(storm.jobs * 9 // 10), service, dice.uniform(*_OUTAGE_SECONDS)))
    return sorted(plan, key=lambda step: step.after)


def _break(fleet: Fleet, proxy: FaultyProxy, plan: list[Kill | _Outage]) -> None:
    for step in plan:
        _until(fleet, lambda after=step.after: fleet.done() >= after, f"{step.after} jobs to be done")
        if isinstance(step, Kill):
            _strike(fleet, fleet.slots[step.slot], step)
        else:
            proxy.outage(step.service, step.seconds)


def _strike(fleet: Fleet, slot: Slot, kill: Kill) -> None:
    _until(fleet, slot.life.ready, "the model to be loaded")
    if kill.moment != "anything":
        seen = len(slot.life.lines)
        deadline = time.monotonic() + 5  # a slot may have nothing more to draw
        while time.monotonic() < deadline:
            fleet.follow()
            if any(line["message"] == kill.moment for line in slot.life.lines[seen:]):
                break
            time.sleep(0.002)
    time.sleep(kill.delay)
    slot.kill()
    slot.start()


def _until(fleet: Fleet, condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            tails = {str(slot.life.log): slot.life.lines[-3:] for slot in fleet.slots}
            raise AssertionError(f"waited {_PATIENCE_SECONDS} s for {what}: {json.dumps(tails, indent=1)}")
        time.sleep(0.1)
        fleet.follow()


def _logged(fleet: Fleet, message: str) -> int:
    return sum(line["message"] == message for life in fleet.lives() for line in life.lines)


def _recoveries(fleet: Fleet) -> list[float]:
    """Seconds from each kill to the end of the job that the killed worker had in hand."""
    ends = [
        (line["job"], datetime.fromisoformat(line["time"]).timestamp())
        for life in fleet.lives()
        for line in life.lines
        if line["message"] in DONE
    ]
    found = []
    for life in fleet.lives():
        in_hand = next((line["job"] for line in reversed(life.lines) if "job" in line), None)
        if life.killed and in_hand:
            after = [end - life.killed for job, end in ends if job == in_hand and end > life.killed]
            found += [min(after)] if after else []  # none: it was done, and nothing else was in hand
    return found
