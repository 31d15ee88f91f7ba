"""The result of a bake: the AMI, and what was built for it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from bake.aws import Aws
from bake.checks import Report
from bake.image import Image
from bake.layout import INSTANCE_ENV
from bake.progress import StepTime
from bake.run import Run
from bake.steps.boot_check import SIZE, Drawing
from bake.steps.prefetch import Weights
from bake.steps.quantize import Checkpoint
from bake.steps.record_image import record_image
from bake.steps.survey import Survey


@dataclass(frozen=True)
class Built:
    """What the sealed builder holds: the results of the steps that made it."""

    base: Survey
    weights: Weights
    checkpoint: Checkpoint | None
    report: Report


@dataclass(frozen=True)
class Release:
    """A verified AMI. `directory` holds its report, and all that that is made of."""

    image: Image
    directory: Path
    drawing: Drawing
    steps: tuple[StepTime, ...]


def release(aws: Aws, run: Run, published: Image, drawing: Drawing) -> Release:
    """Record an image that passed its boot check and is published; return the release."""
    record_image(aws, run, published, "good", published=True)
    return Release(published, run.directory, drawing, tuple(run.progress.steps))


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
