"""The result of a bake: the AMI, and the manifest that records how it was made."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bake.checks import Report
from bake.image import Image
from bake.layout import INSTANCE_ENV
from bake.planning import render as plan_render
from bake.planning.plan import Plan
from bake.progress import StepTime
from bake.run import Run
from bake.steps.boot_check import SIZE, Drawing
from bake.steps.check_capacity import as_dict as capacity_facts
from bake.steps.judge import Outcome
from bake.steps.prefetch import Weights
from bake.steps.quantize import Checkpoint
from bake.steps.survey import Survey


@dataclass(frozen=True)
class Built:
    """What the sealed builder holds: the results of the steps that made it."""

    base: Survey
    weights: Weights
    checkpoint: Checkpoint | None
    report: Report


@dataclass(frozen=True)
class Baked:
    """An available AMI, and what was built for it."""

    image: Image
    built: Built


@dataclass(frozen=True)
class Release:
    """A verified AMI. `directory` holds plan, events, logs, JUnit XML, manifest and the first image."""

    image: Image
    directory: Path
    drawing: Drawing
    checks: int
    steps: tuple[StepTime, ...]


def release(plan: Plan, run: Run, baked: Baked, published: Image, drawing: Drawing) -> Release:
    """Write the manifest of an image that passed its boot check and is published; return the release."""
    write_manifest(plan, run, replace(baked, image=published), "good", drawing)
    checks = len(baked.built.report.checks)
    return Release(published, run.directory, drawing, checks, tuple(run.progress.steps))


def write_manifest(
    plan: Plan, run: Run, baked: Baked, state: Outcome, drawing: Drawing | None = None
) -> None:
    """Write `manifest.json`: how the image was made, and its state."""
    lock = plan.weights.lock and plan.weights.lock.as_dict()
    built = baked.built
    manifest = {
        "run": run.id,
        "state": state,
        "image": asdict(baked.image),
        "plan": plan_render.as_dict(plan),
        "base": capacity_facts(built.base.capacity),
        "weights": {**asdict(built.weights), "bytes": built.weights.bytes, "lock": lock},
        "int8": asdict(built.checkpoint) if built.checkpoint else None,
        "checks": [
            {"id": one.id, "title": one.about.title, "outcome": one.outcome, "base": list(one.base)}
            for one in built.report.checks
        ],
        "boot_check": boot_check_facts(drawing) if drawing else None,
        "notes": list(run.progress.notes),
        "steps": [asdict(step) for step in run.progress.steps],
    }
    run.keep("manifest.json", json.dumps(manifest, indent=2) + "\n")


def boot_check_facts(drawing: Drawing) -> dict[str, Any]:
    """The boot check, for the manifest."""
    return {
        "width": drawing.width,
        "height": drawing.height,
        "object": drawing.s3,
        "precision": drawing.precision,
        "device": drawing.device,
        "ready_seconds_after_boot": drawing.ready_seconds,
    }


def summary(release: Release, cost: str, *, rehearsal: bool) -> str:
    """The end of the output: times, the AMI, where its files are, and what to try next."""
    times = "\n".join(f"  {step.name:<15} {step.seconds:7.1f} s" for step in release.steps)
    total = sum(step.seconds for step in release.steps)
    image = release.image.id
    bake, drawing = _program(), release.drawing
    # A model compiled for some sizes draws no others, so suggest the size that it drew.
    asked = (drawing.width, drawing.height)
    size = "" if asked == SIZE else f"--width {asked[0]} --height {asked[1]} "
    next_steps = (
        f"""  {bake} local up                        # the local cloud, to try the image by hand
  {bake} local boot {image}
  {bake} local draw "a cat" {size}--out cat.png
  {bake} local down"""
        if rehearsal
        else f"  launch {image} with user data that writes {INSTANCE_ENV} (docs/aws.md)"
    )
    return f"""
{times}
  {"in all":<15} {total:7.1f} s

AMI            {image}  {release.image.name}
Checks         {release.checks} passed
First image    {drawing.file} ({drawing.width} x {drawing.height}), \
worker ready {drawing.ready_seconds:.0f} s after boot
Cost           {cost}
Run directory  {release.directory}

Try next:
{next_steps}
"""


def _program() -> str:
    """How the user called `bake`, so that suggested commands can be pasted."""
    called = Path(sys.argv[0])
    name = str(called) if called.name == "bake" else "bake"
    return f"sudo {name}" if os.environ.get("SUDO_USER") else name
