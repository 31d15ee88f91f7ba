"""Do what must not cost a finished image: if it fails, a note gives the command to run by hand."""

from __future__ import annotations

from collections.abc import Callable

from bake.aws import Aws, call_errors, unanswered
from bake.errors import BakeError
from bake.image import Image, require_imdsv2, require_imdsv2_by_hand
from bake.run import Run


def attempt(run: Run, failed: str, act: Callable[[], None], *by_hand: str) -> None:
    """Call `act`; if AWS refuses or does not answer, note what `failed`, why, and the commands instead."""
    try:
        act()
        return
    except BakeError as error:
        why: str | None = error.message
    except call_errors() as error:
        why = unanswered(error)
    run.progress.note("\n".join([f"{failed} ({why})", *(f"  do it with: {line}" for line in by_hand)]))


def ensure_imdsv2(aws: Aws, run: Run, image: Image) -> Image:
    """Make instances of an available AMI require IMDSv2, unless their own launch says otherwise.

    Returns the image as AWS shows it afterwards; unchanged if that failed, and then a note has the command.
    """
    seen = image

    def act() -> None:
        nonlocal seen
        seen = require_imdsv2(aws, image)

    failed = f"instances of {image.id} do not need IMDSv2"
    attempt(run, failed, act, require_imdsv2_by_hand(aws, image))
    return seen
