"""The options that say what to draw, the same for `draw` and `send`; their limits are those of a job."""

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
        "--seed", type=int, help="The same seed starts from the same noise; a second image uses seed + 1."
    ),
    click.option("--images", type=int, help="1 to 4.  [default: 1]"),
    click.option("--format", help="png, jpg or webp.  [default: what --out ends in, else png]"),
    click.option("--quality", type=int, help="1 to 100, for jpg and webp.  [default: 90]"),
    click.option("--max-sequence-length", type=int, help="Tokens, 1 to 512.  [default: 512]"),
]


OUT = (
    "A .png, .jpg or .webp file, replaced where it is there; of a link, the file that it names. "
    "- is standard output; a pipe or a device is written to as it is."
)


def job_options(command: _Command) -> _Command:
    """Every field of a job that makes the picture, as an option; what is not given comes as None."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def job(parameters: dict[str, Any], *, out: Path | None = None) -> Job:
    """The job of these parameters (None: its default); `out` chooses the format. Raises click.UsageError."""
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
        raise click.BadParameter(f"{out} is no name for a {made.format}", param_hint="--out")
    return made


def reject_shared_stdout(out: Path, as_json: bool) -> None:
    """Raise click.UsageError where an image and its facts would both go to standard output."""
    if as_json and output.is_stdout(out):
        raise click.UsageError("--json and --out - both want standard output: choose one")


def _format(out: Path) -> str | None:
    """The format that a name stands for; None for standard output, and pipes of other names."""
    if output.takes_one(out):
        return FORMATS.get(out.suffix.lower())
    if out.suffix.lower() not in FORMATS:
        raise click.BadParameter(f"{out} must end in {', '.join(FORMATS)}", param_hint="--out")
    if not out.parent.is_dir():
        raise click.BadParameter(f"{out} must lie in a folder that exists", param_hint="--out")
    return FORMATS[out.suffix.lower()]


def files(out: Path, count: int) -> list[Path]:
    """Where `count` images go: `cat.png`, or `cat-1.png`, `cat-2.png` … where there are several."""
    if count == 1:
        return [out]
    if output.takes_one(out):
        raise click.UsageError(
            f"--images {count}: {output.shown(out)} takes one image, --out must name a file"
        )
    return [out.with_stem(f"{out.stem}-{number}") for number in range(1, count + 1)]


def max_image_bytes(job: Job) -> int:
    """Bytes that an image of this job takes on a disk at most, with its text chunks."""
    return job.width * job.height * 3 * 101 // 100 + 1024**2


def model_settings() -> ModelSettings:
    """The settings of the model alone, from the environment. Raises ConfigurationError."""
    from ..settings import ModelSettings

    return ModelSettings.from_environment(os.environ)


def log_errors_only() -> None:
    """The libraries' warnings are of no use to somebody who draws by hand."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.ERROR)
    logging.basicConfig(handlers=[handler])


@contextmanager
def bar(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, told what is done in all; draws nothing where there is no terminal."""
    shown: Any = click.progressbar(length=length, label=label, file=sys.stderr)
    with shown:
        yield lambda done: shown.update(done - shown.pos)
