"""Find out whether this host can give machines their own users, so that their root is not the host's."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bake.errors import BakeError
from bake.localcloud import host
from bake.localcloud.machines.cgroups import Cgroups
from bake.localcloud.settings import Settings

# An id-mapped mount: the files keep their owners on disk, and the machine sees them as its own users'.
OPTIONS = ("--private-users=pick", "--private-users-ownership=map")


def problem(settings: Settings) -> str | None:
    """The reason why it can't, as reported by a trial machine that runs one command; None if it can.

    Call this before the cloud is up.
    """
    groups = Cgroups(settings, "users")
    with tempfile.TemporaryDirectory(prefix="bake-users-") as place:
        work = Path(place)
        _make_disk(work / "tree", work / "disk.img")
        entries = groups.make(1 << 30)
        try:
            # In a mount namespace of its own: nothing stays mounted, whatever happens.
            host.run(
                "unshare", "--mount", "sh", "-c", _TRY,
                work, f"bake-users-{settings.tag}", " ".join(map(str, entries)), *OPTIONS,
            )  # fmt: skip
        except BakeError as error:
            code, *_, last = error.message.splitlines()
            return last.strip() if last.startswith(" ") else code.partition(":")[0]
        finally:
            groups.kill()
            Cgroups(settings).remove()
    return None


def _make_disk(tree: Path, disk: Path) -> None:
    """Make a disk with the least that nspawn requires; its programs are the host's."""
    for folder in ("etc", "usr", "proc", "sys", "dev", "run", "tmp", "root"):
        (tree / folder).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    with disk.open("wb") as file:
        file.truncate(8 << 20)
    host.run("mkfs.ext4", "-q", "-F", "-d", tree, disk)


_TRY = """
place=$0 machine=$1 groups=$2; shift 2
mount -o loop "$place/disk.img" "$place/tree" || exit
for group in $groups; do echo $$ >"$group" || exit; done
exec systemd-nspawn --quiet --settings=no --register=no --keep-unit --private-network --resolv-conf=off \
  --timezone=off --link-journal=no --machine="$machine" --bind-ro=/usr "$@" --directory="$place/tree" \
  /usr/bin/env true </dev/null
"""
