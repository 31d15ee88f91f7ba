"""Failures of a download: transient, of one source, or final."""

from __future__ import annotations

import errno
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT}


class Refused(Exception):
    """The download is impossible. `kind` is for programs; `reason` and `hint` are for people."""

    def __init__(self, kind: str, reason: str, hint: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.hint = hint
        self.status = status


class Transient(Exception):
    """A retry may help, after `wait` seconds if the server named a time."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class Wrong(Exception):
    """The source has different content; asking it again does not help."""


class Unsendable(Exception):
    """The input makes no valid request: nothing was sent, and a retry does not help.

    Only the kind of error is kept: its text may hold the header or the address, and both are secret.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(f"no request can be made ({type(error).__name__})")


def of_the_disk(error: OSError, place: Path, more: str = "") -> Refused:
    """Explain an error of the disk below `place`, with a hint."""
    if error.errno in _FULL:
        return Refused(
            "space",
            f"the disk of {place} is full: {more or error}",
            "something beside the weights has filled it: look with `df`, `df -i` and `du` on the builder, or "
            "agree to a larger disk; what is there is kept",
        )
    return Refused(
        "disk",
        f"{place} can't be used: {error}",
        "see `dmesg` on the builder and the state of its volume in EC2, then bake again",
    )
