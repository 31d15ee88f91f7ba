"""Where the worker's code comes from (R-GIT-S3): Git at a pinned commit, or what comes with this bake."""

from __future__ import annotations

import re
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from bake import git, resources
from bake.errors import BakeError
from bake.trees import hash_file, hash_tree

if TYPE_CHECKING:
    from bake.profile import Profile

PACKAGE = "flux-worker"
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


class Problems(Protocol):
    """Collects what is wrong with a profile: a setting, what is wrong with it, and details."""

    def problem(self, path: str, text: str, *details: str) -> None: ...


@dataclass(frozen=True)
class WorkerSource:
    """Where the worker's code comes from. `url` None: this checkout, whose commit may be unknown, or `wheel`,
    the file that an installed bake carries.

    `tree` is one hash over all its files, or the wheel's; `changed` says that the checkout differs from its
    commit.
    """

    url: str | None
    commit: str | None
    tree: str
    changed: bool = False
    wheel: str | None = None

    @property
    def version(self) -> str:
        """Which code it is, short enough for a tag; a checkout without Git is known by its hash."""
        if self.commit is None:
            return f"sha256:{self.tree[:16]}"
        return f"{self.commit} with changes" if self.changed else self.commit

    def __str__(self) -> str:
        what = self.version if self.commit is None else self.version.replace(self.commit, self.commit[:12])
        return f"{self.url or self.wheel or 'this checkout'} at {what}"


def find(profile: Profile, requirements: Path, problems: Problems) -> WorkerSource | None:
    """The code that the profile names, fetched once to see that it is there and fits `requirements`.

    Whatever is wrong with it is added to `problems`; None where it can't be had.
    """
    url, commit = profile.worker.source, profile.worker.commit
    if url is None:
        return _own()
    try:
        with unpacked(WorkerSource(url, commit, "")) as folder:
            for line in _unlocked(folder, requirements):
                problems.problem("worker.commit", line, "the worker's lock and its code must belong together")
            return WorkerSource(url, commit, hash_tree(folder))
    except BakeError as error:
        problems.problem("worker.source", error.message, *([error.hint] if error.hint else []))
        return None


def _own() -> WorkerSource:
    """What comes with this bake: the checkout's folder, or the wheel that is installed with it."""
    if (wheel := resources.worker_wheel()) is not None:
        return WorkerSource(None, None, hash_file(wheel), wheel=wheel.name)
    head, changed = git.head(resources.WORKER)
    return WorkerSource(None, head, hash_tree(resources.WORKER), changed)


@contextmanager
def unpacked(source: WorkerSource) -> Iterator[Path]:
    """The folder with the worker's project, or its wheel where that is what `source` names.

    Of a Git repository it is a copy that is gone afterwards.
    """
    if source.url is None:
        yield resources.worker_wheel() or resources.WORKER
        return
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "source"
        git.fetch(source.url, str(source.commit), whole)
        yield _project(whole, source)


def _project(whole: Path, source: WorkerSource) -> Path:
    """`worker/` of a repository like this one, or a repository that is the worker's alone."""
    for folder in (whole / "worker", whole):
        file = folder / "pyproject.toml"
        if file.is_file() and _described(file).get("name") == PACKAGE:
            return folder
    raise BakeError(f"{source.url} at {source.commit} holds no Python project {PACKAGE}")


def _described(file: Path) -> dict[str, object]:
    try:
        return dict(tomllib.loads(file.read_text(encoding="utf-8")).get("project", {}))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return {}


def _unlocked(folder: Path, requirements: Path) -> list[str]:
    """What the code needs that the lock does not hold: found here, not after the bake's first hour."""
    pins = {
        canonicalize_name(name): version for name, version in PIN.findall(requirements.read_text("utf-8"))
    }
    found = []
    needed = _described(folder / "pyproject.toml").get("dependencies", [])
    for text in needed if isinstance(needed, list) else []:
        try:
            wanted = Requirement(str(text))
        except InvalidRequirement:
            found.append(f"its worker needs {text!r}, which is not a valid requirement")
            continue
        have = pins.get(canonicalize_name(wanted.name))
        if have is None or not wanted.specifier.contains(have, prereleases=True):
            found.append(f"its worker needs {text}, the lock has {have or 'none'}")
    return found
