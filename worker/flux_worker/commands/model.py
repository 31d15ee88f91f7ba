"""The commands `compile` and `quantize`, which convert the model's files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigurationError
from . import options

_PERMILLE = 1000


@click.command("compile")
@click.option("--width", type=int, help="Pixels: 256 to 1440, a multiple of 16.  [default: 1024]")
@click.option("--height", type=int, help="Pixels: 256 to 1440, a multiple of 16.  [default: 1024]")
@click.option("--max-sequence-length", type=int, help="Tokens, 1 to 512.  [default: 512]")
def compile_model(**fields: Any) -> None:
    """Compile the model for Neuron and one image size. Experimental: not run on hardware yet.

    It writes to FLUX_NEURON_DIR, where `serve` and `draw` with FLUX_BACKEND=neuron find it; they support
    only the sizes compiled there. It takes an hour or more and much memory, but no Neuron device.

    \b
    Example:
      FLUX_NEURON_DIR=/opt/flux-worker/neuron flux-worker compile --width 1024 --height 1024
    """
    job = options.job(fields | {"id": "compile", "prompt": "nothing is drawn"})
    settings = options.model_settings()
    if settings.neuron_dir is None:
        raise ConfigurationError("FLUX_NEURON_DIR is not set: the folder for the compiled model")
    if settings.model_dir:
        raise ConfigurationError("int8 checkpoints are for CUDA and the CPU: unset FLUX_MODEL_DIR")
    options.log_errors_only()
    from ..inference.checkpoint import find
    from ..inference.compilation import Shape
    from ..inference.neuron_artifacts import make

    started = time.monotonic()
    made = make(find(settings), settings.neuron_dir, Shape.of(job))
    click.echo(f"Compiled {Shape.of(job)} into {made} in {time.monotonic() - started:.0f} s")


@click.command()
@click.argument("folders", metavar="[SRC] DST", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--json", "as_json", is_flag=True, help="Print the content of quantization.json as one JSON object."
)
def quantize(folders: tuple[Path, ...], as_json: bool) -> None:
    """Make an int8 checkpoint of the model in the folder DST.

    SRC is a snapshot in a Hub cache, by default the one that FLUX_MODEL_REVISION and HF_HUB_CACHE name. It
    needs no GPU, little memory, and about half of the model's size on disk. Set FLUX_MODEL_DIR=DST to use
    it.

    \b
    Example:
      flux-worker quantize /var/lib/flux/int8
      flux-worker quantize "$HF_HUB_CACHE"/models--black-forest-labs--FLUX.1-dev/snapshots/3de6* int8
    """
    if len(folders) > 2:
        raise click.UsageError(f"takes SRC and DST, not {len(folders)} folders")
    target = folders[-1]
    source = folders[0] if len(folders) == 2 else _snapshot()
    options.log_errors_only()
    from ..inference.quantize import quantize as make

    started = time.monotonic()
    with options.bar("Quantizing", _PERMILLE) as show:
        provenance = make(source, target, lambda done, all_bytes: show(_PERMILLE * done // all_bytes))
    if as_json:
        click.echo(provenance.model_dump_json())
        return
    size = sum(file.bytes for file in provenance.outputs.values()) / 1e9
    click.echo(
        f"Wrote {target} ({size:.2f} GB, commit {provenance.revision}) in {time.monotonic() - started:.0f} s"
    )


def _snapshot() -> Path:
    from ..inference.checkpoint import snapshot

    settings = options.model_settings()
    if settings.model_dir:
        raise ConfigurationError(
            f"FLUX_MODEL_DIR={settings.model_dir} is already an int8 checkpoint: unset it"
        )
    return snapshot(settings)
