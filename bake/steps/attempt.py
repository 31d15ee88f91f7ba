"""What no finished image is thrown away for: where it fails, a note says how to do it by hand."""

from __future__ import annotations

from collections.abc import Callable

from bake.aws import Aws, call_errors, unanswered
from bake.errors import BakeError
from bake.image import Image, require_imdsv2, require_imdsv2_by_hand
from bake.run import Run


def attempt(run: Run, failed: str, act: Callable[[], None], *by_hand: str) -> None:
    """Do it; where AWS refuses or does not answer, note what `failed`, why, and the lines that do it."""
    try:
        act()
        return
    except BakeError as error:
        why: str | None = error.message
    except call_errors() as error:
        why = unanswered(error)
    run.progress.note("\n".join([f"{failed} ({why})", *(f"  do it with: {line}" for line in by_hand)]))


def ensure_imdsv2(aws: Aws, run: Run, image: Image) -> Image:
    """Have every instance of an available AMI need IMDSv2, unless its own launch says otherwise.

    Returns the image as AWS shows it then: unchanged where that failed, and the note has the command.
    """
    seen = image

    def act() -> None:
        nonlocal seen
        seen = require_imdsv2(aws, image)

    failed = f"instances of {image.id} do not need IMDSv2"
    attempt(run, failed, act, require_imdsv2_by_hand(aws, image))
    return seen
