"""Compile the model on the builder for the image sizes of the profile: for its GPU, or for Neuron."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from bake import units
from bake.errors import BakeError
from bake.layout import BAKE, COMPILED, VENV, WORKER_ENV
from bake.planning.plan import Plan
from bake.progress import readable
from bake.run import Run
from bake.ssh import Session
from bake.steps.provision import compile_for_neuron

FACTS = "facts/compiled.json"
# What is compiled is the same for every step; nobody looks at the image.
STEPS = "2"
TOKENS = 512  # of a job that does not say how many
AGAIN = "the run directory has the logs of bake-compile; without worker.compile_sizes the image draws eagerly"
# The folders' facts, one a line; what cannot be listed is not there.
_LIST = 'for file in "$1"/*/compiled.json; do [ ! -f "$file" ] || { cat "$file"; echo; }; done'


@dataclass(frozen=True)
class Compiled:
    """What was compiled for one size: seconds of the worker's run, and what it is for, by name."""

    size: str
    seconds: float
    key: Mapping[str, str]
    bytes: int


def compile_model(session: Session, plan: Plan, run: Run) -> None:
    """Compile what the profile asks for; where the builder cannot, the facts say so, and the image.

    Raises BakeError if the builder can, and it fails.
    """
    compile_for_neuron(session, plan.provision, run)
    sizes, why = plan.profile.worker.compile_sizes, plan.provision.drivers.lacks
    if not sizes:
        return
    if why:
        run.progress.note(f"nothing is compiled for {', '.join(sizes)}: {why}; workers draw eagerly")
        _keep(run, sizes, (), why)
        return
    with run.progress.step("compile"):
        made = tuple(
            run.once(f"compile {size}", Compiled, partial(_compile, session, run, size)) for size in sizes
        )
        _keep(run, sizes, made, "")


def _keep(run: Run, sizes: tuple[str, ...], made: tuple[Compiled, ...], why: str) -> None:
    told = {"asked": list(sizes), "compiled": [asdict(one) for one in made], "why_not": why}
    run.keep(FACTS, json.dumps(told, indent=1) + "\n")


def _compile(session: Session, run: Run, size: str) -> Compiled:
    """Draw once with the worker, as root, so that its user can't change the code that it runs."""
    run.progress.status(f"compiling for {size}")
    unit = units.start(
        session,
        f"bake-compile-{size}",
        *arguments(size),
        directory=BAKE,
        environment_file=WORKER_ENV,
    )
    with run.progress.unit(f"compile {size}"):
        result = unit.wait()
    unit.save_logs(run, result)
    result.check()
    listed = session.run("sh", "-c", _LIST, "sh", COMPILED, sudo=True).stdout
    made = found(listed, size, result.seconds)
    if made is None:
        said = (result.stderr.strip().splitlines() or ["the worker said nothing"])[-1]
        raise BakeError(f"the worker drew {size}, and compiled nothing: {said}", hint=AGAIN)
    run.progress.note(f"compiled for {size} in {result.seconds:.0f} s, {readable(made.bytes)} in all")
    return made


def arguments(size: str) -> tuple[str, ...]:
    """The command that compiles: what it draws is thrown away."""
    width, height = size.split("x")
    return (
        *("env", "FLUX_COMPILE=regional", f"FLUX_COMPILE_CACHE={COMPILED}"),
        # What libraries keep for themselves goes with the seal.
        *(f"XDG_CACHE_HOME={BAKE}", f"CUDA_CACHE_PATH={BAKE}/cuda"),
        *(f"{VENV}/bin/flux-worker", "draw", "--prompt", "a cat on a roof"),
        *("--width", width, "--height", height, "--steps", STEPS, "--out", f"{BAKE}/compiled-{size}.png"),
    )


def found(listed: str, size: str, seconds: float) -> Compiled | None:
    """What the worker kept for a size, of its folders' facts, one a line; None if there is none."""
    width, height = map(int, size.split("x"))
    for line in filter(None, listed.splitlines()):
        told: dict[str, Any] = json.loads(line)
        if [width, height, TOKENS] in told["sizes"]:
            return Compiled(size, round(seconds, 1), told["key"], told["bytes"])
    return None
