"""The disk that starts are measured on: weights, torch and the worker, as an image has them."""

from __future__ import annotations

import compileall
import importlib.metadata
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from bake.localcloud import host
from bake.localcloud.machines import disks

ROOT = Path(__file__).parents[3]
REVISION = "0" * 40
RULE = "etc/udev/rules.d/60-bake-read-ahead.rules"
PROVISION = ROOT / "provision"
WARM = PROVISION / "rootfs/usr/lib/flux-worker"
SHAPES = {
    "2": {"double_blocks": 1, "single_blocks": 1, "t5_blocks": 1},
    "4": {"double_blocks": 2, "single_blocks": 4, "t5_blocks": 2},
}
"""Parts of FLUX.1-dev's shape by the GB that their weights take."""
GB = 10**9
_SOFTWARE = 2 * GB


def snapshot(root: Path) -> Path:
    """Where the model lies below the disk's root."""
    return root / "hub/models--black-forest-labs--FLUX.1-dev/snapshots" / REVISION


def make(disk: Path, shape: str, before: str | None) -> None:
    """Write the disk, which takes a minute or two. `before`: the commit whose worker it holds as well."""
    from tests.bench import random_flux

    where = disk.with_name("making")
    with disk.open("wb") as file:
        file.truncate(int(shape) * GB + GB + _SOFTWARE)
    host.run("mkfs.ext4", "-q", "-m", "0", disk)
    disks.mount(disk, where)
    try:
        random_flux.build(snapshot(where), **SHAPES[shape])
        _install(where / "venv")
        if before is not None:
            _check_out(before, where / "before")
        (where / RULE).parent.mkdir(parents=True)
        shutil.copy(ROOT / "provision/rootfs" / RULE, where / RULE)
    finally:
        disks.unmount(where)


def refresh(where: Path) -> None:
    """Give a mounted disk the worker and the warm-up of this checkout."""
    for source, target in ((ROOT / "worker/flux_worker", where / "now/flux_worker"), (WARM, where / "warm")):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(target, quiet=2)


def record_trace(where: Path) -> str:
    """Record what a start reads, as a bake without a GPU does; returns how, as the trace says."""
    model = snapshot(where)
    words = ["--venv", where / "venv", "--out", where / "trace.json", "--model", model]
    words += ["--recorded", "start on cpu", "--scratch", where.with_name("tracing")]
    for setting in (f"PYTHONPATH={where / 'now'}", "FLUX_BACKEND=cpu", f"HF_HUB_CACHE={where / 'hub'}"):
        words += ["--set", setting]
    words += ["--", where / "venv/bin/python", "-B", PROVISION / "tracing/imports.py", model]
    done = subprocess.run(
        [sys.executable, "-m", "tracing", *map(str, words)],
        cwd=PROVISION,
        stdout=subprocess.PIPE,
        check=True,
    )
    told = json.loads(done.stdout)
    return f"{told['recorded']} {told['why']}".strip()


def _install(venv: Path) -> None:
    """Copy this Python's packages, those that the worker needs."""
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to(Path(sys.executable).resolve())
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", venv)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = venv / "lib" / version / "site-packages"
    for name in _needed("flux-worker"):
        for file in importlib.metadata.distribution(name).files or ():
            source, target = Path(str(file.locate())), site / file
            if ".." in file.parts or not source.is_file() or file.suffix == ".pth":
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def _needed(name: str) -> set[str]:
    """A package and what it needs, by name."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _requirements(name)
    return found


def _requirements(name: str) -> Iterator[str]:
    for line in importlib.metadata.requires(name) or ():
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            yield needed.name


def _check_out(revision: str, where: Path) -> None:
    """The worker's package as it was in a commit."""
    command = ["git", "archive", revision, "worker/flux_worker"]
    packed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(where.with_name("archive"), filter="data")
    where.mkdir()
    shutil.move(where.with_name("archive") / "worker/flux_worker", where)
    compileall.compile_dir(where, quiet=2)
