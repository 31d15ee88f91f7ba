"""A Git repository with the worker's code and launch scripts, like a user's own."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Repository:
    """A repository on disk."""

    directory: Path

    @property
    def url(self) -> str:
        return f"file://{self.directory}"

    def git(self, *arguments: str) -> str:
        """Run git in it, as somebody."""
        who = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
        command = ["git", *who, *arguments]
        return subprocess.run(
            command, cwd=self.directory, capture_output=True, text=True, check=True
        ).stdout.strip()

    def commit(self) -> str:
        """Commit everything that is there; the commit's id."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=as it is")
        return self.git("rev-parse", "HEAD")


def repository(directory: Path) -> Repository:
    """A fresh one with `worker/` and `provision/launch/` of this checkout."""
    dead = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    for name in ("worker", "provision/launch"):
        shutil.copytree(ROOT / name, directory / name, ignore=dead)
    made = Repository(directory)
    made.git("init", "--quiet", "--initial-branch=main")
    return made
