"""Figures of measuring a base AMI: half a million files, added up as the machine's own program does.

.venv/bin/python tests/bench/bench_fit.py                  # 500,000 files
.venv/bin/python tests/bench/bench_fit.py --files 50000 --in /var/tmp
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "provision" / "capacity"))
IN_EACH = 100


def plant(top: Path, files: int) -> None:
    """Directories of a hundred small files, a few levels deep."""
    for number in range(files // IN_EACH):
        folder = top / f"{number % 7}" / f"{number % 61}" / f"{number}"
        folder.mkdir(parents=True)
        for name in range(IN_EACH):
            (folder / f"{name}.so").touch()


def main() -> None:
    """Plant, measure, and print what it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=500_000)
    parser.add_argument(
        "--in", dest="where", default="/dev/shm", help="a directory on the file system to try"
    )
    options = parser.parse_args()
    sizes = importlib.import_module("sizes")
    with tempfile.TemporaryDirectory(prefix="bench-fit-", dir=options.where) as name:
        plant(Path(name), options.files)
        started = time.monotonic()
        walk = sizes.Walk(started + 600)
        walk.device = Path(name).stat().st_dev
        walk.add(name, "all")
        walk.run()
        seconds = time.monotonic() - started
        assert walk.complete("all")
        rate = walk.files / seconds
        print(f"{walk.files:,} files and folders in {options.where}: {seconds:.1f} s, {rate:,.0f} a second")


if __name__ == "__main__":
    main()
