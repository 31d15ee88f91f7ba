"""Lower a disk's read-ahead while a start is recorded: what the kernel reads ahead was not asked for.

The old value is kept in a file until it is restored: a recorder that was killed leaves it to the next one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

KIB = 32
SYS = Path("/sys/dev/block")


def of_disk(folder: str, sys: Path = SYS) -> Path | None:
    """The file with the read-ahead of the disk that holds a folder; a partition shares its disk's."""
    number = Path(folder).stat().st_dev
    device = (sys / f"{os.major(number)}:{os.minor(number)}").resolve()
    places = (device / "queue/read_ahead_kb", device.parent / "queue/read_ahead_kb")
    return next((place for place in places if place.exists()), None)


@contextmanager
def lowered(file: Path | None, kept: Path) -> Iterator[int | None]:
    """Lower it for the block, which gets the KiB that apply: the old ones where the kernel does not let us.

    In a container /sys may be read-only, and the root may be on no disk: None then.
    """
    if file is None:
        yield None
        return
    old = int(file.read_text(encoding="ascii"))
    try:
        kept.write_text(f"{file}\n{old}\n", encoding="utf-8")
        file.write_text(str(KIB), encoding="ascii")
    except OSError:
        kept.unlink(missing_ok=True)
        yield old
        return
    try:
        yield KIB
    finally:
        restore(kept)


def restore(kept: Path) -> None:
    """Set what a recorder found, if one has left it."""
    with suppress(FileNotFoundError):
        file, old = kept.read_text(encoding="utf-8").split()
        Path(file).write_text(old, encoding="ascii")
        kept.unlink()
