"""Record on the builder what a start of the worker reads, and in which order; the image ships that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bake import units
from bake.checks.case_list import TRACE as CASES
from bake.checks.cases import recording
from bake.errors import BakeError, ConnectionLost, Resumable
from bake.layout import BAKE, NEURON_MODELS, NEURON_VENV, TOOLS, TRACE, VENV, WORKER_ENV
from bake.planning.plan import Plan
from bake.progress import readable
from bake.run import Run
from bake.ssh import Session
from bake.steps.quantize import snapshot

UNIT = "bake-trace"
FACTS, DONE = "facts/trace.json", "trace"  # of a run: a file, and a name in its memory
STATIC = "static"
NOT_STARTED = "the worker for Neuron is not started while it is baked"
# Two steps, as the worker draws when it has started; nobody looks at the image.
DRAW = ("draw", "--prompt", "a warm-up", "--width", "1024", "--height", "1024", "--steps", "2", "--out", "-")
# Seconds that a start may take: imports alone, and with a model that is read from the disk.
IMPORTS, WHOLE = 300, 1800


@dataclass(frozen=True)
class Trace:
    """The trace on the image, by its hash. `recorded` is how: by a start on what, or `static`."""

    path: str
    sha256: str
    recorded: str


def record_trace(session: Session, plan: Plan, run: Run) -> Trace | None:
    """Record a start, or write down what is known without one; what goes wrong fails a case, never the bake.

    None if not even that could be written: then a check says that the image has no trace.
    """
    return run.once(DONE, Trace | None, lambda: _record(session, plan, run))


def recorded(run: Run) -> Trace | None:
    """The trace of this run, whichever attempt recorded it."""
    return run.recall(DONE, Trace | None) if run.recalls(DONE) else None


def _record(session: Session, plan: Plan, run: Run) -> Trace | None:
    with (
        run.progress.step("trace"),
        recording(run, "sealed", "trace", CASES, plan.verify.waivers) as cases,
        cases.case(CASES[0]) as case,
    ):
        wanted = how(plan)
        facts = _facts(session, plan, run)
        found, why = str(facts.get("recorded", "nothing")), str(facts.get("why", ""))
        if wanted == STATIC:
            case.does_not_apply = NOT_STARTED
        else:
            case.holds(found == wanted, wanted, f"{found}: {why}" if why else found, "provision/tracing")
        run.progress.note(told(facts))
        run.keep(FACTS, json.dumps(facts, indent=1) + "\n")
        return Trace(TRACE, str(facts["sha256"]), found) if "sha256" in facts else None


def how(plan: Plan) -> str:
    """How the start can be recorded on this builder."""
    drivers = plan.verify.drivers
    if drivers.compiled:
        return STATIC
    return "start on cuda" if drivers.backend == "cuda" and drivers.on_builder else "start on cpu"


def arguments(plan: Plan, run: Run) -> tuple[str, ...]:
    """What `provision/tracing` is told of the image."""
    drivers = plan.verify.drivers
    model = plan.weights.model_dir or snapshot(plan)
    if drivers.compiled:
        return ("--venv", NEURON_VENV, "--out", TRACE, "--image", run.id, "--compiled", NEURON_MODELS)
    here = "here" if drivers.on_builder else "elsewhere"
    gpu = ("--gpu", here) if drivers.backend == "cuda" else ()
    return ("--venv", VENV, "--out", TRACE, "--image", run.id, "--model", model, *gpu)


def start(plan: Plan) -> tuple[str, ...]:
    """The start that is recorded: the worker's own first image, or its imports where that needs a GPU."""
    wanted, user = how(plan), plan.system.user
    who = ("--user", user, "--environment", WORKER_ENV, "--recorded", wanted)
    if wanted == "start on cuda":
        return (*who, "--limit", str(WHOLE), "--", f"{VENV}/bin/flux-worker", *DRAW)
    settings = ("--set", "FLUX_BACKEND=cpu", "--set", "CUDA_VISIBLE_DEVICES=", "--limit", str(IMPORTS))
    model = plan.weights.model_dir or snapshot(plan)
    return (*who, *settings, "--", f"{VENV}/bin/python", f"{BAKE}/tracing/imports.py", model)


def _facts(session: Session, plan: Plan, run: Run) -> Mapping[str, Any]:
    """Record, and where the recorder itself ends badly, write what is known without a recording."""
    known = arguments(plan, run)
    if how(plan) == STATIC:
        return _attempt(session, run, f"{UNIT}-static", *known, "--why", NOT_STARTED)
    found = _attempt(session, run, UNIT, *known, *start(plan))
    if "sha256" in found:
        return found
    return _attempt(session, run, f"{UNIT}-static", *known, "--why", str(found["why"]))


def _attempt(session: Session, run: Run, name: str, *words: str) -> dict[str, Any]:
    """Run the recorder as a unit; the facts that it printed, or `why` there are none."""
    try:
        unit = units.start(session, name, f"{TOOLS}/python", "-m", "tracing", *words, directory=BAKE)
        with run.progress.unit("trace"):
            result = unit.wait(seconds=1.0)
        unit.save_logs(run, result)
        if result.exit_code:
            # A failed unit that stays would be the bake's own finding.
            session.run("systemctl", "reset-failed", name, sudo=True, check=False)
            said = result.stderr.strip().splitlines()[-1:]
            return {"why": f"the recorder ended with exit code {result.exit_code}: {' '.join(said)}"}
        found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        return found
    except (ConnectionLost, Resumable):
        raise
    except (BakeError, ValueError, IndexError) as error:
        said = str(error).splitlines()[:1] or [type(error).__name__]
        return {"why": f"the recorder ended without a result: {said[0]}"}


def told(facts: Mapping[str, Any]) -> str:
    """The trace in a line."""
    stages = ", ".join(
        f"{one['name'].replace('_', ' ')} {readable(one['bytes'])}" for one in facts.get("stages", ())
    )
    why = f" ({facts['why']})" if facts.get("why") else ""
    return f"trace of what a start reads: {facts.get('recorded', 'none')}{why}: {stages or 'nothing'}"
