"""Facts about the Hugging Face cache: what is missing, wrong, or too much.

Input: `cache` (the directory), `repo_dir` (the repository's folder in it), `revision`,
`files` (path -> bytes).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def snapshot_facts(snapshot: Path, repo_dir: Path, files: dict[str, int]) -> dict[str, object]:
    """Hold the snapshot against the files that are expected in it."""
    there = {str(path.relative_to(snapshot)): path for path in snapshot.rglob("*") if not path.is_dir()}
    known = {name: there[name] for name in files if name in there}
    sizes = {name: path.stat().st_size for name, path in known.items() if path.exists()}
    return {
        "missing": sorted(set(files) - set(there)),
        "dangling": sorted(name for name, path in there.items() if not path.exists()),
        "wrong_size": {name: [files[name], size] for name, size in sizes.items() if size != files[name]},
        "extra": sorted(set(there) - set(files)),
        # A link out of the repository's folder would lose its target when the cache is moved or sealed.
        "outside": sorted(name for name, path in there.items() if repo_dir not in path.resolve().parents),
        "bytes": sum(sizes.values()),
        # Whoever filled the cache named a blob by its hash once that was verified, and not before.
        "blobs": {name: path.resolve().name for name, path in known.items()},
    }


def leftover_facts(cache: Path, repo_dir: Path, snapshot: Path) -> dict[str, object]:
    """Look for what a download leaves behind, and for what nobody asked for."""
    everything = [Path(folder, name) for folder, _, names in os.walk(cache) for name in names]
    used = {path.resolve() for path in snapshot.rglob("*")}
    blobs = list((repo_dir / "blobs").glob("*"))
    return {
        "partial": [str(path) for path in everything if path.suffix == ".incomplete"],
        "locks": [str(path) for path in everything if path.suffix == ".lock"],
        "unused_blobs": [path.name for path in blobs if path.suffix != ".incomplete" and path not in used],
        "other_repos": [str(path) for path in cache.glob("*--*") if path != repo_dir],
        "other_refs": [
            path.name
            for path in (repo_dir / "refs").glob("*")
            if path.read_text(errors="replace").strip() != snapshot.name
        ],
        "other_revisions": [path.name for path in (repo_dir / "snapshots").glob("*") if path != snapshot],
        "owners": sorted({path.lstat().st_uid for path in [cache, repo_dir, *everything] if path.exists()}),
        "unreadable": [str(path) for path in everything if path.exists() and not path.stat().st_mode & 0o400],
    }


def disk_model(path: Path) -> str:
    """The model of the disk that holds `path`, or nothing: /dev/root leads to no device, its numbers do."""
    number = path.stat().st_dev
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    # A partition's folder lies in that of its disk.
    models = [folder / "device" / "model" for folder in (device, device.parent)]
    return next((model.read_text().strip() for model in models if model.exists()), "")


def main() -> None:
    """Print the facts."""
    given = json.load(sys.stdin)
    cache, repo_dir = Path(given["cache"]), Path(given["repo_dir"])
    snapshot = repo_dir / "snapshots" / given["revision"]
    facts = {
        **snapshot_facts(snapshot, repo_dir, given["files"]),
        **leftover_facts(cache, repo_dir, snapshot),
        "there": cache.is_dir(),
        "disk_model": disk_model(cache) if cache.is_dir() else "",
    }
    print(json.dumps(facts))


main()
