"""A stand-in for the pinned Python of python-build-standalone, whose releases are not on any package index.

It has the same layout, `python/bin/pythonX.Y` and its library, and is as relocatable, but consists of the
base image's own Python, so that it needs the system's libraries. The wheel index serves it to machines.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from bake.localcloud import host
from bake.localcloud.images.base import Base
from bake.localcloud.settings import Settings

FOLDER = "python"
# In its own mount namespace, so that nothing stays mounted. The archive is reproducible.
_PACK = r"""
mount -o loop,ro,noload "$1" "$2"
mkdir -p "$3/bin" "$3/lib"
cp -a "$2/usr/bin/python$4" "$3/bin/"
ln -s "python$4" "$3/bin/python3"
cp -aL "$2/usr/lib/python$4" "$3/lib/"
find "$3" -name __pycache__ -prune -exec rm -r {} +
rm -rf "$3/lib/python$4/EXTERNALLY-MANAGED" "$3/lib/python$4/sitecustomize.py" "$3/lib/python$4/dist-packages"
mkdir -p "$3/lib/python$4/site-packages"
tar --create --directory "$3/.." --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 python |
  gzip --no-name --fast >"$5"
"""


def folder(base: Base) -> Path:
    """The folder of a base's archives."""
    return base.disk.parent / FOLDER


def provide(base: Base, settings: Settings, say: Callable[[str], None]) -> Path:
    """Make the archive unless it exists; return a lock for it with this cloud's address."""
    archive = folder(base) / f"cpython-{base.python}-stand-in.tar.gz"
    if not archive.exists():
        _make(base, archive, say)
    content = archive.read_bytes()
    name = archive.name.removesuffix(".tar.gz")
    url = f"{settings.wheels.removesuffix('/simple')}/{FOLDER}/{archive.name}"
    lock = settings.state / "python.json"
    settings.state.mkdir(parents=True, exist_ok=True)
    entry = {"url": url, "sha256": hashlib.sha256(content).hexdigest()}
    lock.write_text(json.dumps({name: entry}, indent=2), encoding="utf-8")
    return lock


def _make(base: Base, archive: Path, say: Callable[[str], None]) -> None:
    started = time.monotonic()
    work = archive.parent.with_name(f"{FOLDER}.partial")
    shutil.rmtree(work, ignore_errors=True)
    (work / "root").mkdir(parents=True)
    packed = work / archive.name
    host.run(
        "unshare", "--mount", "sh", "-ec", _PACK, "sh",
        base.disk, work / "root", work / "python", base.python, packed, timeout=300,
    )  # fmt: skip
    archive.parent.mkdir(exist_ok=True)
    packed.replace(archive)
    shutil.rmtree(work)
    say(f"packed a stand-in for the pinned Python in {time.monotonic() - started:.0f} s")
