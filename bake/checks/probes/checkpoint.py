"""Facts about the int8 checkpoint: whether it is there, whole, of what, and whose.

Input: `folder`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

RECORDS = ("quantization.json", "comparison.json")


def facts(folder: Path) -> dict[str, object]:
    """Hold the files against those that the provenance names."""
    there = {str(path.relative_to(folder)): path for path in folder.rglob("*") if not path.is_dir()}
    provenance, comparison = (json.loads((folder / name).read_text()) for name in RECORDS)
    outputs = provenance["outputs"]
    sizes = {name: path.stat().st_size for name, path in there.items() if name in outputs}
    everything = [folder, *folder.rglob("*")]
    return {
        "there": True,
        "revision": provenance["revision"],
        "missing": sorted(set(outputs) - set(there)),
        "wrong_size": {n: [outputs[n]["bytes"], s] for n, s in sizes.items() if s != outputs[n]["bytes"]},
        "extra": sorted(set(there) - set(outputs) - set(RECORDS)),
        "psnr": comparison["psnr"],
        "owners": sorted({path.lstat().st_uid for path in everything}),
        "writable": sorted(str(path) for path in everything if path.lstat().st_mode & 0o022),
        "unreadable": sorted(str(path) for path in everything if not path.lstat().st_mode & 0o004),
    }


def main() -> None:
    """Print the facts."""
    folder = Path(json.load(sys.stdin)["folder"])
    print(json.dumps(facts(folder) if folder.exists() else {"there": False}))


main()
