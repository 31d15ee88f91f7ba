"""The program that adds up sizes counts blocks, each link once, on one file system, within its deadline."""

from __future__ import annotations

import ast
import importlib
import os
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest

PROGRAMS = Path(__file__).parents[2] / "provision" / "capacity"
MIB = 1 << 20


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(PROGRAMS)
    return importlib.import_module("sizes")


def measured(
    sizes: ModuleType, folder: Path, seconds: float = 30, **mounts: tuple[str, str]
) -> tuple[int, bool]:
    walk = sizes.Walk(time.monotonic() + seconds)
    walk.device = folder.stat().st_dev  # tests may lie on a file system of their own
    walk.mounts = {str(folder / name): mount for name, mount in mounts.items()}
    walk.add(str(folder), "it")
    walk.run()
    return walk.bytes["it"], walk.complete("it")


def test_blocks_count_and_not_lengths(sizes: ModuleType, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(1 << 40)
    (tmp_path / "full").write_bytes(b"x" * 3 * MIB)
    size, complete = measured(sizes, tmp_path)
    assert complete
    assert 3 * MIB <= size < 4 * MIB


def test_a_hard_link_counts_once_and_a_link_is_not_followed(sizes: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "it"
    folder.mkdir()
    (tmp_path / "outside").write_bytes(b"x" * 5 * MIB)
    (folder / "one").write_bytes(b"x" * 2 * MIB)
    (folder / "two").hardlink_to(folder / "one")
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "up").symlink_to(tmp_path)
    assert 2 * MIB <= measured(sizes, folder)[0] < 3 * MIB


def test_mounted_file_systems_are_not_even_read(
    sizes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "network").mkdir()
    (tmp_path / "network/large").write_bytes(b"x" * 2 * MIB)
    scanned: list[str] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scanned.append(path) or scan(path))
    assert measured(sizes, tmp_path, network=("nfs4", "server:/"))[0] < MIB
    assert str(tmp_path / "network") not in scanned


def test_a_disk_that_does_not_answer_costs_the_deadline_and_no_more(
    sizes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stuck").mkdir()
    scan, measuring_ended = os.scandir, threading.Event()

    def hang(path: str) -> object:
        if path.endswith("stuck"):
            measuring_ended.wait(60)
        return scan(path)

    monkeypatch.setattr(os, "scandir", hang)
    (tmp_path / "file").write_bytes(b"x" * MIB)
    started = time.monotonic()
    size, complete = measured(sizes, tmp_path, seconds=1)
    measuring_ended.set()
    assert time.monotonic() - started < 10
    assert not complete
    assert size >= MIB


def test_directories_are_told_down_to_a_depth(
    sizes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "OTHERS_FROM", MIB)
    for name, mib in (("a/b/c/d", 3), ("a/b/e", 2), ("named", 9)):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_bytes(b"x" * mib * MIB)
    walk = sizes.Walk(time.monotonic() + 30)
    walk.device = tmp_path.stat().st_dev
    found = sizes.largest(walk, [str(tmp_path / "named")], str(tmp_path))
    assert [(item["path"].removeprefix(f"{tmp_path}/"), item["bytes"] // MIB) for item in found] == [
        ("a/b/c", 3),
        ("a/b/e", 2),
    ]


def test_the_programs_run_under_python_3_6() -> None:
    for file in PROGRAMS.glob("*.py"):
        ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 6))
        assert "from __future__ import annotations" not in file.read_text(encoding="utf-8")
