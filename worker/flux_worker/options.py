"""The options that say what to draw, the same for `draw` and `send`; their limits are those of a job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from .jobs.job import Job

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


def job_options(command: _Command) -> _Command:
    """Every field of a job that makes the picture, as an option; what is not given comes as None."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def job(parameters: dict[str, Any], *, out: Path | None = None) -> Job:
    """The job of these parameters (None: its default); `out` chooses the format. Raises click.UsageError."""
    from pydantic import ValidationError

    from .jobs.job import Job, problems

    given = {name: value for name, value in parameters.items() if value is not None}
    if out is not None:
        given.setdefault("format", _format(out))
    try:
        made = Job(**given)
    except ValidationError as error:
        raise click.UsageError(problems(error)) from None
    if out is not None and _format(out) != made.format:
        raise click.BadParameter(f"{out} is no name for a {made.format}", param_hint="--out")
    return made


def _format(out: Path) -> str:
    if out.suffix.lower() not in FORMATS:
        raise click.BadParameter(f"{out} must end in {', '.join(FORMATS)}", param_hint="--out")
    if not out.parent.is_dir():
        raise click.BadParameter(f"{out} must lie in a folder that exists", param_hint="--out")
    return FORMATS[out.suffix.lower()]


def files(out: Path, count: int) -> list[Path]:
    """Where `count` images go: `cat.png`, or `cat-1.png`, `cat-2.png` … where there are several."""
    if count == 1:
        return [out]
    return [out.with_stem(f"{out.stem}-{number}") for number in range(1, count + 1)]


def write(file: Path, content: bytes) -> None:
    """Write the whole file or nothing of it. Raises click.ClickException."""
    partial = file.with_name(f"{file.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise click.ClickException(f"cannot write {file}: {error.strerror}") from error
