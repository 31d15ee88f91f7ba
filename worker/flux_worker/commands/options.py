"""Options for a job's fields, shared by `draw` and `send`, and other helpers of commands."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import output

if TYPE_CHECKING:
    from ..jobspec.job import Job
    from ..settings import ModelSettings

_Command = TypeVar("_Command", bound=Callable[..., Any])

FORMATS = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}

_OPTIONS = [
    click.option("--width", type=int, help="Pixels: 256 to 1440, a multiple of 16.  [default: 1024]"),
    click.option("--height", type=int, help="Pixels: 256 to 1440, a multiple of 16.  [default: 1024]"),
    click.option("--steps", type=int, help="1 to 50.  [default: 28]"),
    click.option("--guidance", type=float, help="0 to 10.  [default: 3.5]"),
    click.option(
        "--seed", type=int, help="The same seed gives the same noise; a second image uses seed + 1."
    ),
    click.option("--images", type=int, help="1 to 4.  [default: 1]"),
    click.option("--format", help="png, jpg or webp.  [default: what --out ends in, else png]"),
    click.option("--quality", type=int, help="1 to 100, for jpg and webp.  [default: 90]"),
    click.option("--max-sequence-length", type=int, help="Tokens, 1 to 512.  [default: 512]"),
]


OUT = (
    "A .png, .jpg or .webp file, replaced if it exists; for a link, its target. "
    "- is standard output; pipes and devices are written to."
)


def job_options(command: _Command) -> _Command:
    """Add an option for each field that determines the image; None if it is not given."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def job(parameters: dict[str, Any], *, out: Path | None = None) -> Job:
    """The job with these fields (None: default); `out` sets the format. Raises click.UsageError."""
    from pydantic import ValidationError

    from ..jobspec.job import Job, problems

    given = {name: value for name, value in parameters.items() if value is not None}
    named = out and _format(out)
    if named:
        given.setdefault("format", named)
    try:
        made = Job(**given)
    except ValidationError as error:
        raise click.UsageError(problems(error)) from None
    if named and named != made.format:
        raise click.BadParameter(f"{out} does not fit --format {made.format}", param_hint="--out")
    return made


def reject_shared_stdout(out: Path, as_json: bool) -> None:
    """Raise click.UsageError if both the image and JSON would go to standard output."""
    if as_json and output.is_stdout(out):
        raise click.UsageError("--json and --out - both write to standard output: choose one")


def _format(out: Path) -> str | None:
    """The format of a file name; None for standard output, and pipes without an extension."""
    if output.takes_one(out):
        return FORMATS.get(out.suffix.lower())
    if out.suffix.lower() not in FORMATS:
        raise click.BadParameter(f"{out} must end in {', '.join(FORMATS)}", param_hint="--out")
    if not out.parent.is_dir():
        raise click.BadParameter(f"{out} must be in an existing folder", param_hint="--out")
    return FORMATS[out.suffix.lower()]


def files(out: Path, count: int) -> list[Path]:
    """The file of each image: `cat.png`, or `cat-1.png`, `cat-2.png` … for several images."""
    if count == 1:
        return [out]
    if output.takes_one(out):
        raise click.UsageError(
            f"--images {count}: {output.shown(out)} can hold one image, --out must name a file"
        )
    return [out.with_stem(f"{out.stem}-{number}") for number in range(1, count + 1)]


def max_image_bytes(job: Job) -> int:
    """The largest possible size of an image file of this job, with its text chunks."""
    return job.width * job.height * 3 * 101 // 100 + 1024**2


def model_settings() -> ModelSettings:
    """The model's settings from the environment. Raises ConfigurationError."""
    from ..settings import ModelSettings

    return ModelSettings.from_environment(os.environ)


def log_errors_only() -> None:
    """Hide the libraries' warnings from interactive users, not the worker's own."""

    def shown(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or record.name.startswith("flux_worker.")

    handler = logging.StreamHandler()
    handler.addFilter(shown)
    logging.basicConfig(handlers=[handler])


@contextmanager
def bar(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, called with the total done; invisible without a terminal."""
    shown: Any = click.progressbar(length=length, label=label, file=sys.stderr)
    with shown:
        yield lambda done: shown.update(done - shown.pos)
