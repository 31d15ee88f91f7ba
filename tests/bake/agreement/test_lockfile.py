"""Lock files can be written, read back and edited; a broken one is refused with file, line and column."""

from __future__ import annotations

import dataclasses
import os
import stat
from pathlib import Path

import pytest

from bake import profile as profiles
from bake.agreement import lockfile
from bake.agreement.facts import Agreement, Entry, FactValue
from bake.agreement.lockfile import LockFile
from bake.errors import BakeError, UsageError
from bake.weights import flux
from bake.weights.flux import WeightFile
from bake.weights.lock import Lock

FILES = {
    "model_index.json": WeightFile(536, git_oid="b" * 40),
    "vae/model.safetensors": WeightFile(167_666_902, "a" * 64),
}
WEIGHTS = Lock(flux.REPO, flux.REVISION, FILES)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "x.lock.yaml"


def held(lock: Path, **changes: FactValue) -> LockFile:
    """An agreement to a few facts, in no order, and the weights' lock."""
    agreed: dict[str, FactValue] = {
        "worker.lock": "sha256:c",
        "root_volume.iops": None,
        "root_volume.size_gib": 80,
        "instance_types": ["g6e.xlarge"],
        "region": "eu-north-1",
        **changes,
    }
    first = {"region": {"to": "eu-north-1"}}
    entry = Entry("2026-11-22T09:00:00Z", "Ada <ada@example.org>", "first agreement", first)
    return LockFile(lock, Agreement(lock, agreed, (entry,)), WEIGHTS)


def grown(found: LockFile, *entries: Entry) -> LockFile:
    """With more history."""
    assert found.agreement is not None
    history = (*found.agreement.history, *entries)
    return dataclasses.replace(found, agreement=dataclasses.replace(found.agreement, history=history))


def test_a_lock_file_reads_back_as_it_was_written(lock: Path) -> None:
    found = held(lock, sharing=["210987654321"])
    lockfile.write(found, None, "profile x")
    assert lockfile.read(lock) == found
    assert profiles.names(lock.parent) == []


def test_a_lock_file_is_meant_to_be_read_by_people(lock: Path) -> None:
    change = {"root_volume.size_gib": {"from": 80, "to": 120}}
    second = Entry("2026-11-23T09:00:00Z", "Ada", "room: for «two» models", change)
    found = held(lock, instance_types=["a.large", "b.large"], sharing=["210987654321"])
    text = lockfile.text(grown(found, second), "profile x")
    assert (
        text
        == f"""\
# What was agreed and locked for profile x.
# `bake` refuses, with exit code 3, to use anything else. `bake approve` writes what is agreed, `bake lock`
# the weights; nothing else writes here.
agreed:
  region: eu-north-1
  instance_types: [a.large, b.large]
  root_volume.size_gib: 80
  root_volume.iops: null
  sharing: ['210987654321']
inputs:
  weights.repo: black-forest-labs/FLUX.1-dev
  weights.revision: 3de623fc3c33e44ffbe2bad470d0f45bccf2eb21
  weights.files:
    model_index.json: {{bytes: 536, git_oid: {"b" * 40}}}
    vae/model.safetensors: {{bytes: 167666902, sha256: {"a" * 64}}}
  worker.lock: sha256:c
history:
- when: '2026-11-22T09:00:00Z'
  who: Ada <ada@example.org>
  why: first agreement
  changed:
    region: {{to: eu-north-1}}
- when: '2026-11-23T09:00:00Z'
  who: Ada
  why: 'room: for «two» models'
  changed:
    root_volume.size_gib: {{from: 80, to: 120}}
"""
    )


def test_nothing_is_agreed_or_locked_without_a_file(lock: Path) -> None:
    assert lockfile.read(lock) == LockFile(lock)


@pytest.mark.parametrize("part", ["agreement", "weights"])
def test_either_part_may_come_first(lock: Path, part: str) -> None:
    only = dataclasses.replace(held(lock), **{part: None})
    lockfile.write(only, None, "profile x")
    assert lockfile.read(lock) == only
    lockfile.write(held(lock), lock.read_bytes(), "profile x")
    assert lockfile.read(lock) == held(lock)


def test_a_lock_without_hashes_says_so_in_its_head(lock: Path) -> None:
    sizes = {path: WeightFile(size) for path, size in flux.SIZES.items()}
    known = LockFile(lock, weights=Lock(flux.REPO, flux.REVISION, sizes))
    assert "the first `bake lock` completes this" in lockfile.text(known, "profile x")
    assert "completes this" not in lockfile.text(held(lock), "profile x")


LOCKS = sorted((Path(__file__).parents[3] / "profiles").glob("*.lock.yaml"))


def test_every_profile_of_this_checkout_has_its_lock() -> None:
    names = {file.name.split(".")[0] for file in LOCKS[0].parent.glob("[!_]*.yaml")}
    assert names == {file.name.removesuffix(".lock.yaml") for file in LOCKS}


@pytest.mark.parametrize("file", LOCKS, ids=lambda file: str(file.name))
def test_the_locks_of_this_checkout_have_the_known_sizes_and_all_hashes_or_none(file: Path) -> None:
    found = lockfile.read(file)
    assert found.agreement is None
    assert found.weights is not None
    assert (found.weights.repo, found.weights.revision) == (flux.REPO, flux.REVISION)
    sizes = {path: file.bytes for path, file in found.weights.files.items()}
    assert {path: sizes[path] for path in flux.SIZES} == flux.SIZES
    assert found.weights.complete or not any(file.pinned for file in found.weights.files.values())
    complete = "the first `bake lock` completes this" not in file.read_text()
    assert found.weights.complete == complete


