"""Fetch one commit of a repository with the user's git, ssh keys and credential helpers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bake.errors import BakeError
from bake.redaction import redact

TIMEOUT = 300.0
# `ext::` would run a command from the URL.
OPTIONS = (
    "-c",
    "protocol.ext.allow=never",
    "-c",
    "advice.detachedHead=false",
    "-c",
    "core.hooksPath=/dev/null",
)


def fetch(url: str, commit: str, directory: Path) -> None:
    """Put the files of `commit` into `directory`, a new folder, without asking anything on the terminal.

    Raises BakeError that says whether the repository or the commit can't be had.
    """
    directory.mkdir(parents=True)
    _git(directory, "init", "--quiet")
    try:
        _git(directory, "fetch", "--quiet", "--depth=1", "--no-tags", "--", url, commit)
    except BakeError:
        # Some servers don't serve single commits: fetch all branches, one of which may have it.
        _git(directory, "fetch", "--quiet", "--no-tags", "--", url, "+refs/heads/*:refs/remotes/origin/*")
    try:
        _git(directory, "checkout", "--quiet", "--force", "--detach", commit)
    except BakeError as error:
        raise BakeError(
            f"{url} has no commit {commit}", hint="was it pushed? Name a commit that a branch there has"
        ) from error


def _git(directory: Path, *arguments: str) -> str:
    command = ["git", *OPTIONS, *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except FileNotFoundError as error:
        raise BakeError("git is not installed", hint="apt-get install git") from error
    except subprocess.TimeoutExpired as error:
        raise BakeError(f"git {arguments[0]} got no answer within {TIMEOUT:.0f} s") from error
    if done.returncode != 0:
        # The user's settings (insteadOf, a credential helper) may put a password into URLs.
        last = "\n".join(f"    {line}" for line in redact(done.stderr).strip().splitlines()[-5:])
        raise BakeError(f"git {arguments[0]} failed:\n{last}")
    return done.stdout


def _environment() -> dict[str, str]:
    """The user's environment, without variables of another repository and without prompts."""
    kept = {key: value for key, value in os.environ.items() if key not in ("GIT_DIR", "GIT_WORK_TREE")}
    ssh = os.environ.get("GIT_SSH_COMMAND", "ssh")
    return {
        **kept,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
        "GIT_SSH_COMMAND": f"{ssh} -o BatchMode=yes",
    }


def last_change(file: Path) -> tuple[str | None, bool]:
    """The commit that last changed a file, and whether it has changed since; None without one."""
    try:
        commit = _git(file.parent, "log", "-1", "--format=%H", "--", file.name).strip()
        return commit or None, bool(_git(file.parent, "status", "--porcelain", "--", file.name))
    except (BakeError, OSError):
        return None, False


def head(directory: Path) -> tuple[str | None, bool]:
    """The commit of a checkout, and whether its files differ from it; None without Git."""
    try:
        commit = _git(directory, "rev-parse", "HEAD").strip()
        return commit, bool(_git(directory, "status", "--porcelain", "--", "."))
    except BakeError:
        return None, False


def top(directory: Path) -> Path | None:
    """The top folder of the checkout that a folder is in; None without Git."""
    try:
        return Path(_git(directory, "rev-parse", "--show-toplevel").rstrip("\n")).resolve()
    except (BakeError, OSError):
        return None
