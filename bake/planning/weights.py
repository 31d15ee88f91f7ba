"""Decide about the weights' files: compare the lock with the Hub's metadata. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bake.planning.findings import Findings
from bake.profile import Profile
from bake.weights import flux
from bake.weights import lock as locks
from bake.weights.flux import WeightFile
from bake.weights.hub import Refusal, Revision
from bake.weights.lock import Lock


@dataclass(frozen=True)
class WeightFiles:
    """Path in the repository -> file, and who said so; `certain` when these are the files of the bake."""

    files: Mapping[str, WeightFile]
    source: str
    certain: bool = True

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())


def find(
    profile: Profile,
    sizes: Mapping[str, int] | None,
    lock: Lock | None,
    answer: Revision | Refusal | None,
    findings: Findings,
) -> WeightFiles:
    """Return the files that the plan counts on, compared with the Hub's metadata and the lock.

    `sizes` are reckoned with instead where the Hub is a stand-in, which is asked only about its lock.
    Without lock and `answer`, the sizes that are known serve, and that is noted.
    """
    found = _judge(answer, findings)
    if lock is not None and found is not None:
        _compare(lock, found, findings)
    if sizes is not None:
        return _known(sizes, "the real files' known sizes")
    if lock is not None:
        return WeightFiles(lock.files, "the lock")
    if found is not None:
        files = {path: file for path, file in found.files.items() if flux.wanted(path)}
        return WeightFiles(files, "the Hub's metadata")
    same = profile.weights.revision == flux.REVISION
    source = "known sizes" if same else f"known sizes of {flux.REVISION[:12]}"
    return _known(flux.SIZES, source, certain=False)


def counted(lock: Lock | None) -> WeightFiles:
    """The files of the lock; without one those of FLUX.1-dev, whose sizes are known. Nobody is asked."""
    return WeightFiles(lock.files, "the lock") if lock is not None else _known(flux.SIZES, "known sizes")


def _known(sizes: Mapping[str, int], source: str, *, certain: bool = True) -> WeightFiles:
    return WeightFiles({path: WeightFile(size) for path, size in sizes.items()}, source, certain)


def _judge(answer: Revision | Refusal | None, findings: Findings) -> Revision | None:
    """Return what the Hub has; report a refusal, note a missing answer."""
    if isinstance(answer, Refusal):
        if answer.setting:
            findings.problem(answer.setting, answer.text, *([answer.hint] if answer.hint else []))
        else:
            findings.not_checked("the weights' sizes, and whether this token may download them", answer.text)
        return None
    if answer is not None:
        findings.confirm("this token may download the weights of this revision")
    return answer


def _compare(lock: Lock, found: Revision, findings: Findings) -> None:
    """Check that the Hub has exactly what is locked, and ignore all other files."""
    now = Lock(
        lock.repo, found.commit, {path: found.files[path] for path in lock.files if path in found.files}
    )
    if found.commit == lock.revision and not locks.differences(lock, now):
        findings.confirm(f"the Hub's files are the locked ones, size and hash: {lock}")
        return
    findings.problem(
        "weights.revision",
        "the Hub's files are not the locked ones",
        *locks.differences_table(lock, now).splitlines(),
        "look at what changed, then: bake lock --update (with --rehearse for a rehearsal's lock)",
    )