def test_the_history_may_grow_for_years(lock: Path) -> None:
    found = held(lock)
    change = {"base_ami": {"from": "ami-0123456789abcdef0", "to": "ami-0123456789abcdef1"}}
    entry = Entry("2026-11-23T09:00:00Z", "Ada <ada@example.org>", "the new base of the week", change)
    years = grown(found, *[entry] * 2000)
    lockfile.write(years, None, "profile x")
    assert lockfile.read(lock) == years


def test_what_somebody_else_recorded_meanwhile_is_not_lost(lock: Path) -> None:
    lockfile.write(held(lock), None, "profile x")
    before = lock.read_bytes()
    with pytest.raises(BakeError, match="changed meanwhile; nothing was written"):
        lockfile.write(held(lock, region="eu-west-1"), None, "profile x")
    assert lock.read_bytes() == before
    lockfile.write(held(lock, region="eu-west-1"), before, "profile x")
    assert lock.read_bytes() != before


def test_a_lock_file_is_replaced_whole_and_nothing_is_left_over(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lockfile.write(held(lock), None, "profile x")
    lock.chmod(0o640)
    before = lock.read_bytes()

    def broken(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(BakeError, match="could not be written: No space left on device"):
        lockfile.write(held(lock, region="eu-west-1"), before, "profile x")
    monkeypatch.undo()
    assert lock.read_bytes() == before
    lockfile.write(held(lock, region="eu-west-1"), before, "profile x")
    assert [file.name for file in lock.parent.iterdir()] == ["x.lock.yaml"]
    assert stat.S_IMODE(lock.stat().st_mode) == 0o640


def test_a_link_stays_a_link(lock: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere" / "agreed.yaml"
    target.parent.mkdir()
    lock.symlink_to(target)
    lockfile.write(held(lock), None, "profile x")
    assert lock.is_symlink()
    assert target.exists()


GOOD = "agreed: {}\ninputs: {}\nhistory: []\n"
BROKEN = [
    pytest.param("", ":1:1: ", id="empty"),
    pytest.param("agreed: [", "x.lock.yaml:1:", id="syntax"),
    pytest.param("- a\n", ":1:1: a lock file is a mapping", id="not a mapping"),
    pytest.param("inputs: {weights.repo: a}\n", "weights.revision is missing beside weights.repo", id="half"),
    pytest.param(
        GOOD.replace("inputs: {}", "inputs: {weights.files: {../a: {bytes: 1}}}"),
        "is not the path of a file in a repository",
        id="path",
    ),
    pytest.param(
        GOOD.replace("inputs: {}", "inputs: {weights.files: {a: {bytes: 1, git_oid: 12}}}"),
        "git_oid: is not 40 hexadecimal digits",
        id="git blob",
    ),
    pytest.param(GOOD.replace("[]", "x"), ":3:10: history: must be a list", id="history"),
    pytest.param(f"{GOOD}agred: {{}}\n", ":4:1: agred: unknown\n    did you mean agreed?", id="section"),
    pytest.param(
        GOOD.replace("{}", "{root_volume.size_gb: 80}", 1),
        ":1:10: agreed.root_volume.size_gb: unknown\n    did you mean root_volume.size_gib?",
        id="fact",
    ),
    pytest.param(
        GOOD.replace("{}", "\n  root_volume.size_gib: 80GB", 1),
        ":2:25: agreed.root_volume.size_gib: '80GB' is not a whole number",
        id="unit",
    ),
    pytest.param(
        GOOD.replace("{}", "{root_volume.iops: fast}", 1),
        "'fast' is not a whole number or null",
        id="a number or null",
    ),
    pytest.param(GOOD.replace("{}", "{vpc: null}", 1), "None is not a text", id="null"),
    pytest.param(GOOD.replace("{}", "{sharing: [123456789012]}", 1), "is not a list of texts", id="list"),
    pytest.param(GOOD.replace("{}", "{root_volume.size_gib: true}", 1), "True is not a whole", id="bool"),
    pytest.param(
        GOOD.replace("{}", "{region: a, region: b}", 1),
        ":1:21: agreed.region: given twice, first in line 1",
        id="twice",
    ),
    pytest.param(
        GOOD.replace("inputs: {}", "inputs: {weights.files: {a: 1}}"),
        "needs bytes, a whole number",
        id="file",
    ),
    pytest.param(
        GOOD.replace("inputs: {}", "inputs: {weights.files: {a: {bytes: 1, sha256: x}}}"),
        "sha256: is not 64 hexadecimal digits",
        id="hash",
    ),
    pytest.param(
        f"<<<<<<< ours\n{GOOD}=======\n{GOOD}>>>>>>> theirs\n",
        ":1:1: a merge left two agreements",
        id="merge",
    ),
    pytest.param("agreed: \N{SNOWMAN}\ninputs: {}\nhistory: [1]\n", "history.0: must be a map", id="entry"),
]


@pytest.mark.parametrize(("content", "expected"), BROKEN)
def test_a_broken_lock_file_is_refused_with_its_place(lock: Path, content: str, expected: str) -> None:
    lock.write_text(content)
    with pytest.raises(UsageError) as caught:
        lockfile.read(lock)
    assert expected in caught.value.message
    assert caught.value.message.startswith(str(lock))


def test_all_problems_of_a_lock_file_come_at_once(lock: Path) -> None:
    lock.write_text("agreed:\n  regin: a\n  os: 3\ninputs: 1\nhistory: 2\n")
    with pytest.raises(UsageError) as caught:
        lockfile.read(lock)
    lines = [line for line in caught.value.message.splitlines() if line.startswith(str(lock))]
    assert [line.removeprefix(f"{lock}:").split(":")[0] for line in lines] == ["2", "3", "4", "5"]
