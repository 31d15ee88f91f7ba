"""A stress run: workers, faults, outages, kills and a GPU that breaks, until all jobs are done; then the
evidence."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from . import evidence, messages
from .faults import REFUSALS, SERVICES, FaultyProxy
from .fleet import GIVEN_UP, SET_ASIDE, Fleet, GpuFault, Kill, Slot
from .messages import SentMessages

VISIBILITY_SECONDS = 18  # a host that pauses for seconds must not cost a worker its job
_MAX_RECEIVES = 6  # a fault costs a receive, too, and so does each trip of the sick worker
_OUTAGE_SECONDS = (1.0, 2.5)
_REFUSED_SERVICES = 2  # one by words that last, as it seems, one by words that pass
_PATIENCE_SECONDS = 1800  # a busy host is ten times slower at times


@dataclass(frozen=True)
class StressScenario:
    """What is asked for and what goes wrong; the seed decides which jobs, which calls and when."""

    seed: int
    jobs: int
    kills: int
    workers: int = 2
    one_in: int | None = 5
    """Of so many calls to AWS one fails, and each service is down once; None: AWS is well."""
    faulty: tuple[GpuFault, ...] = ()
    """One worker more each: what its GPU suffers from."""
    forbidden: int = 0
    """Jobs that belong where nobody may write."""
    poison: int = 0
    """Jobs that no worker can draw."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to, in figures."""

    scenario: StressScenario
    messages: int
    seconds: float
    calls: int
    faults: int
    kills: int
    killed_with_two: int
    drawn: int
    beside: int
    given_up: int
    announced: Counter[str]
    announced_again: int
    recoveries: list[float]
    dead: int
    set_aside: int
    kept: int
    faulty_starts: int
    trips: int
    wasted: Counter[str]

    def __str__(self) -> str:
        lines = [
            ("seed, workers", f"{self.scenario.seed}, {self.scenario.workers}"),
            ("sick workers besides", "; ".join(map(str, self.scenario.faulty)) or "none"),
            ("messages, of which jobs to draw", f"{self.messages}, {self.scenario.jobs}"),
            ("seconds, jobs a second", f"{self.seconds:.1f}, {self.scenario.jobs / self.seconds:.2f}"),
            ("calls to AWS, of which failed", f"{self.calls}, {self.faults}"),
            ("workers killed, of which with two jobs in hand", f"{self.kills}, {self.killed_with_two}"),
            ("times a job was drawn, of which given up", f"{self.drawn}, {self.given_up}"),
            ("drawn while another was delivered", f"{self.beside}"),
            ("events", ", ".join(f"{kind} {count}" for kind, count in sorted(self.announced.items()))),
            ("duplicates announced again, not drawn", f"{self.announced_again}"),
        ]
        if self.scenario.faulty or self.dead:
            lines += [
                ("dead letters, all for their own fault", f"{self.dead}"),
                ("results set aside, kept for good", f"{self.set_aside}, {self.kept}"),
                ("starts of the sick, trips of all", f"{self.faulty_starts}, {self.trips}"),
                ("receives burnt by failures, most of a good job", self._wasted()),
            ]
        if self.recoveries:
            spans = f"{median(self.recoveries):.1f} s, {max(self.recoveries):.1f} s"
            lines.append(("from a kill to its job done: median, longest", spans))
        return "\n".join(f"{name:<48}{value}" for name, value in lines)

    def _wasted(self) -> str:
        good = [count for job, count in self.wasted.items() if job.startswith("job-")]
        return f"{self.wasted.total()}, {max(good, default=0)}"


@dataclass(frozen=True)
class _Outage:
    """When a whole service is to fail for a while, or to refuse everything with a code."""

    after: int
    service: str
    seconds: float
    code: str | None = None


def run_scenario(aws: Any, environment: dict[str, str], folder: Path, scenario: StressScenario) -> Outcome:
    """Serve all jobs while the storm lasts, hold the end against what was asked, give figures."""
    sqs = aws.client("sqs")
    dead = _dead_letters(sqs, aws)
    sent = messages.make(scenario.seed, scenario.jobs, forbidden=scenario.forbidden, poison=scenario.poison)
    proxy = FaultyProxy(aws.endpoint, seed=scenario.seed, one_in=scenario.one_in)
    proxy.fast_retry.update(body for body in sent.bodies if evidence.id_in(body) in sent.dead)
    changes = {"AWS_ENDPOINT_URL": proxy.url, "FLUX_VISIBILITY_SECONDS": str(VISIBILITY_SECONDS)}
    started = time.monotonic()
    with (
        proxy.running(),
        Fleet(folder, environment | changes, size=scenario.workers, faulty=scenario.faulty) as fleet,
    ):
        # Else the first to be ready might have drawn most of it before the others come.
        _until(fleet, lambda: all(slot.life.ready() for slot in fleet.slots), "the workers to be ready")
        assert all(
            slot.status().get("pid", slot.life.process.pid) == slot.life.process.pid for slot in fleet.slots
        )
        for body in sent.bodies:
            sqs.send_message(QueueUrl=aws.jobs, MessageBody=body)
        _break(fleet, proxy, _plan(scenario))
        _until(fleet, lambda: not _left(sqs, aws.jobs), "the queue to be empty")
        _until(fleet, lambda: not _undelivered(fleet, sent), "the outboxes to be empty")
        seconds = time.monotonic() - started
        assert fleet.stop() == [0] * scenario.workers
    assert not _left(sqs, aws.jobs)
    return _check_outcome(sent, aws, dead, fleet, proxy, scenario, seconds)


