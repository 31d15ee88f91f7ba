"""The command `draw`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options, output

if TYPE_CHECKING:
    from ..inference.images import Drawing
    from ..jobspec.job import Job
    from ..settings import ModelSettings
    from .output import Output


@click.command()
@click.option("--prompt", required=True, help="What to draw.")
@options.job_options
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help=options.OUT,
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object: files, job, model and seconds.")
def draw(prompt: str, out: Path, as_json: bool, **fields: Any) -> None:
    """Draw images into files, without a queue.

    With FLUX_COMPILE=regional it also compiles for this size of image and keeps what came of it in
    FLUX_COMPILE_CACHE, where `serve` finds it.

    \b
    Example:
      flux-worker draw --prompt "a cat on a roof" --seed 7 --out cat.png
      flux-worker draw --prompt "a cat on a roof" --out cat.png --json | jq .seconds
      flux-worker draw --prompt "a cat on a roof" --format jpg --out - | ssh desk 'cat > cat.jpg'
    """
    job = options.job(fields | {"id": "draw", "prompt": prompt}, out=out)
    options.one_on_stdout(out, as_json)
    with output.opened(options.files(out, job.images), options.room(job)) as outputs:
        settings = options.model_settings()
        options.only_errors()
        drawing = _draw(job, settings)
        files, problems = _write(drawing, outputs)
    text = json.dumps(_facts(drawing, files)) if as_json else "\n".join(_lines(drawing, files))
    click.echo(text, err=output.is_stdout(out))
    if problems:
        raise click.ClickException("\n".join(problems))


def _write(drawing: Drawing, outputs: list[Output]) -> tuple[list[str], list[str]]:
    """Where the images are now, and what went wrong; an empty name stands for one that is lost."""
    from ..encode import encode

    files, problems = [], []
    for place, encoded in zip(outputs, encode(drawing), strict=True):
        try:
            place.write(encoded.data)
            files.append(place.name)
        except OSError as error:
            kept = place.rescue(encoded.data, f".{drawing.job.format}")
            where = f"the image is kept as {kept}" if kept else "and there is no room for it elsewhere"
            problems.append(f"cannot write {place.name}: {error.strerror}; {where}")
            files.append(str(kept or ""))
    return files, problems


def _lines(drawing: Drawing, files: list[str]) -> Iterator[str]:
    job = drawing.job
    assert job.seed is not None
    for number, file in enumerate(files):
        if file:
            yield f"Wrote {file} ({job.width}x{job.height}, {job.steps} steps, seed {job.seed + number})"
    yield f"{drawing.seconds:.1f} s, {drawing.step_seconds:.2f} s a step"


def _facts(drawing: Drawing, files: list[str]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "files": [file for file in files if file],
        "job": drawing.job.parameters(),
        "model": asdict(drawing.origin),
        "seconds": {"draw": round(drawing.seconds, 3), "step": round(drawing.step_seconds, 4)},
    }


def _draw(job: Job, settings: ModelSettings) -> Drawing:
    from ..errors import BadPicture, InvalidJob
    from ..inference.image_checks import CURE
    from ..inference.model import load

    started = time.monotonic()
    model = load(settings, compile_missing=True)
    origin = f"FLUX.1-dev in {model.origin.precision} on {model.device}"
    click.echo(f"Loaded {origin} in {time.monotonic() - started:.1f} s", err=True)
    try:
        model.check(job)
    except InvalidJob as error:
        raise click.UsageError(str(error)) from error
    with options.bar("Drawing", job.steps * job.images) as show:
        try:
            return model.draw(job, show)
        except BadPicture as error:
            raise BadPicture(f"{error}. {CURE}") from error
