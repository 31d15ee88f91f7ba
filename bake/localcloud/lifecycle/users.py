"""The users of a local cloud: processes, described by their command lines."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class User:
    """A process that uses the cloud; `profile` is the one that it bakes, if its command line names it."""

    pid: int
    profile: str | None = None

    @classmethod
    def of(cls, pid: int) -> User:
        """Read the process's command line, which is empty if it has ended."""
        words: list[str] = []
        with suppress(OSError):
            content = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
            words = [word.decode(errors="replace") for word in content.split(b"\0")]
        return cls(pid, _profile(words))

    @property
    def what(self) -> str:
        """A description like "A bake (pid 7, profile g6e-ubuntu)"."""
        return f"A bake (pid {self.pid}{f', profile {self.profile}' if self.profile else ''})"


def _profile(words: list[str]) -> str | None:
    """The value of --profile in a command line."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word == "--profile":
            return following or None
        if word.startswith("--profile="):
            return word.partition("=")[2] or None
    return None
