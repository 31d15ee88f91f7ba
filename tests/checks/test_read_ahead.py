"""Which disk's read-ahead is checked, on a fake /sys tree; no udev runs on the machines here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bake.checks.test_performance import ROOT_DISK

EBS = "Amazon Elastic Block Store              \n"


def found(tree: Path) -> str:
    """What the check reads where the root's device number is 259:1."""
    (tree / "bin").mkdir()
    (tree / "bin/findmnt").write_text("#!/bin/sh\necho '259:1  '\n")
    (tree / "bin/findmnt").chmod(0o755)
    script = ROOT_DISK.replace("/sys/dev/block", str(tree / "block"))
    path = f"{tree}/bin:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", script], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    return done.stdout


def disk(tree: Path, name: str, model: str | None, *, partition: str = "") -> None:
    """A disk that holds the root, itself or on a partition."""
    folder = tree / "devices" / name
    (folder / "queue").mkdir(parents=True)
    (folder / "queue/read_ahead_kb").write_text("2560\n")
    if model:
        (folder / "device").mkdir()
        (folder / "device/model").write_text(model)
    if partition:
        (folder / partition).mkdir()
        (folder / partition / "partition").write_text("1\n")
    (tree / "block").mkdir()
    (tree / "block/259:1").symlink_to(folder / partition)


@pytest.mark.parametrize(
    ("name", "model", "partition", "seen"),
    [
        pytest.param("nvme0n1", EBS, "nvme0n1p1", "2560\n", id="a-partition"),
        pytest.param("nvme0n1", EBS, "", "2560\n", id="a-whole-disk"),
        pytest.param("xvda", None, "xvda1", "2560\n", id="xen"),
        pytest.param("nvme1n1", "Amazon EC2 NVMe Instance Storage\n", "", "", id="instance-store"),
        pytest.param("loop0", None, "", "", id="loop"),
    ],
)
def test_the_root_disk_is_found(name: str, model: str, partition: str, seen: str, tmp_path: Path) -> None:
    disk(tmp_path, name, model, partition=partition)
    assert found(tmp_path) == seen


def test_a_root_on_no_disk_has_none(tmp_path: Path) -> None:
    assert found(tmp_path) == ""
