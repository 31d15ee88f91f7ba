"""The commands that need the model alone: `draw`, `check`, `compile` and `quantize`."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .errors import EXIT_CONFIG, ConfigurationError

if TYPE_CHECKING:
    from .inference.drawing import Drawing
    from .jobs.job import Job
    from .settings import ModelSettings

_PERMILLE = 1000


@click.command()
@click.option("--prompt", required=True, help="What to draw.")
@options.job_options
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="A .png, .jpg or .webp file.",
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
    """
    job = options.job(fields | {"id": "draw", "prompt": prompt}, out=out)
    settings = _settings()
    _only_errors()
    drawing = _draw(job, settings)
    from .encode import encode

    files = options.files(out, job.images)
    for file, encoded in zip(files, encode(drawing), strict=True):
        options.write(file, encoded.data)
    click.echo(json.dumps(_facts(drawing, files)) if as_json else "\n".join(_lines(drawing, files)))


def _lines(drawing: Drawing, files: list[Path]) -> Iterator[str]:
    job = drawing.job
    assert job.seed is not None
    for number, file in enumerate(files):
        yield f"Wrote {file} ({job.width}x{job.height}, {job.steps} steps, seed {job.seed + number})"
    yield f"{drawing.seconds:.1f} s, {drawing.step_seconds:.2f} s a step"


def _facts(drawing: Drawing, files: list[Path]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "files": [str(file) for file in files],
        "job": drawing.job.parameters(),
        "model": asdict(drawing.origin),
        "seconds": {"draw": round(drawing.seconds, 3), "step": round(drawing.step_seconds, 4)},
    }


def _settings() -> ModelSettings:
    from .settings import ModelSettings

    return ModelSettings.from_environment(os.environ)


def _only_errors() -> None:
    """The libraries' warnings are of no use to somebody who draws by hand."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.ERROR)
    logging.basicConfig(handlers=[handler])


def _draw(job: Job, settings: ModelSettings) -> Drawing:
    from .errors import InvalidJob
    from .inference.model import load

    started = time.monotonic()
    model = load(settings, compile_missing=True)
    origin = f"FLUX.1-dev in {model.origin.precision} on {model.device}"
    click.echo(f"Loaded {origin} in {time.monotonic() - started:.1f} s", err=True)
    try:
        model.check(job)
    except InvalidJob as error:
        raise click.UsageError(str(error)) from error
    with _bar("Drawing", job.steps * job.images) as show:
        return model.draw(job, show)


@contextmanager
def _bar(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, told what is done in all; draws nothing where there is no terminal."""
    bar: Any = click.progressbar(length=length, label=label, file=sys.stderr)
    with bar:
        yield lambda done: bar.update(done - bar.pos)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(as_json: bool) -> None:
    """Show what this machine has, which precision of the model fits, and why.

    On Neuron: what is compiled, and whether it fits.

    Nothing is loaded. Exit code 78 where the configured precision does not fit.

    \b
    Example:
      FLUX_MODEL_REVISION=3de623fc3c33e44ffbe2bad470d0f45bccf2eb21 flux-worker check
      flux-worker check --json | jq .int8.fits
    """
    settings = _settings()
    _only_errors()
    from .inference.checkpoint import find
    from .inference.choice import choose

    report = choose(settings).report(find(settings))
    click.echo(json.dumps(report.facts) if as_json else "\n".join(report.lines))
    if not report.fits:
        click.get_current_context().exit(EXIT_CONFIG)


@click.command("compile")
@click.option("--width", type=int, help="Pixels: 256 to 1440, a multiple of 16.  [default: 1024]")
@click.option("--height", type=int, help="Pixels: 256 to 1440, a multiple of 16.  [default: 1024]")
@click.option("--max-sequence-length", type=int, help="Tokens, 1 to 512.  [default: 512]")
def compile_model(**fields: Any) -> None:
    """Compile the model for Neuron and one size of image. Experimental: not run on hardware yet.

    It goes into FLUX_NEURON_DIR, where `serve` and `draw` with FLUX_BACKEND=neuron find it; they draw the
    sizes that lie there and no others. It takes an hour or more, much memory and no Neuron device.

    \b
    Example:
      FLUX_NEURON_DIR=/opt/flux-worker/neuron flux-worker compile --width 1024 --height 1024
    """
    job = options.job(fields | {"id": "compile", "prompt": "nothing is drawn"})
    settings = _settings()
    if settings.neuron_dir is None:
        raise ConfigurationError("FLUX_NEURON_DIR is not set: where what is compiled shall go")
    if settings.model_dir:
        raise ConfigurationError("int8 checkpoints are for CUDA and the CPU: unset FLUX_MODEL_DIR")
    _only_errors()
    from .inference.checkpoint import find
    from .inference.compilation import Shape
    from .inference.neuron_artefacts import make

    started = time.monotonic()
    made = make(find(settings), settings.neuron_dir, Shape.of(job))
    click.echo(f"Compiled {Shape.of(job)} into {made} in {time.monotonic() - started:.0f} s")


@click.command()
@click.argument("folders", metavar="[SRC] DST", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="What quantization.json holds, as one JSON object.")
def quantize(folders: tuple[Path, ...], as_json: bool) -> None:
    """Make an int8 checkpoint of the model in the folder DST.

    SRC is a snapshot in a Hub cache; without it, the one that FLUX_MODEL_REVISION and HF_HUB_CACHE name. It
    needs no GPU, little memory, and about half of the model's size on the disk. FLUX_MODEL_DIR=DST makes the
    worker read it.

    \b
    Example:
      flux-worker quantize /var/lib/flux/int8
      flux-worker quantize "$HF_HUB_CACHE"/models--black-forest-labs--FLUX.1-dev/snapshots/3de6* int8
    """
    if len(folders) > 2:
        raise click.UsageError(f"takes SRC and DST, and not {len(folders)} folders")
    target = folders[-1]
    source = folders[0] if len(folders) == 2 else _snapshot()
    _only_errors()
    from .inference.quantize import quantize as make

    started = time.monotonic()
    with _bar("Quantising", _PERMILLE) as show:
        provenance = make(source, target, lambda done, all_bytes: show(_PERMILLE * done // all_bytes))
    if as_json:
        click.echo(provenance.model_dump_json())
        return
    size = sum(file.bytes for file in provenance.outputs.values()) / 1e9
    click.echo(
        f"Wrote {target} ({size:.2f} GB, commit {provenance.revision}) in {time.monotonic() - started:.0f} s"
    )


def _snapshot() -> Path:
    from .inference.checkpoint import snapshot

    settings = _settings()
    if settings.model_dir:
        raise ConfigurationError(f"FLUX_MODEL_DIR={settings.model_dir} is what would be made: unset it")
    return snapshot(settings)
