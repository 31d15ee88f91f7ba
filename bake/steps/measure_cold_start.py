"""Measure what the start of the booted image took, and hold it against the profile's limit.

A start that is too slow makes no image bad: a volume may be slow once. So the image is kept as unproven, and
another boot check, with another volume, may prove it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from bake.checks.cases import Case, Cases
from bake.checks.cold_start import NOT_MEASURED, ColdStart
from bake.checks.probes import probe
from bake.checks.start_stages import measured
from bake.checks.start_told import Machine
from bake.planning.floor import bandwidth
from bake.planning.plan import Plan
from bake.report.cold_start import table
from bake.run import Run
from bake.ssh import CommandResult, Session
from bake.ssh.program import facts
from bake.steps.launch import Instance
from bake.steps.volume_initialization import Initialization

if TYPE_CHECKING:
    from bake.account.instance_types import InstanceType

FACTS = "facts/cold-start.json"
CASE = "performance.cold_start"
BY = "EC2's state of the instance, and the probe boot_times"
_SECONDS = 30


def measure_cold_start(
    session: Session,
    instance: Instance,
    kind: str | None,
    drawing: float | None,
    plan: Plan,
    run: Run,
    filled: Initialization | None = None,
) -> ColdStart:
    """Ask the machine how it started, after its first image, and keep the answer for the report.

    `kind` is the instance's type as EC2 told it; `drawing` the seconds that the first image took; `filled`
    how much of its volume EC2 says that EBS has filled. Nothing of what the machine tells is trusted, and
    nothing of it that is missing is an error.
    """
    asked = time.monotonic()
    told = _told(probe("boot_times").run(session, {}, _SECONDS))
    machine_now = (asked + time.monotonic()) / 2  # by this machine's clock
    running = None
    if told is not None and instance.seen_running is not None:
        running = told.now - (machine_now - instance.seen_running)
    found = measured(
        told,
        running=running,
        drawing=drawing,
        bandwidth=bandwidth(plan.profile, plan.hydration, _type(plan, kind)),
        max_seconds=plan.profile.cold_start.max_seconds,
    )
    volume, rate = plan.profile.root_volume.type, plan.profile.cold_start.volume_initialization_rate
    found = found.model_copy(
        update={
            "volume": volume,
            "volume_initialization_rate": rate,
            "initialization": (filled.kind or None) if filled else None,
            "initialized_percent": filled.percent if filled else None,
        }
    )
    run.keep(FACTS, found.model_dump_json(indent=1) + "\n")
    return found


def _told(done: CommandResult) -> Machine | None:
    """What the probe printed; None if that was something else."""
    try:
        return Machine.model_validate(facts(done.stdout))
    except (ValidationError, ValueError):
        return None


def _type(plan: Plan, name: str | None) -> InstanceType | None:
    return next((one for one in plan.launch.worker_types if one.name == name), None)


def judge_cold_start(found: ColdStart, cases: Cases) -> None:
    """Record whether the start was as fast as the profile asks; a failed case raises nothing here."""
    with cases.case(CASE) as case:
        _judge(found, case)


def _judge(found: ColdStart, case: Case) -> None:
    limit = found.max_seconds
    expected = f"at most {limit} s (cold_start.max_seconds)" if limit else "measured, no limit is set"
    took = NOT_MEASURED if found.seconds is None else f"{found.seconds:.1f} s{_slowest(found)}"
    case(expected, took, BY)
    if found.too_slow and limit is not None:
        case.wrong.append(_why(found, limit))
    elif found.seconds is None:
        case.does_not_apply = f"{'; '.join(found.notes) or 'the machine did not tell'}, and no limit is set"


def _why(found: ColdStart, limit: int) -> str:
    asked = f"cold_start.max_seconds is {limit}"
    if found.seconds is None:
        return f"{asked}, and the start could not be measured: {'; '.join(found.notes) or 'no answer'}"
    over = found.seconds - limit
    return (
        f"the first image came {found.seconds:.1f} s after the instance was running, {over:.1f} s too late: "
        f"{asked}{_slowest(found)}. One slow volume is no bad image: another boot check may prove it"
    )


def _slowest(found: ColdStart) -> str:
    one = found.slowest
    return "" if one is None else f"; most of it was {one.name}, {one.seconds:.1f} s"


def show_cold_start(found: ColdStart, run: Run) -> None:
    """Print the report of the start."""
    told: dict[str, Any] = found.model_dump(mode="json")
    run.progress.emit("cold_start", cold_start=told, text=table(found))
