"""Who uses a local cloud: a process, and what it says of itself on its command line."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class User:
    """A process that keeps the cloud up; `profile` is the one that it bakes, where its command line tells."""

    pid: int
    profile: str | None = None

    @classmethod
    def of(cls, pid: int) -> User:
        """Read its command line; one that is gone meanwhile has none."""
        words: list[str] = []
        with suppress(OSError):
            content = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
            words = [word.decode(errors="replace") for word in content.split(b"\0")]
        return cls(pid, _profile(words))

    @property
    def what(self) -> str:
        """For a question: "A bake (pid 7, profile g6e-ubuntu)"."""
        return f"A bake (pid {self.pid}{f', profile {self.profile}' if self.profile else ''})"


def _profile(words: list[str]) -> str | None:
    """The value of --profile in a command line."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word == "--profile":
            return following or None
        if word.startswith("--profile="):
            return word.partition("=")[2] or None
    return None
