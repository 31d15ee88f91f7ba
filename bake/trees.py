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


def hash_files(directory: Path) -> dict[str, str]:
    """The files below `directory` by name: whether each may be run (x or -), and its sha256."""
    return {
        file.relative_to(
            directory
        ).as_posix(): f"{'x' if file.stat().st_mode & 0o100 else '-'} {hash_file(file)}"
        for file in source_files(directory)
    }


def hash_tree(directory: Path) -> str:
    """The sha256 over names, modes and contents of the files below `directory`, in hex."""
    whole = hashlib.sha256()
    for name, told in hash_files(directory).items():
        whole.update(f"{name} {told}\n".encode())
    return whole.hexdigest()
