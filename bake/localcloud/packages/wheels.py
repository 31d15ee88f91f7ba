"""The wheels of a rehearsal and a hashed lock of them, so that machines can install without the network."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bake.errors import BakeError
from bake.localcloud.packages.index import normalized, sha256
from bake.localcloud.packages.needed import download_cpu_torch
from bake.resources import LOCKS, WORKER

TOOLS = ("uv", "huggingface_hub", "hf_xet")
UNUSED_AFTER = 14 * 86400  # seconds until another Python's or an older lock's wheels are removed
# The real locks pin the CUDA build of torch; here the index decides which build is installed.
_UNPINNED = re.compile(r"^(torch|triton|nvidia[-_].*|cuda[-_].*)(==|\s|\[)", re.IGNORECASE)


@dataclass(frozen=True)
class Wheels:
    """The collected wheels: a directory, and hashed requirements files for the worker and for the tools."""

    files: Path
    worker: Path
    tools: Path

    @property
    def torch(self) -> str:
        """The collected version of torch with its build, like "2.13.0+cpu"."""
        match = re.search(r"^torch==(\S+)", self.worker.read_text(), re.MULTILINE)
        return match[1] if match else "none"


def wheels(cache: Path, python: str, say: Callable[[str], None]) -> Wheels:
    """Return the cached wheels for a Python like "3.11", or download them."""
    asked = {"worker": worker_requirements(), "tools": sorted(TOOLS)}
    pins = {name: unpinned(LOCKS / f"{name}.txt") for name in asked}
    key = hashlib.sha256(json.dumps([asked, pins, python, 1], sort_keys=True).encode()).hexdigest()[:16]
    place = cache / "wheels" / key
    if not (place / "tools.txt").exists():
        started = time.monotonic()
        say("collecting the wheels that the machines install (once; a few minutes where torch is large) …")
        work = place.with_name(f"{key}.partial")
        shutil.rmtree(work, ignore_errors=True)
        for name, requirements in asked.items():
            _download(work, name, requirements, pins[name], python)
        shutil.rmtree(place, ignore_errors=True)
        work.rename(place)
        say(f"collected {len(list(place.rglob('*.whl')))} wheels in {time.monotonic() - started:.0f} s")
    os.utime(place)
    _forget_unused(place)
    return Wheels(place / "files", place / "worker.txt", place / "tools.txt")


def worker_requirements() -> list[str]:
    """The dependencies of flux-worker, without extras."""
    project = tomllib.loads((WORKER / "pyproject.toml").read_text(encoding="utf-8"))
    return sorted(project["project"]["dependencies"])


def unpinned(lock: Path) -> list[str]:
    """The `name==version` lines of a lock, without torch and its CUDA packages; [] without a lock."""
    if not lock.exists():
        return []
    lines = (
        re.sub(r"\s*(--hash=\S+|\\)\s*", "", line).strip()
        for line in lock.read_text(encoding="utf-8").splitlines()
    )
    return [line for line in lines if re.match(r"^[A-Za-z0-9]", line) and not _UNPINNED.match(line)]


def _download(work: Path, name: str, requirements: list[str], pins: list[str], python: str) -> None:
    files = work / "files" / name
    files.mkdir(parents=True)
    constraints = work / f"{name}.constraints"
    constraints.write_text("".join(f"{pin}\n" for pin in pins))
    brought = [f"--find-links={files}"] if download_cpu_torch(requirements, python, files) else []
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input",
        "--only-binary=:all:", f"--python-version={python}", f"--dest={files}", f"--constraint={constraints}",
        *brought, *requirements,
    ]  # fmt: skip
    # pip runs with the user's own configuration, which may set indexes, proxies and local wheels.
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode != 0:
        tail = "\n".join(f"    {line}" for line in done.stderr.strip().splitlines()[-15:])
        raise BakeError(
            f"pip could not download the wheels for the {name}:\n{tail}",
            hint="the first rehearsal needs a package index; later ones don't",
        )
    (work / f"{name}.txt").write_text(lock(files.glob("*.whl")))


def lock(found: Iterable[Path]) -> str:
    """A requirements file that pins these wheels by version and hash."""
    lines = {}
    for path in found:
        name, version = path.name.replace("%2B", "+").split("-")[:2]
        lines[normalized(name)] = f"{normalized(name)}=={version} --hash=sha256:{sha256(path)}\n"
    return "".join(lines[name] for name in sorted(lines))


def _forget_unused(place: Path) -> None:
    for other in place.parent.iterdir():
        if other != place and time.time() - other.stat().st_mtime > UNUSED_AFTER:
            shutil.rmtree(other, ignore_errors=True)
