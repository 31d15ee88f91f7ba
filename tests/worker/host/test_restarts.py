"""Failed starts wait longer each time, across processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from flux_worker.host.restarts import RestartCounter


def start(folder: Path) -> float:
    """A start that comes to nothing; the pause before it."""
    restarts = RestartCounter(folder)
    restarts.begin()
    return restarts.pause()


def test_the_pause_grows_from_the_second_failure_on(tmp_path: Path) -> None:
    assert [start(tmp_path) for _ in range(11)] == [0, 0, 10, 20, 40, 80, 160, 320, 640, 900, 900]


def test_a_job_drawn_ends_it(tmp_path: Path) -> None:
    for _ in range(5):
        start(tmp_path)
    RestartCounter(tmp_path).forget()
    assert start(tmp_path) == 0


def test_what_somebody_mends_is_not_counted(tmp_path: Path) -> None:
    for _ in range(3):
        start(tmp_path)
    for _ in range(5):
        restarts = RestartCounter(tmp_path)
        restarts.begin()
        restarts.uncount()
    assert start(tmp_path) == 20


def test_what_happened_long_ago_is_forgotten(tmp_path: Path) -> None:
    for _ in range(5):
        start(tmp_path)
    [file] = tmp_path.iterdir()
    os.utime(file, (time.time() - 5_000, time.time() - 5_000))
    assert start(tmp_path) == 0


@pytest.mark.parametrize("content", [b"", b"many", b"\xff\xfe", b"-3", b"9" * 400], ids=repr)
def test_a_file_that_is_no_count_keeps_nobody_from_starting(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "starts-in-vain").write_bytes(content)
    assert 0 <= start(tmp_path) <= 900


def test_a_folder_that_cannot_be_written_keeps_nobody_from_starting(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert start(gone) == 0
    RestartCounter(gone).forget()
