"""Judge a finished AMI by its boot check: good, bad or unproven. docs/operations.md has the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from bake import interrupt, retries
from bake.aws import Aws, call_errors, error_code, unanswered
from bake.errors import BakeError, Interrupted, NotVerified
from bake.image import (
    Image,
    State,
    describe_image,
    images_of,
    mark,
    mark_by_hand,
    remove,
    remove_by_hand,
    state_of,
)
from bake.planning.parts import ImagePlan
from bake.run import Run
from bake.steps.retire import remove_unproven
from bake.steps.wait_for_worker import ImageIsBad
from bake.undo import Undo

Outcome = Literal["good", "bad", "unproven"]
Tell = Callable[[Aws, Run, Image, Outcome], None]
# Seconds for tagging an image when a bake ends early.
BRIEF = 20.0


class Untagged(BakeError):
    """The AMI is good, and nothing in AWS says so: a sweep would remove it as a draft."""


class Unproven(BakeError):
    """The AMI exists and is kept, but nobody knows yet whether it works."""


@contextmanager
def judge(
    plan: ImagePlan,
    aws: Aws,
    run: Run,
    image: Image,
    undo: Undo,
    tell: Tell = lambda aws, run, image, outcome: None,
) -> Iterator[None]:
    """Run the check of a finished AMI as a block; how the block ends decides the AMI's fate.

    A block that succeeds makes it good. ImageIsBad removes it. Any other error says nothing about the image,
    which took hours, so it is kept as unproven. `undo` holds what the check created: if the check fails, its
    removals start first. `tell` is called with the image and the outcome.
    """
    try:
        yield
    except ImageIsBad as error:
        interrupt.ending()
        undo.begin()
        _condemn(aws, run, image)
        tell(aws, run, image, "bad")
        error.message += f"\n{image.id} is bad and was removed" if not run.leaks else f"\n{image.id} is bad"
        raise
    except BaseException as error:
        interrupt.ending()
        undo.begin()
        if (kept := _keep(plan, aws, run, image)) is None:
            tell(aws, run, image, "bad")
            raise _gone(run, image, f"before it was proved: {_why(error)}") from error
        tell(aws, run, image, "unproven")
        if isinstance(error, (BakeError, Interrupted, *call_errors())):
            told = Unproven(f"{image.id} ({image.name}) is there, and unproven: {_why(error)}", hint=kept)
            if isinstance(error, NotVerified):  # it draws, and is not what it should be
                told.exit_code = error.exit_code
            raise told from error
        error.add_note(kept)  # a bug in bake
        raise
    run.kept.append(f"{image.id} ({image.name}) is good, and kept")
    with interrupt.deferred():
        untagged = _say(aws, run, image, "good")
        if untagged is None:
            raise _gone(run, image, "after it had been proved")
        if untagged and not _is_good(aws, image):
            tell(aws, run, image, "unproven")
            raise Untagged(
                f"{image.id} ({image.name}) is good, and could not be tagged so {untagged}",
                hint="it is kept as a draft, which a `bake sweep` removes once the lease has ended: tag it "
                f"before, or prove it again with `bake boot-check {image.id}{_where(aws)}`",
            )
        tell(aws, run, image, "good")


def _gone(run: Run, image: Image, when: str) -> BakeError:
    run.kept.clear()
    return BakeError(
        f"{image.id} ({image.name}) is gone, {when}",
        hint="somebody removed it, or a sweep did after the lease had ended; bake again",
    )


def _why(error: BaseException) -> str:
    if isinstance(error, Interrupted):
        return f"the check was interrupted ({error})"
    return error.message if isinstance(error, BakeError) else f"AWS: {error}"


def _condemn(aws: Aws, run: Run, image: Image) -> None:
    try:
        run.progress.status(f"removing {image.id}, which is bad")
        remove(aws, image.id)
    except Exception as error:  # whatever it is, it must not hide that the image is bad
        run.leaks.append(
            f"AMI {image.id} is bad and could not be removed ({error}); "
            f"remove it with: {remove_by_hand(aws, image.id)}"
        )


def _keep(plan: ImagePlan, aws: Aws, run: Run, image: Image) -> str | None:
    """Keep an unproven image, within the profile's limit; return a hint on it, or None if it is gone."""
    with retries.until(time.monotonic() + BRIEF):
        untagged = _say(aws, run, image, "unproven")
        if untagged is None:
            return None
        with suppress(*call_errors()):
            trim(plan, aws, run, image)
    where = _where(aws)
    if untagged:
        return (
            "it is kept as a draft, which a `bake sweep` removes once the lease has ended; it could not be "
            f"tagged as unproven {untagged}; prove or condemn it with `bake boot-check {image.id}{where}`"
        )
    return (
        f"it is kept: prove or condemn it with `bake boot-check {image.id}{where}`, "
        f"or remove it with: {remove_by_hand(aws, image.id)}"
    )


def _where(aws: Aws) -> str:
    return " --rehearse" if aws.endpoint else ""


def _is_good(aws: Aws, image: Image) -> bool:
    """Whether AWS says so; its expiry alone may be what could not be removed."""
    with suppress(*call_errors()), retries.until(time.monotonic() + BRIEF):
        facts = describe_image(aws, image.id)
        return facts is not None and state_of(facts) == "good"
    return False


def _say(aws: Aws, run: Run, image: Image, state: State) -> str | None:
    """Tag an image and its snapshots; return why that failed and the command that does it, if it did.

    None if the image is not there any more.
    """
    try:
        mark(aws, image, state)
    except call_errors() as error:
        if error_code(error).startswith("InvalidAMIID"):
            return None
        told = f"({unanswered(error)}); do it with: {mark_by_hand(aws, image, state)}"
        run.progress.note(f"{image.id} is {state}, and could not be tagged so {told}")
        return told
    return ""


def trim(plan: ImagePlan, aws: Aws, run: Run, image: Image) -> None:
    """Remove the oldest unproven images beyond `image.keep_unproven`; `image` is the newest."""
    keep = plan.keep_unproven
    others = [
        facts["ImageId"]
        for facts in images_of(aws, plan.profile)
        if state_of(facts) == "unproven" and facts["ImageId"] != image.id
    ]
    old = others[: max(len(others) - (keep - 1), 0)]
    remove_unproven(plan, aws, run, old, f"the profile keeps {keep} unproven ones")
