"""Unpack the user's own image into a tree of files: an archive of its root, or a disk (raw or qcow2)."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import urllib.request
from pathlib import Path
from typing import Any

from bake.errors import BakeError, UsageError
from bake.localcloud import host

QCOW2 = b"QFI\xfb"
SECTOR = 512  # the unit of partx


def identity(image: str) -> list[Any]:
    """Values that identify an image without reading it."""
    if _is_url(image):
        return [image]
    try:
        facts = Path(image).stat()
    except OSError as error:
        raise UsageError(f"BAKE_AMAZON_LINUX_IMAGE: {image}: {error.strerror}") from error
    return [image, facts.st_size, facts.st_mtime_ns]


def unpack(image: str, root: Path) -> None:
    """Fill the new folder `root` with the files of the image.

    A URL may end in `#sha256=…`, which the download must match.
    """
    root.mkdir()
    file = Path(image)
    if _is_url(image):
        file = root.with_name("download")
        _download(image, file)
    if _is_archive(file):
        host.run(
            "tar",
            "--extract",
            "--numeric-owner",
            "--xattrs",
            "--file",
            file,
            "--directory",
            root,
            timeout=900,
        )
    else:
        _copy_disk(file, root)


def _is_url(image: str) -> bool:
    return image.startswith(("https://", "http://"))


def _download(image: str, file: Path) -> None:
    url, _, wanted = image.partition("#sha256=")
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, file.open("wb") as target:  # noqa: S310
            shutil.copyfileobj(answer, target, 1 << 20)
    except OSError as error:
        raise BakeError(f"BAKE_AMAZON_LINUX_IMAGE: {url} could not be downloaded: {error}") from error
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if wanted and found != wanted.lower():
        raise BakeError(f"BAKE_AMAZON_LINUX_IMAGE: {url} has sha256 {found}, not {wanted}")


def _is_archive(file: Path) -> bool:
    """Whether this is a non-empty tar; a disk that begins with zeros reads as an empty one."""
    try:
        with tarfile.open(file) as archive:
            return archive.next() is not None
    except tarfile.TarError:
        return False


def _copy_disk(file: Path, root: Path) -> None:
    """Copy the largest file system of a disk, which is mounted read-only."""
    with file.open("rb") as head:
        if head.read(4) == QCOW2:
            raw = root.with_name("raw.img")
            host.run("qemu-img", "convert", "-O", "raw", file, raw, timeout=900)
            file = raw
    options = f"ro,norecovery,loop,{_largest(file)}"
    # In a mount namespace of its own: nothing stays mounted, whatever happens.
    copy = 'mkdir "$2.mnt" && mount -o "$0" "$1" "$2.mnt" && cp -a "$2.mnt/." "$2"'
    host.run("unshare", "--mount", "sh", "-c", copy, options, file, root, timeout=900)


def _largest(disk: Path) -> str:
    """Mount options for the largest partition, or for the whole disk if it has none."""
    columns = ("--raw", "--bytes", "--noheadings", "--output", "SIZE,START")
    listed = host.run("partx", *columns, disk, check=False).splitlines()
    if not listed:
        return "offset=0"
    size, start = max(tuple(map(int, line.split())) for line in listed)
    return f"offset={start * SECTOR},sizelimit={size}"
