"""The weights' lock: one commit of the model's repository, and the size and hash of each file that is loaded.

A bake downloads exactly these files. Only `bake lock` writes the lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bake.columns import table
from bake.errors import BakeError, UsageError
from bake.progress import readable
from bake.weights import flux
from bake.weights.flux import WeightFile

if TYPE_CHECKING:
    from bake.profile.weights import Weights

MOST_FILES = 20
DIGITS = 12  # of a hash: enough to tell two apart by eye


@dataclass(frozen=True)
class Lock:
    """The files of one commit that diffusers loads. It is `complete`, and of use, only with all hashes."""

    repo: str
    revision: str
    files: Mapping[str, WeightFile]

    @property
    def complete(self) -> bool:
        return flux.INDEX in self.files and all(file.pinned for file in self.files.values())

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())

    def as_dict(self) -> dict[str, Any]:
        """The lock for the builder and for the plan's id."""
        return {
            "repo": self.repo,
            "revision": self.revision,
            "files": {path: file.as_dict() for path, file in self.files.items()},
        }

    def __str__(self) -> str:
        return f"{len(self.files)} files, {readable(self.bytes)}, of {self.revision[:DIGITS]}"


@dataclass(frozen=True)
class ChangedFile:
    """A file that differs from the lock; None on the side that does not have it."""

    path: str
    locked: WeightFile | None
    now: WeightFile | None

    def as_dict(self) -> dict[str, Any]:
        """The difference for JSON."""
        sides = {"locked": self.locked, "now": self.now}
        return {"file": self.path, **{name: side and side.as_dict() for name, side in sides.items()}}


def resolve(weights: Weights, endpoint: str | None, name: str | None = None) -> Lock:
    """Ask the Hub for the files to lock: of the profile's revision, or of what `name` is now.

    BakeError says what the Hub refused; UsageError when the profile is at fault.
    """
    from bake.weights import hub

    try:
        found = hub.revision(weights, endpoint, name)
        hub.check_leave(weights, endpoint)
        return Lock(weights.repo, found.commit, hub.loaded(weights, endpoint, found))
    except Exception as error:
        refused = hub.refusal(error, weights.repo)
        if refused is None:
            raise
        kind = UsageError if refused.setting else BakeError
        where = f"{refused.setting}: " if refused.setting else ""
        raise kind(f"{where}{refused.text}; nothing was locked", hint=refused.hint) from error


def differences(locked: Lock, now: Lock) -> list[ChangedFile]:
    """The files that differ from the lock. A hash that the lock did not have yet is no difference."""
    paths = [*locked.files, *(path for path in now.files if path not in locked.files)]
    found = (ChangedFile(path, locked.files.get(path), now.files.get(path)) for path in paths)
    return [one for one in found if one.locked is None or one.now is None or one.locked.differs_from(one.now)]


def completes(locked: Lock, now: Lock) -> bool:
    """Whether `now` only adds what an incomplete lock did not know: hashes, and small files."""
    if locked.complete or (locked.repo, locked.revision) != (now.repo, now.revision):
        return False
    return all(one.locked is None for one in differences(locked, now))


def differences_table(locked: Lock, now: Lock) -> str:
    """Revision and files that differ from the lock, for people."""
    rows = [("revision", locked.revision[:DIGITS], now.revision[:DIGITS])]
    rows = rows if locked.revision != now.revision else []
    changed = differences(locked, now)
    rows += [(one.path, _side(one.locked), _side(one.now)) for one in changed[:MOST_FILES]]
    more = len(changed) - MOST_FILES
    lines = [table(("file", "locked", "now"), rows)]
    return "\n".join([*lines, *([f"  and {more} more"] if more > 0 else [])])


def _side(file: WeightFile | None) -> str:
    if file is None:
        return "not there"
    return f"{file.bytes:,} bytes, {(file.digest or 'hash unknown')[:DIGITS]}"


def problem(locked: Lock | None, weights: Weights) -> str | None:
    """Why a bake can't use this lock; None if it can."""
    if locked is None:
        return "the weights are not locked yet"
    if (locked.repo, locked.revision) != (weights.repo, weights.revision):
        return f"the weights are locked at {locked.revision}, the profile asks for {weights.revision}"
    if not locked.complete:
        return "the weights' lock is not complete: it has sizes without hashes"
    return None
