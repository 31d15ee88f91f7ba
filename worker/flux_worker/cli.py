"""The command `flux-worker`. What is heavy is imported where it is needed: `--help` is quick."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .errors import WorkerError

if TYPE_CHECKING:
    from .job import Job


class _Group(click.Group):
    """Shows a WorkerError as a message and ends with its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except WorkerError as error:
            click.echo(f"flux-worker: {error}", err=True)
            ctx.exit(error.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="flux-worker")
def main() -> None:
    """Draws images with FLUX.1-dev: from a queue (serve) or by hand (draw).

    Settings come from the environment; worker/README.md lists them.
    """


@main.command()
def serve() -> None:
    """Serve the queue until SIGTERM.

    \b
    Example:
      AWS_REGION=eu-west-1 FLUX_BUCKET=pictures FLUX_EVENT_BUS=flux \\
      FLUX_QUEUE_URL=https://sqs.eu-west-1.amazonaws.com/123456789012/jobs \\
      FLUX_MODEL_REVISION=3de623fc3c33e44ffbe2bad470d0f45bccf2eb21 flux-worker serve
    """
    from .settings import ServeSettings

    settings = ServeSettings.from_environment(os.environ)
    from . import logs
    from .serve import serve as serve_queue

    logs.to_stderr()
    serve_queue(settings)


@main.command()
@click.option("--prompt", required=True, help="What to draw.")
@click.option(
    "--width", type=int, default=1024, show_default=True, help="Pixels: 256 to 1440, a multiple of 16."
)
@click.option(
    "--height", type=int, default=1024, show_default=True, help="Pixels: 256 to 1440, a multiple of 16."
)
@click.option("--steps", type=int, default=28, show_default=True, help="1 to 50.")
@click.option("--guidance", type=float, default=3.5, show_default=True, help="0 to 10.")
@click.option(
    "--seed", type=int, help="The same seed starts from the same noise. Default: chosen and printed."
)
@click.option(
    "--out", type=click.Path(dir_okay=False, writable=True, path_type=Path), required=True, help="A PNG file."
)
def draw(out: Path, **parameters: Any) -> None:
    """Draw one image into a file.

    \b
    Example:
      flux-worker draw --prompt "a cat on a roof" --seed 7 --out cat.png
    """
    job = _job(parameters)
    if out.suffix.lower() != ".png" or not out.parent.is_dir():
        raise click.BadParameter(f"{out} must end in .png, in a folder that exists", param_hint="--out")
    from .settings import ModelSettings

    settings = ModelSettings.from_environment(os.environ)
    _draw(job, out, settings)


def _job(parameters: dict[str, Any]) -> Job:
    from pydantic import ValidationError

    from .job import Job, problems

    try:
        return Job(id="draw", **parameters)
    except ValidationError as error:
        raise click.UsageError(problems(error)) from error


def _only_errors() -> None:
    """The libraries' warnings are of no use to somebody who draws by hand."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.ERROR)
    logging.basicConfig(handlers=[handler])


def _draw(job: Job, out: Path, settings: Any) -> None:
    from .errors import InvalidJob
    from .model import load

    _only_errors()
    started = time.monotonic()
    model = load(settings)
    click.echo(f"Loaded FLUX.1-dev on {model.device} in {time.monotonic() - started:.1f} s")
    try:
        model.check(job)
    except InvalidJob as error:
        raise click.UsageError(str(error)) from error
    bar: Any = click.progressbar(
        length=job.steps, label="Drawing"
    )  # draws nothing where there is no terminal
    with bar:
        drawing = model.draw(job, lambda _: bar.update(1))
    try:
        out.write_bytes(drawing.png())
    except OSError as error:
        raise WorkerError(f"cannot write {out}: {error.strerror}") from error
    size = f"{job.width}x{job.height}, {job.steps} steps, seed {drawing.job.seed}"
    click.echo(f"Wrote {out} ({size}) in {drawing.seconds:.1f} s")


if __name__ == "__main__":
    main()
