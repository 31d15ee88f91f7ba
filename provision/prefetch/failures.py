"""How a download fails: for now, for this source, or for good."""

from __future__ import annotations


class Refused(Exception):
    """The download can't be had. `kind` is for machines; `reason` and `hint` are for people."""

    def __init__(self, kind: str, reason: str, hint: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.hint = hint
        self.status = status


class Transient(Exception):
    """Worth another try, after `wait` seconds where the server named a time."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class Wrong(Exception):
    """The source has something else than what is wanted: asking it again the same way is no use."""
