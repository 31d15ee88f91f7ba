#!/usr/bin/env python3
"""Why: only the machine knows what its base AMI holds, and 34 GB are downloaded only if they fit beside it.

Reads one JSON object on stdin and prints one, changing nothing. Runs as root under any Python from 3.6 on,
sent over the session before anything is on the machine.

  in   beside: bytes that the bake adds; places: directories it writes to; homes; deadline: seconds
  out  filesystems: mount point -> size, used, available (of a plain user), device, type
       places: directory -> mount point
       things: what base.remove can name: name, kind, paths, bytes, complete, packages, blocked, needed_by,
               mentioned_in
       others: the largest directories besides, where it does not fit: path, bytes
       seconds, files, complete

Sizes are of blocks on the disk and of one file system; a hard link counts once; links are not followed.
What is not measured by the deadline is marked as incomplete.
"""

import glob
import json
import os
import re
import sys
import time

import packages
import sizes
from packages import below, is_folder, text_of

TOOLKITS = ("/usr/local/cuda", "/usr/local/cuda-*", "/opt/cuda", "/opt/cuda-*", "/usr/lib/cuda-*")
IMAGES = ("/var/lib/docker", "/var/lib/containerd")
CACHES = ("/var/cache/apt/archives", "/var/cache/dnf", "/var/cache/yum")
USER_CACHES = (".cache/pip", ".cache/uv", ".cache/conda", ".conda/pkgs")
# Kinds that packages may own, and that may be in use.
OWNED = ("toolkit", "environment")
CONDA = ("conda", "anaconda3", "miniconda3", "miniforge3", "mambaforge")
OURS = {"flux-worker", "bake", "aws", "amazon", "nvidia"}  # the worker's, the bake's, AWS's, the driver's
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")
TOOLKIT = re.compile(r"^cuda(-[0-9]+\.[0-9]+)?$")


def is_environment(path):
    """Whether it is a Python environment of conda or venv, or the remains of one."""
    marks = glob.glob(path + "/lib/python3*/site-packages")
    marks += [path + "/conda-meta", path + "/pyvenv.cfg"]
    return is_folder(path) and (os.path.basename(path) in CONDA or any(map(os.path.exists, marks)))


def named(homes, mounts):
    """List what base.remove may name: name -> (kind, paths). Mounts are never read: they may hang."""
    found = {}

    def add(name, kind, path):
        if NAME.match(name) and path not in mounts and is_folder(path):
            found.setdefault(name, (kind, []))[1].append(path)

    for pattern in TOOLKITS:
        for path in sorted(glob.glob(pattern)):
            if TOOLKIT.match(os.path.basename(path)):
                add(os.path.basename(path), "toolkit", path)
    for path in sorted(glob.glob("/opt/nvidia/nsight-*")):
        add("nsight", "toolkit", path)
    for parent in dict.fromkeys(["/opt", "/root"] + homes):
        for path in sorted(glob.glob(parent + "/*")):
            name = os.path.basename(path)
            if name not in OURS and name not in found and path not in mounts and is_environment(path):
                add(name, "environment", path)
    for path in IMAGES:
        add("docker-images", "container images", path)
    for path in list(CACHES) + [
        home + "/" + name for home in dict.fromkeys(["/root"] + homes) for name in USER_CACHES
    ]:
        add("package-caches", "caches", path)
    return found


def users_of(tops):
    """Return what process or service needs something below `tops`, or None."""
    tops = list(tops) + [os.path.realpath(top) for top in tops]
    if any(below(path, tops) for path in (sys.prefix, sys.executable, os.path.realpath(sys.executable))):
        return "python3 of this machine lies in it"
    for process in glob.glob("/proc/[0-9]*"):
        try:
            program = os.readlink(process + "/exe")
            with open(process + "/maps", "rb") as stream:
                maps = os.fsdecode(stream.read())
        except OSError:
            continue
        if below(program, tops) or any(" " + top + "/" in maps for top in tops):
            return "process {} ({}) runs from it".format(os.path.basename(process), program)
    for folder in ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"):
        for unit in sorted(glob.glob(folder + "/*.service")):
            commands = re.findall(r"^Exec\w+=(.*)$", text_of(unit), re.MULTILINE)
            if any(top + "/" in command for command in commands for top in tops):
                return "{} starts a program in it".format(os.path.basename(unit))
    return None


def blocked(kind, paths):
    """Return why something must stay, packages aside; None if it may go."""
    device = os.lstat("/").st_dev
    for path in paths:
        if os.lstat(path).st_dev != device:
            return path + " lies on another file system: the root volume gains nothing"
    if kind in OWNED:
        return users_of(paths)
    if kind == "container images":
        names = [text_of(file) for file in glob.glob("/proc/[0-9]*/comm")]
        running = any(name.startswith("containerd-shim") for name in names)
        return "containers run from them" if running else None
    return None


def needed_by(name, paths, found):
    """List other environments that are based on this one."""
    built = []
    for other, (_, places) in found.items():
        settings = "".join(text_of(path + "/pyvenv.cfg") for path in places)
        bases = re.findall(r"^home *= *(.*)$", settings, re.MULTILINE)
        if other != name and any(below(base, paths) for base in bases):
            built.append(other)
    return sorted(built)


def mentions(paths, homes):
    """List shell and login files that mention it, and would complain once it is gone."""
    files = glob.glob("/etc/profile.d/*") + ["/etc/environment", "/etc/bash.bashrc", "/etc/bashrc"]
    files += [home + "/" + name for home in homes for name in (".bashrc", ".profile", ".bash_profile")]
    return [file for file in files if any(path in text_of(file) for path in paths)]


def things(found, homes, walk):
    """Describe what can be named, largest first, with any objection to removing it."""
    tops = [path for kind, paths in found.values() for path in paths if kind in OWNED]
    files = packages.files_below(tops)
    told = []
    for name, (kind, paths) in found.items():
        owned, why = packages.owners(paths, files) if kind in OWNED else ([], None)
        told.append(
            {
                "name": name,
                "kind": kind,
                "paths": paths,
                "bytes": walk.bytes.get(name, 0),
                "complete": walk.complete(name),
                "packages": owned,
                "blocked": blocked(kind, paths) or why,
                "needed_by": needed_by(name, paths, found),
                "mentioned_in": mentions(paths, homes) if kind in OWNED else [],
            }
        )
    return sorted(told, key=lambda thing: -thing["bytes"])


def measure(given):
    started = time.monotonic()
    mounts = sizes.mount_points()
    places = {path: sizes.mount_of(path, mounts) for path in ["/"] + given["places"]}
    systems = {place: sizes.filesystem(place, mounts) for place in set(places.values())}
    found = named(given["homes"], mounts)
    walk = sizes.Walk(started + given["deadline"])
    for name, (_, paths) in found.items():
        for path in paths:
            walk.add(path, name)
    walk.run()
    told = things(found, given["homes"], walk)
    too_small = given["beside"] > systems["/"]["available"]
    tops = [path for _, paths in found.values() for path in paths]
    return {
        "filesystems": systems,
        "places": places,
        "things": told,
        "others": sizes.largest(walk, tops) if too_small else [],
        "complete": not walk.waiting and not walk.busy,
        "files": walk.files,
        "seconds": round(time.monotonic() - started, 2),
    }


def main():
    print(json.dumps(measure(json.load(sys.stdin))))
    sys.stdout.flush()
    # A thread that still waits for a disk must not delay the answer.
    os._exit(0)


if __name__ == "__main__":
    main()
