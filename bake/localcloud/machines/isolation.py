"""Whether this host can give machines users of their own, so that a machine's root is not the host's."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bake.errors import BakeError
from bake.localcloud import host
from bake.localcloud.machines.cgroups import Cgroups
from bake.localcloud.settings import Settings

# The disk's files keep their owners; a mount that maps ids shows them to the machine as its own.
OPTIONS = ("--private-users=pick", "--private-users-ownership=map")


def problem(settings: Settings) -> str | None:
    """Why it can't, in the words of what refused; None where it can. Tried with a machine of one command.

    To be asked before the cloud is up.
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
    """What nspawn wants to see on a disk; the programs are the host's."""
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
