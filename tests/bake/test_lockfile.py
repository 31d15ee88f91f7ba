"""Lock files: what is written reads back, by people too; what is broken is refused with its place."""

from __future__ import annotations

import dataclasses
import os
import stat
from pathlib import Path

import pytest

from bake import lockfile
from bake import profile as profiles
from bake.agreement import Agreement, Entry, Value, Weights
from bake.errors import BakeError, UsageError
from bake.flux import WeightFile

FILES = {"model_index.json": WeightFile(536), "vae/model.safetensors": WeightFile(167_666_902, "a" * 64)}


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "x.lock.yaml"


def agreement(lock: Path, **changes: Value) -> Agreement:
    """An agreement to a few facts, in no order."""
    agreed: dict[str, Value] = {
        "weights.files": Weights(FILES),
        "weights.revision": "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21",
        "root_volume.iops": None,
        "root_volume.size_gib": 80,
        "instance_types": ["g6e.xlarge"],
        "region": "eu-north-1",
        **changes,
    }
    first = {"region": {"to": "eu-north-1"}}
    entry = Entry("2026-11-22T09:00:00Z", "Ada <ada@example.org>", "first agreement", first)
    return Agreement(lock, agreed, (entry,))


def test_a_lock_file_reads_back_as_it_was_written(lock: Path) -> None:
    found = agreement(lock, sharing=["210987654321"])
    lockfile.write(found, None, "profile x")
    assert lockfile.read(lock) == found
    assert profiles.names(lock.parent) == []


def test_a_lock_file_is_meant_to_be_read_by_people(lock: Path) -> None:
    change = {"root_volume.size_gib": {"from": 80, "to": 120}}
    second = Entry("2026-11-23T09:00:00Z", "Ada", "room: for «two» models", change)
    found = agreement(lock, instance_types=["a.large", "b.large"], sharing=["210987654321"])
    text = lockfile.text(dataclasses.replace(found, history=(*found.history, second)), "profile x")
    assert (
        text
        == f"""\
# What was agreed for profile x.
# `bake` refuses, with exit code 3, to use anything else. Written by `bake approve` alone.
agreed:
  region: eu-north-1
  instance_types: [a.large, b.large]
  root_volume.size_gib: 80
  root_volume.iops: null
  sharing: ['210987654321']
inputs:
  weights.revision: 3de623fc3c33e44ffbe2bad470d0f45bccf2eb21
  weights.files:
    model_index.json: {{bytes: 536}}
    vae/model.safetensors: {{bytes: 167666902, sha256: {"a" * 64}}}
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


def test_there_is_no_agreement_without_a_file(lock: Path) -> None:
    assert lockfile.read(lock) is None


def test_the_history_may_grow_for_years(lock: Path) -> None:
    found = agreement(lock)
    change = {"base_ami": {"from": "ami-0123456789abcdef0", "to": "ami-0123456789abcdef1"}}
    entry = Entry("2026-11-23T09:00:00Z", "Ada <ada@example.org>", "the new base of the week", change)
    grown = dataclasses.replace(found, history=(*found.history, *[entry] * 2000))
    lockfile.write(grown, None, "profile x")
    assert lockfile.read(lock) == grown


def test_what_somebody_else_recorded_meanwhile_is_not_lost(lock: Path) -> None:
    lockfile.write(agreement(lock), None, "profile x")
    before = lock.read_bytes()
    with pytest.raises(BakeError, match="changed meanwhile; nothing was written"):
        lockfile.write(agreement(lock, region="eu-west-1"), None, "profile x")
    assert lock.read_bytes() == before
    lockfile.write(agreement(lock, region="eu-west-1"), before, "profile x")
    assert lock.read_bytes() != before


def test_a_lock_file_is_replaced_whole_and_nothing_is_left_over(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lockfile.write(agreement(lock), None, "profile x")
    lock.chmod(0o640)
    before = lock.read_bytes()

    def broken(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(BakeError, match="could not be written: No space left on device"):
        lockfile.write(agreement(lock, region="eu-west-1"), before, "profile x")
    monkeypatch.undo()
    assert lock.read_bytes() == before
    lockfile.write(agreement(lock, region="eu-west-1"), before, "profile x")
    assert [file.name for file in lock.parent.iterdir()] == ["x.lock.yaml"]
    assert stat.S_IMODE(lock.stat().st_mode) == 0o640


def test_a_link_stays_a_link(lock: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere" / "agreed.yaml"
    target.parent.mkdir()
    lock.symlink_to(target)
    lockfile.write(agreement(lock), None, "profile x")
    assert lock.is_symlink()
    assert target.exists()


GOOD = "agreed: {}\ninputs: {}\nhistory: []\n"
BROKEN = [
    pytest.param("", ":1:1: ", id="empty"),
    pytest.param("agreed: [", "x.lock.yaml:1:", id="syntax"),
    pytest.param("- a\n", ":1:1: a lock file is a mapping", id="not a mapping"),
    pytest.param("agreed: {}\n", "inputs: is missing", id="no inputs"),
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
