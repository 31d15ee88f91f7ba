"""Run the host's commands that the local cloud needs, and name the packages of missing ones."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from bake.errors import BakeError, UsageError

# command -> its package on Debian and Ubuntu
TOOLS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "ip": "iproute2",
    "mkfs.ext4": "e2fsprogs",
    "resize2fs": "e2fsprogs",
    "losetup": "mount",
    "fsfreeze": "util-linux",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
# Needed only for some images of the user's.
_SOMETIMES = {"qemu-img": "qemu-utils", "partx": "util-linux", "dpkg-query": "dpkg"}

# A root shell over `su` often lacks the sbin directories.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/bin", "/bin"])


def require_root() -> None:
    """Raise UsageError unless this process is root."""
    if os.geteuid() != 0:
        raise UsageError(
            "the local cloud needs root: it starts real machines with systemd-nspawn, mounts disks and "
            "makes network namespaces",
            hint="run the same command with sudo -E",
        )


def require_tools() -> None:
    """Raise UsageError naming the packages of the commands that are missing."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=_PATH) is None]
    if missing:
        packages = sorted({TOOLS[tool] for tool in missing})
        raise UsageError(
            f"the local cloud needs {', '.join(missing)}", hint=f"apt-get install {' '.join(packages)}"
        )


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can enter, since machines' disks contain setuid programs.

    UsageError if it belongs to another user.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = folder.stat().st_uid
    if owner not in {os.geteuid(), int(os.environ.get("SUDO_UID") or 0)}:
        raise UsageError(
            f"{folder} belongs to another user (id {owner}); machines' disks can't be stored there",
            hint="choose another place with BAKE_LOCAL_STATE or BAKE_CACHE",
        )
    folder.chmod(0o700)


def run(*argv: str | Path, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
    """Run a command and return its stdout; BakeError with the end of stderr when it fails.

    The locale is C, so that messages can be read; `timeout` is in seconds.
    """
    arguments = [str(argument) for argument in argv]
    try:
        done = subprocess.run(
            arguments,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            env={**os.environ, "PATH": _PATH, "LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError as error:
        package = (TOOLS | _SOMETIMES).get(arguments[0])
        raise UsageError(
            f"the command {arguments[0]} is missing", hint=f"apt-get install {package}" if package else None
        ) from error
    except subprocess.TimeoutExpired as error:
        raise BakeError(f"timed out after {timeout:.0f} s: {shlex.join(arguments)}") from error
    if check and done.returncode != 0:
        tail = "\n".join(f"    {line}" for line in done.stderr.strip().splitlines()[-15:])
        raise BakeError(f"exit code {done.returncode}: {shlex.join(arguments)}\n{tail}")
    return done.stdout
