"""The command `draw`: generate images into files, without a queue."""

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
    from ..inference.images import GeneratedImages
    from ..jobspec.job import Job
    from ..settings import ModelSettings
    from .output import Output


@click.command()
@click.option("--prompt", required=True, help="The prompt.")
@options.job_options
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help=options.OUT,
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: files, job, model and seconds.")
def draw(prompt: str, out: Path, as_json: bool, **fields: Any) -> None:
    """Generate images into files, without a queue.

    With FLUX_COMPILE=regional it also compiles for this image size and stores the result in
    FLUX_COMPILE_CACHE, where `serve` finds it.

    \b
    Example:
      flux-worker draw --prompt "a cat on a roof" --seed 7 --out cat.png
      flux-worker draw --prompt "a cat on a roof" --out cat.png --json | jq .seconds
      flux-worker draw --prompt "a cat on a roof" --format jpg --out - | ssh desk 'cat > cat.jpg'
    """
    job = options.job(fields | {"id": "draw", "prompt": prompt}, out=out)
    options.reject_shared_stdout(out, as_json)
    with output.opened(options.files(out, job.images), options.max_image_bytes(job)) as outputs:
        settings = options.model_settings()
        options.log_errors_only()
        generated = _generate(job, settings)
        files, problems = _write(generated, outputs)
    text = json.dumps(_facts(generated, files)) if as_json else "\n".join(_lines(generated, files))
    click.echo(text, err=output.is_stdout(out))
    if problems:
        raise click.ClickException("\n".join(problems))


def _write(generated: GeneratedImages, outputs: list[Output]) -> tuple[list[str], list[str]]:
    """The images' file names, empty for a lost one, and what went wrong."""
    from ..encode import encode

    files, problems = [], []
    for output_, encoded in zip(outputs, encode(generated), strict=True):
        try:
            output_.write(encoded.data)
            files.append(output_.name)
        except OSError as error:
            kept = output_.save_elsewhere(encoded.data, f".{generated.job.format}")
            where = f"the image is saved as {kept}" if kept else "and there is no space for it elsewhere"
            problems.append(f"cannot write {output_.name}: {error.strerror}; {where}")
            files.append(str(kept or ""))
    return files, problems


def _lines(generated: GeneratedImages, files: list[str]) -> Iterator[str]:
    job = generated.job
    assert job.seed is not None
    for number, file in enumerate(files):
        if file:
            yield f"Wrote {file} ({job.width}x{job.height}, {job.steps} steps, seed {job.seed + number})"
    yield f"{generated.seconds:.1f} s, {generated.step_seconds:.2f} s per step"


def _facts(generated: GeneratedImages, files: list[str]) -> dict[str, Any]:
    """The result as JSON."""
    return {
        "files": [file for file in files if file],
        "job": generated.job.parameters(),
        "model": asdict(generated.origin),
        "seconds": {"draw": round(generated.seconds, 3), "step": round(generated.step_seconds, 4)},
    }


def _generate(job: Job, settings: ModelSettings) -> GeneratedImages:
    from ..errors import BadImage, InvalidJob
    from ..inference.image_checks import REMEDY
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
            return model.generate(job, show)
        except BadImage as error:
            raise BadImage(f"{error}. {REMEDY}") from error