def _check_outcome(
    sent: SentMessages,
    aws: Any,
    dead: str,
    fleet: Fleet,
    proxy: FaultyProxy,
    scenario: StressScenario,
    seconds: float,
) -> Outcome:
    """What was found, once it was held against what was wanted."""
    sqs = aws.client("sqs")
    wasted = evidence.wasted_receives(fleet, sent)
    dead_letters = evidence.bodies(sqs, dead)
    evidence.only_bad_jobs_are_dead_letters(sent, dead_letters)
    found = evidence.objects(aws.client("s3"), aws.bucket)
    unreported = evidence.unheard(proxy.lost, fleet, _MAX_RECEIVES)
    records = evidence.every_job_has_one_set_of_objects(sent, found, unreported)
    evidence.each_failure_is_marked(found)
    received = [json.loads(body) for body in evidence.bodies(sqs, aws.events)]
    announced = evidence.everything_was_announced(sent, records, received, unreported)
    drawn = list(evidence.drawings(fleet))
    evidence.nothing_was_generated_twice_needlessly(drawn, found)
    beside = evidence.one_result_waits_at_a_time(fleet)
    assert beside, "no job was drawn while another was delivered"
    given_up = sum(one.given_up in GIVEN_UP for one in drawn)
    # A pause of the host may cost each worker the two claims in its hand.
    allowed = max(2 * len(fleet.slots), scenario.jobs / 20)
    assert given_up <= allowed, "claims are lost although their workers live"
    return Outcome(
        scenario=scenario,
        messages=len(sent.bodies),
        seconds=seconds,
        calls=proxy.calls.total(),
        faults=proxy.failed.total(),
        kills=sum(life.killed is not None for life in fleet.lives()),
        killed_with_two=sum(life.killed is not None and len(life.in_hand()) > 1 for life in fleet.lives()),
        drawn=len(drawn),
        beside=beside,
        given_up=given_up,
        announced=announced,
        announced_again=_logged(fleet, "announced again"),
        recoveries=evidence.recoveries(fleet),
        dead=len(dead_letters),
        set_aside=_logged(fleet, SET_ASIDE),
        kept=evidence.undeliverable_results(fleet, sent, found),
        faulty_starts=sum(len(slot.lives) for slot in fleet.slots if slot.gpu_fault),
        trips=_logged(fleet, evidence.TRIP),
        wasted=wasted,
    )


def _undelivered(fleet: Fleet, sent: SentMessages) -> list[Path]:
    """What the healthy workers are still to deliver."""
    names = {f"{name}.entry" for name in sent.forbidden}
    return [pending for pending in fleet.outbox(healthy=True) if pending.name not in names]


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


def _plan(scenario: StressScenario) -> list[Kill | _Outage]:
    """The kills, one outage of each service, and spells of refusals, in the order in which they come due."""
    plan: list[Kill | _Outage] = [*Kill.plan(scenario.seed, scenario.kills, scenario.jobs, scenario.workers)]
    dice = random.Random(f"{scenario.seed} outages")
    for service in SERVICES if scenario.one_in else ():
        plan.append(_Outage(dice.randrange(scenario.jobs * 9 // 10), service, dice.uniform(*_OUTAGE_SECONDS)))
    if scenario.one_in and scenario.forbidden:
        permanent, passing = dice.sample(SERVICES, _REFUSED_SERVICES)
        for service, code in (
            (permanent, REFUSALS[permanent][0]),
            (passing, dice.choice(REFUSALS[passing][1:])),
        ):
            after, seconds = dice.randrange(scenario.jobs * 2 // 3), dice.uniform(*_OUTAGE_SECONDS)
            plan.append(_Outage(after, service, seconds, code))
    return sorted(plan, key=lambda step: step.after)


def _break(fleet: Fleet, proxy: FaultyProxy, plan: list[Kill | _Outage]) -> None:
    for step in plan:
        _until(fleet, lambda after=step.after: fleet.done() >= after, f"{step.after} jobs to be done")
        if isinstance(step, Kill):
            _strike(fleet, fleet.slots[step.slot], step)
        elif step.code:
            proxy.refuse(step.service, step.code, step.seconds)
        else:
            proxy.outage(step.service, step.seconds)


def _strike(fleet: Fleet, slot: Slot, kill: Kill) -> None:
    _until(fleet, slot.life.ready, "the model to be loaded")
    if kill.moment != "anything":
        seen = len(slot.life.lines)
        deadline = time.monotonic() + 5  # a slot may have nothing more to draw
        while time.monotonic() < deadline:
            fleet.follow()
            if kill.has_come(slot.life, seen):
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


def _logged(fleet: Fleet, begin: str) -> int:
    return sum(line["message"].startswith(begin) for life in fleet.lives() for line in life.lines)
