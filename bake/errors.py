"""The errors a person sees: what happened, where, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_NOT_AGREED = 3
EXIT_NOT_VERIFIED = 4
EXIT_FAILED = 5
EXIT_LEFT_BEHIND = 6
EXIT_INTERRUPTED = 130


class BakeError(Exception):
    """Something went wrong that the user can understand and act on.

    `hint` says what to do next; `exit_code` is what the command ends with.
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(BakeError):
    """The input is wrong: nothing was started."""

    exit_code = EXIT_USAGE


class DoesNotFit(UsageError):
    """The root volume can't take it, as the builder tells; nothing was downloaded or resized (R-DISK)."""


class NotAgreed(BakeError):
    """Something is not what the user agreed to (R-AGREE) or locked; shows the difference and how to agree."""

    exit_code = EXIT_NOT_AGREED


class NotVerified(BakeError):
    """The builder or the image was looked at, and it is not what the plan says."""

    exit_code = EXIT_NOT_VERIFIED


class TimedOut(BakeError):
    """What was waited for did not come in its time."""


class Interrupted(KeyboardInterrupt):
    """A signal arrived; no `except Exception` swallows it, and pytest stops at it."""


class ConnectionLost(BakeError):
    """The SSH connection broke; what runs as a unit on the machine goes on without it."""


class RemoteCommandError(BakeError):
    """A command on the builder failed; the message shows it whole with the end of both streams."""


class LeftBehind(BakeError):
    """Something that was created could not be removed.

    Its message names each thing with the command that removes it. What ended the bake, if anything did, is
    its `__cause__`.
    """

    exit_code = EXIT_LEFT_BEHIND

    def __init__(self, leaks: Sequence[str]) -> None:
        super().__init__("\n".join(leaks))
        self.leaks = tuple(leaks)
