"""Ask Git for the worker's code."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bake import worker_source
from bake.profile import Profile
from bake.worker_source import WorkerSource


@dataclass(frozen=True)
class Objection:
    """What is wrong with the code: the setting, a text, and details below it."""

    path: str
    text: str
    details: tuple[str, ...]


@dataclass(frozen=True)
class WorkerCode:
    """The worker's code; None if Git can't get it."""

    source: WorkerSource | None
    objections: tuple[Objection, ...] = ()


@dataclass
class _Collected:
    found: list[Objection] = field(default_factory=list)

    def problem(self, path: str, text: str, *details: str) -> None:
        self.found.append(Objection(path, text, details))


def ask_code(profile: Profile, requirements: Path) -> WorkerCode:
    """Get the code that the profile names, and compare it with the locked `requirements`."""
    collected = _Collected()
    source = worker_source.find(profile, requirements, collected)
    return WorkerCode(source, tuple(collected.found))
