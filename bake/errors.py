"""Errors for people: what happened, where, and what to do next."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Mapping, Sequence

EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_NOT_AGREED = 3
EXIT_NOT_VERIFIED = 4
EXIT_FAILED = 5
EXIT_LEFT_BEHIND = 6
EXIT_INTERRUPTED = 130


class BakeError(Exception):
    """An error that the user can understand and act on.

    `hint` says what to do next; `exit_code` is the command's.
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(BakeError):
    """The input is wrong; nothing was started."""

    exit_code = EXIT_USAGE


class DoesNotFit(UsageError):
    """The bake does not fit the root volume; nothing was downloaded or resized (R-DISK)."""


class NotAgreed(BakeError):
    """Something differs from the agreement (R-AGREE) or the lock; shows how, and how to agree to it.

    `proposal` names the files that propose what would be agreed to, for machines; None if there are none.
    """

    exit_code = EXIT_NOT_AGREED

    def __init__(
        self, message: str, *, hint: str | None = None, proposal: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.proposal = proposal


class NotVerified(BakeError):
    """The builder or the image is not what the plan says."""

    exit_code = EXIT_NOT_VERIFIED


class Resumable(BakeError):
    """The bake can't go on now, and its run has not ended: `bake resume` goes on with what it holds."""


class TimedOut(BakeError):
    """A wait reached its time limit."""


class DiskFull(BakeError):
    """This machine, which runs `bake`, has no room left for a file."""


def disk_full(error: BaseException) -> DiskFull | None:
    """Explain an error that means a full disk or quota of this machine; None for any other."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    where = error.filename or f"the file system of {tempfile.gettempdir()} or of the run directory"
    full = DiskFull(
        f"no space left on the disk of this machine, which runs bake: {where}",
        hint="free some space, or name another place: TMPDIR for temporary files, --runs for run directories",
    )
    for note in getattr(error, "__notes__", []):
        full.add_note(note)
    return full


class Interrupted(KeyboardInterrupt):
    """A signal arrived; no `except Exception` swallows it, and pytest stops at it."""


class ConnectionLost(BakeError):
    """The SSH connection broke; units on the machine keep running."""


class RemoteCommandError(BakeError):
    """A command on the builder failed; the message has the command and the end of both streams."""


class LeftBehind(BakeError):
    """Something that was created could not be removed.

    Its message names each thing with the command that removes it. `__cause__` is the error that ended the
    bake, if any.
    """

    exit_code = EXIT_LEFT_BEHIND

    def __init__(self, leaks: Sequence[str]) -> None:
        super().__init__("\n".join(leaks))
        self.leaks = tuple(leaks)
