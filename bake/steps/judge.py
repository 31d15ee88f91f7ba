"""Decide what becomes of a finished AMI: good, bad or unproven. docs/operations.md has the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from bake import interrupt, retries
from bake.aws import Aws, call_errors, unanswered
from bake.errors import BakeError, Interrupted
from bake.image import (
    Image,
    State,
    images_of,
    mark,
    mark_by_hand,
    remove,
    remove_by_hand,
    state_of,
)
from bake.planning.plan import Plan
from bake.run import Run
from bake.steps.publish import remove_old
from bake.steps.wait_for_worker import ImageIsBad
from bake.undo import Undo

Outcome = Literal["good", "bad", "unproven"]
# Seconds for what has to be said about an image to AWS when a bake ends early.
BRIEF = 20.0


class Unproven(BakeError):
    """The AMI is there, and nobody knows yet whether it works: it is kept."""


@contextmanager
def judge(
    plan: Plan,
    aws: Aws,
    run: Run,
    image: Image,
    undo: Undo,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> Iterator[None]:
    """Around the check of a finished AMI: how the block ends decides what becomes of it.

    `undo` has what the check made: where it does not end well, that is sent away first. `tell` hears what
    the image is, unless it is good.

    It is good where the block ends well, removed where the image is bad, and kept as unproven where
    anything else ended the check: that says nothing about the image, and hours of work are in it.
    """
    try:
        yield
    except ImageIsBad as error:
        interrupt.ending()
        undo.begin()
        _condemn(aws, run, image)
        tell("bad")
        error.message += f"\n{image.id} is bad and was removed" if not run.leaks else f"\n{image.id} is bad"
        raise
    except BaseException as error:
        interrupt.ending()
        undo.begin()
        kept = _keep(plan, aws, run, image)
        tell("unproven")
        if isinstance(error, (BakeError, Interrupted, *call_errors())):
            raise Unproven(
                f"{image.id} ({image.name}) is there, and unproven: {_why(error)}", hint=kept
            ) from error
        error.add_note(kept)  # a bug of ours
        raise
    run.kept.append(f"{image.id} ({image.name}) is good, and kept")
    with interrupt.deferred():
        _say(aws, run, image, "good")


def _why(error: BaseException) -> str:
    if isinstance(error, Interrupted):
        return f"the check was interrupted ({error})"
    return error.message if isinstance(error, BakeError) else f"AWS: {error}"


def _condemn(aws: Aws, run: Run, image: Image) -> None:
    try:
        run.progress.status(f"removing {image.id}, which is bad")
        remove(aws, image.id)
    except Exception as error:  # whatever it was, the image being bad is the news
        run.leaks.append(
            f"AMI {image.id} is bad and could not be removed ({error}); "
            f"remove it with: {remove_by_hand(aws, image.id)}"
        )


def _keep(plan: Plan, aws: Aws, run: Run, image: Image) -> str:
    """Keep an unproven image, and no more of them than the profile says; what to do about it, in words."""
    with retries.until(time.monotonic() + BRIEF):
        _say(aws, run, image, "unproven")
        with suppress(*call_errors()):
            trim(plan, aws, run, image)
    where = " --rehearse" if aws.endpoint else ""
    return (
        f"it is kept: prove or condemn it with `bake boot-check {image.id}{where}`, "
        f"or remove it with: {remove_by_hand(aws, image.id)}"
    )


def _say(aws: Aws, run: Run, image: Image, state: State) -> None:
    try:
        mark(aws, image, state)
    except call_errors() as error:
        why, command = unanswered(error), mark_by_hand(aws, image, state)
        run.progress.note(f"{image.id} is {state}, and could not be tagged so ({why}); do it with: {command}")


def trim(plan: Plan, aws: Aws, run: Run, image: Image) -> None:
    """Remove the oldest unproven images beyond `image.keep_unproven`, the newest being `image`."""
    keep = plan.profile.image.keep_unproven
    others = [
        facts["ImageId"]
        for facts in images_of(aws, plan.profile.name)
        if state_of(facts) == "unproven" and facts["ImageId"] != image.id
    ]
    for old in others[: max(len(others) - (keep - 1), 0)]:
        remove_old(aws, run, old, f"the profile keeps {keep} unproven ones")
