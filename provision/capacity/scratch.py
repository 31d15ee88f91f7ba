#!/usr/bin/env python3
"""Why: the bfloat16 source of the int8 checkpoint needs no room on the root volume if there is another disk.

Reads one JSON object on stdin and prints one. Runs as root under any Python from 3.6 on, and may be repeated.

  in   verb: mount or unmount; at: the mount point; user: whose it is; needed: bytes;
       stand_in: the kind of file system that stands for an instance store, or null
  out  device, model, filesystem, free; or error

`mount` takes an instance store that the base AMI has mounted already, a folder of it alone; else it formats
one that is unused: no file system, no partition, no mapping on it, not mounted. Others are left alone.
`unmount` leaves nothing behind: no mount, no folder, no line in /etc/fstab.
"""

import glob
import json
import os
import shutil
import sys

import packages
import sizes

MODEL = "Amazon EC2 NVMe Instance Storage"
LABEL = "bake-scratch"
FOLDER = "bake-scratch"
KINDS = ("ext4", "xfs")
SYS = "/sys"


class Refused(Exception):
    """No usable instance store."""


def run(*command):
    done = packages.said(*command, seconds=300)
    if done is None or done[0]:
        raise Refused(
            "{}: {}".format(" ".join(command), packages.last_line(done[2]) if done else "no answer")
        )
    return done[1]


def model(disk):
    return packages.text_of("{}/block/{}/device/model".format(SYS, disk)).strip()


def stores():
    """Return the names of the machine's instance stores, largest first."""
    names = [os.path.basename(path) for path in glob.glob(SYS + "/block/*")]
    return sorted((name for name in names if model(name) == MODEL), key=lambda name: (-size(name), name))


def size(disk):
    return int(packages.text_of("{}/block/{}/size".format(SYS, disk)).strip() or 0) * 512


def disks_below(device):
    """Return the whole disks below a device, through partitions, LVM and RAID."""
    folder = os.path.realpath(device)
    slaves = sorted(glob.glob(folder + "/slaves/*"))
    if slaves:
        return [disk for slave in slaves for disk in disks_below(slave)]
    whole = os.path.dirname(folder) if os.path.exists(folder + "/partition") else folder
    return [os.path.basename(whole)]


def mounted():
    """Return mount point -> disks, for everything mounted from a device."""
    found = {}
    with open("/proc/self/mountinfo", "rb") as stream:
        lines = [os.fsdecode(line).split() for line in stream]
    for line in lines:
        device = "{}/dev/block/{}".format(SYS, line[2])
        if os.path.exists(device):
            found[line[4]] = (disks_below(device), line[3], line[line.index("-") + 1])
    return found


def ready(needed, at):
    """Return the mount point of an instance store that the base AMI mounted, with room; or None."""
    best = None
    for place, (disks, root, kind) in mounted().items():
        if place == at or root != "/" or kind not in KINDS or not all(model(disk) == MODEL for disk in disks):
            continue
        free = sizes.filesystem(place, sizes.mount_points())["available"]
        if free >= needed and (best is None or free > best[0]):
            best = (free, place)
    return best and best[1]


def objection(disk, needed):
    """Return why an instance store must not be formatted; None if it is unused and large enough, or ours."""
    if any(disk in disks for disks, _, _ in mounted().values()):
        return "is mounted already, without room"
    if size(disk) < needed:
        return "is too small"
    if glob.glob("{0}/block/{1}/{1}*".format(SYS, disk)):
        return "has partitions"
    if glob.glob("{}/block/{}/holders/*".format(SYS, disk)):
        return "belongs to a mapping"
    # Read from the disk itself, not from a cache; exit code 2 means that it is empty.
    probe = packages.said("blkid", "-p", "-o", "export", "/dev/" + disk)
    if probe is None:
        return "could not be looked at: no blkid"
    if probe[0] != 2 and not ours(disk):
        return "holds something: " + ", ".join(probe[1].split()[1:])
    return None


def ours(disk):
    """Whether an earlier start formatted it; then its part of the download is reused."""
    probe = packages.said("blkid", "-p", "-o", "value", "-s", "LABEL", "/dev/" + disk)
    return probe is not None and probe[1].strip() == LABEL


def take(needed):
    """Format an unused one and return its device."""
    found = stores()
    if not found:
        raise Refused("the builder has no disk whose model is {!r}".format(MODEL))
    against = []
    for disk in found:
        why = objection(disk, needed)
        if why is None:
            if not ours(disk):
                run("mkfs.ext4", "-q", "-F", "-m", "0", "-L", LABEL, "/dev/" + disk)
            return "/dev/" + disk
        against.append("/dev/{} {}".format(disk, why))
    raise Refused("no instance store can be taken: " + "; ".join(against))


def mount(given):
    at, needed = given["at"], given["needed"]
    if not os.path.ismount(at):
        os.makedirs(at, exist_ok=True)
        if given["stand_in"]:
            run("mount", "-t", given["stand_in"], "-o", "mode=755", LABEL, at)
        else:
            place = ready(needed, at)
            if place:
                os.makedirs(place + "/" + FOLDER, exist_ok=True)
                run("mount", "--bind", place + "/" + FOLDER, at)
            else:
                run("mount", "-o", "noatime,nodev,nosuid", take(needed), at)
    shutil.chown(at, given["user"])
    return describe(at)


def describe(at):
    told = sizes.filesystem(at, sizes.mount_points())
    disks = mounted().get(at, ([], "", ""))[0]
    return {
        "device": told["device"],
        "model": model(disks[0]) if disks else None,
        "filesystem": told["type"],
        "free": told["available"],
    }


def unmount(given):
    """Unmount it, or remove the folder on a file system that was there before."""
    at = given["at"]
    places = [place for place in mounted() if place != at and os.path.isdir(place + "/" + FOLDER)]
    told = describe(at) if os.path.ismount(at) else {}
    if told:
        run("umount", at)
    for place in places:
        if all(model(disk) == MODEL for disk in mounted()[place][0]):
            shutil.rmtree(place + "/" + FOLDER)
    if os.path.isdir(at):
        os.rmdir(at)
    return told


def main():
    given = json.load(sys.stdin)
    try:
        told = mount(given) if given["verb"] == "mount" else unmount(given)
    except (Refused, OSError) as problem:
        told = {"error": str(problem)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
