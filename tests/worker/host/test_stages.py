"""Stages of a start are told with times since boot, bytes and facts, and are kept in the unit's folder."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest

from flux_worker.host.stages import Stages, process_started
from flux_worker.host.startup import Usage


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def kept(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text()))


def test_stages_are_kept_in_the_units_folder_as_they_end(tmp_path: Path) -> None:
    stages = Stages.of_worker({"RUNTIME_DIRECTORY": f"{tmp_path}:/elsewhere"}, 0, 1)
    file = tmp_path / "start.json"
    before = now()
    with stages.stage("imports", since_start=True):
        assert kept(file)["stages"][0]["ended"] is None
    with stages.stage("load") as load:
        load.tell({"weights_bytes": 7, "disk": {"bytes": 5}})
        load.tell({"weights_bytes": 8})
    told = kept(file)
    assert told["format"] == 1 and told["pid"] == os.getpid()
    imports, loaded = told["stages"]
    assert (imports["name"], loaded["name"]) == ("imports", "load")
    assert imports["began"] == pytest.approx(told["process_started"], abs=1e-3)
    assert imports["began"] < before <= imports["ended"] <= loaded["ended"] <= now()
    assert loaded["seconds"] == pytest.approx(loaded["ended"] - loaded["began"], abs=2e-3)
    assert loaded["facts"] == {"weights_bytes": 8, "disk": {"bytes": 5}}
    assert stages.facts()["stages"] == told["stages"]
    assert [one.name for one in tmp_path.iterdir()] == ["start.json"], "nothing half written is left"


def test_each_of_several_workers_has_a_file_of_its_own(tmp_path: Path) -> None:
    for number in (0, 1):
        with Stages.of_worker({"RUNTIME_DIRECTORY": str(tmp_path)}, number, 2).stage("load"):
            pass
    assert sorted(one.name for one in tmp_path.iterdir()) == ["start-0.json", "start-1.json"]


def test_without_a_folder_they_are_only_told() -> None:
    stages = Stages.of_worker({}, 0, 1)
    with stages.stage("first_draw"):
        pass
    assert [one["name"] for one in stages.facts()["stages"]] == ["first_draw"]


def test_a_stage_that_fails_never_ends_and_a_full_disk_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stages = Stages(tmp_path / "gone" / "start.json")
    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError), stages.stage("load"):
        raise RuntimeError("no memory")
    assert stages.facts()["stages"][0]["seconds"] is None
    assert "cannot write" in caplog.text


def test_bytes_are_those_that_the_kernel_read_meanwhile(tmp_path: Path) -> None:
    """A file that was dropped from the page cache is read again; on a file system in memory, nothing is."""
    file = tmp_path / "weights"
    with file.open("wb") as out:
        out.write(os.urandom(4 << 20))
        out.flush()
        os.fsync(out.fileno())
        os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = Usage.now().read
    stages = Stages()
    with stages.stage("imports"):
        pass
    with stages.stage("load"):
        file.read_bytes()
    first, second = stages.facts()["stages"]
    assert first["bytes"] == 0
    assert second["bytes"] == Usage.now().read - before


def test_the_process_began_before_now() -> None:
    assert 0 < process_started() < now()
