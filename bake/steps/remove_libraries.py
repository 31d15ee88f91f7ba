"""List the libraries of torch's packages that no start opens, and remove them if the profile says so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bake import units
from bake.errors import BakeError
from bake.layout import BAKE, VENV, WORKER_ENV
from bake.planning.plan import Plan
from bake.progress import readable
from bake.run import Run
from bake.ssh import Session
from bake.steps import record_trace

FACTS = "facts/unused-libraries.json"
ASIDE = f"{BAKE}/unused-libraries"
PROGRAM = (f"{VENV}/bin/python", "-I", f"{BAKE}/unused_libraries.py")
ON_CUDA = "start on cuda"
# As the recorded start: an image that nobody looks at, without what was compiled.
PROOF = (
    *("env", "FLUX_COMPILE=off", f"XDG_CACHE_HOME={BAKE}", f"CUDA_CACHE_PATH={BAKE}/cuda"),
    *(
        f"{VENV}/bin/flux-worker",
        "draw",
        "--prompt",
        "a cat on a roof",
        "--width",
        "1024",
        "--height",
        "1024",
    ),
    *("--steps", "2", "--out", f"{BAKE}/without-libraries.png"),
)


@dataclass(frozen=True)
class Unused:
    """Libraries that no start opens, on the image or removed from it; `why_not` they were not removed."""

    count: int
    bytes: int
    removed: bool
    why_not: str


def remove_libraries(session: Session, plan: Plan, run: Run) -> Unused | None:
    """List them, and remove them where that is agreed and a start was recorded on the GPU.

    What the worker cannot draw without is put back. None where the image is not for CUDA.
    """
    if plan.profile.base.accelerator != "cuda":
        return None
    return run.once("libraries", Unused | None, lambda: _step(session, plan, run))


def _step(session: Session, plan: Plan, run: Run) -> Unused | None:
    with run.progress.step("libraries"):
        try:
            told = _list(session, run)
        except (BakeError, ValueError) as error:  # the image is as good with all of them
            run.progress.note(f"unused libraries are not known: {str(error).splitlines()[0]}")
            return None
        why = _why_not(plan, told)
        if not why:
            why = _remove(session, run, told)
        unused = Unused(told["unused"], told["unused_bytes"], not why, why)
        run.keep(FACTS, json.dumps({**told, "removed": unused.removed, "why_not": why}, indent=1) + "\n")
        run.progress.note(line(unused))
        return unused


def _list(session: Session, run: Run) -> dict[str, Any]:
    """What the builder has, by what the recorded start opened."""
    file = run.directory / record_trace.FACTS
    trace = file.read_bytes() if file.exists() else b"{}"
    told: dict[str, Any] = json.loads(session.run(*PROGRAM, "list", VENV, stdin=trace).stdout)
    return told


def _why_not(plan: Plan, told: dict[str, Any]) -> str:
    """Why nothing is removed; empty if it is."""
    if not plan.profile.worker.remove_unused_libraries:
        return "worker.remove_unused_libraries is not set"
    if plan.provision.drivers.lacks:
        return plan.provision.drivers.lacks
    if told["recorded"] != ON_CUDA:
        return f"no start was recorded on the GPU: {told['recorded']}"
    return "" if told["unused"] else "there are none"


def _remove(session: Session, run: Run, told: dict[str, Any]) -> str:
    """Move them away, draw, and remove them; why they were put back, if the worker does not draw."""
    session.run(*PROGRAM, "aside", VENV, ASIDE, stdin=json.dumps(told).encode(), sudo=True)
    unit = units.start(session, "bake-without-libraries", *PROOF, directory=BAKE, environment_file=WORKER_ENV)
    with run.progress.unit("draw without them"):
        result = unit.wait()
    unit.save_logs(run, result)
    if result.exit_code == 0:
        session.run("rm", "-rf", "--one-file-system", ASIDE, sudo=True)
        return ""
    session.run(*PROGRAM, "back", VENV, ASIDE, sudo=True)
    said = (result.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"the worker does not draw without them: {said}"


def line(unused: Unused) -> str:
    """The result in a line."""
    what = f"{unused.count} libraries of torch's packages, {readable(unused.bytes)}, that no start opens"
    return f"{what}: removed" if unused.removed else f"{what}, stay: {unused.why_not}"
