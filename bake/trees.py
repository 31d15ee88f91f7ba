"""List the files of a source tree, and hash them."""

from __future__ import annotations

import hashlib
from pathlib import Path

DEAD = {"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", "build", ".git"}


def source_files(directory: Path) -> list[Path]:
    """The source files below `directory`, sorted: no byte code, no tools' caches, no build leftovers,
    no history.
    """
    return sorted(
        file
        for file in directory.rglob("*")
        if file.is_file()
        and not any(part in DEAD or part.endswith(".egg-info") for part in file.relative_to(directory).parts)
    )


def hash_file(file: Path) -> str:
    """The sha256 of a file, in hex."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def hash_tree(directory: Path) -> str:
    """The sha256 over names, modes and contents of the files below `directory`, in hex."""
    whole = hashlib.sha256()
    for file in source_files(directory):
        mode = "x" if file.stat().st_mode & 0o100 else "-"
        whole.update(f"{file.relative_to(directory)} {mode} {hash_file(file)}\n".encode())
    return whole.hexdigest()
