"""Why: unneeded parts of the base AMI are removed before the download, so that packages still verify.

Reads one JSON object on stdin and prints one. Runs as root under any Python from 3.6 on. What packages
own goes with them by the package manager, once it was seen that nothing else would go; the rest is deleted.

  in   things: name, kind, paths, packages, as inventory.py told them
  out  removed: name, paths, packages, bytes (the file system's own difference), links
       error: why it stopped, or null
"""

import glob
import json
import os
import re
import subprocess
import sys

import packages

# A second look at what may be deleted: paths come from inventory.py and from nobody else.
PLACES = {
    "toolkit": r"^/(usr/local/cuda|opt/cuda|usr/lib/cuda|opt/nvidia/nsight)(-[A-Za-z0-9._+-]+)?$",
    "environment": r"^(/opt|/root|/home/[^/]+)/[A-Za-z0-9][A-Za-z0-9._+-]*$",
    "container images": r"^/var/lib/(docker|containerd)$",
    "caches": r"^(/var/cache/(apt/archives|dnf|yum)"
    r"|(/root|/home/[^/]+)/(\.cache/(pip|uv|conda)|\.conda/pkgs))$",
}
EMPTIED = ("container images", "caches")  # the folder itself stays: it is a package's or a service's
LINKED = ("/usr/local", "/usr/local/bin", "/opt", "/etc/alternatives")
SERVICES = ("docker.socket", "docker.service", "containerd.service")


class Refused(Exception):
    """Something must not be removed, or removing it failed."""


def run(*command):
    """Run a command and return its output; raises Refused with its last line."""
    done = packages.said(*command, seconds=600)
    if done is None or done[0]:
        raise Refused(
            "{}: {}".format(" ".join(command[:4]), packages.last_line(done[2]) if done else "no answer")
        )
    return done[1]


def free():
    os.sync()
    found = os.statvfs("/")
    return found.f_bfree * found.f_frsize


def check(thing):
    for path in thing["paths"]:
        if not re.match(PLACES[thing["kind"]], path) or path != os.path.realpath(path):
            raise Refused(path + " is no place of this kind")


def remove_packages(names):
    """Remove exactly these packages, if installed, and none of their dependencies."""
    if packages.said("apt-get", "--version"):
        there = [name for name in names if installed("dpkg-query", "-W", "-f=${db:Status-Status}", name)]
        if there:
            _apt(there, set(names))
    else:
        there = [name for name in names if installed("rpm", "-q", name)]
        if there:
            unneeded = _unneeded_by_dnf()
            run("rpm", "-e", *there)
            kept = sorted(_unneeded_by_dnf() - unneeded)
            if kept:
                run("dnf", "--cacheonly", "--quiet", "--disablerepo=*", "mark", "install", *kept)


def installed(*query):
    found = packages.said(*query)
    return found is not None and not found[0] and found[1].strip() not in ("config-files", "not-installed")


def _apt(there, allowed):
    options = ("-o", "Debug::NoLocking=1", "-s")
    going = re.findall(r"^(?:Remv|Purg) (\S+)", run("apt-get", *options, "purge", *there), re.MULTILINE)
    if set(going) - allowed:
        raise Refused("apt-get would remove {}, too".format(", ".join(sorted(set(going) - allowed))))
    unneeded = _unneeded(options)
    waiting = ("-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0")
    run("apt-get", "-y", "-q", *waiting, "purge", *there)
    # Their dependencies, often the driver, must not go at the next autoremove.
    kept = sorted(_unneeded(options) - unneeded)
    if kept:
        run("apt-mark", "manual", *kept)


def _unneeded(options):
    found = packages.said("apt-get", *options, "autoremove")
    return set(re.findall(r"^Remv (\S+)", found[1], re.MULTILINE)) if found else set()


def _unneeded_by_dnf():
    """Return what dnf would autoremove; nothing without dnf, since yum removes nothing unasked."""
    query = ("repoquery", "--unneeded", "--qf", "%{name}")
    found = packages.said("dnf", "--cacheonly", "--quiet", "--disablerepo=*", *query)
    return set(found[1].split()) if found and not found[0] else set()


def delete(thing):
    """Delete what packages left; never enter a file system that is mounted below."""
    for path in thing["paths"]:
        targets = [path]
        if thing["kind"] in EMPTIED:
            # apt's own lock and folder are its package's.
            kept = ("lock", "partial") if path.endswith("/archives") else ()
            names = os.listdir(path) if os.path.isdir(path) else []
            targets = [path + "/" + name for name in names if name not in kept]
        for target in targets:
            if os.path.lexists(target):
                run("rm", "-rf", "--one-file-system", "--", target)


def dangling(paths):
    """Remove links that led there: /usr/local/cuda -> cuda-12.6; return them."""
    links = []
    for link in [link for top in LINKED for link in glob.glob(top + "/*")]:
        if os.path.islink(link) and packages.below(os.path.realpath(link), paths):
            os.unlink(link)
            links.append(link)
    return sorted(set(links))


def forget_libraries(paths):
    """Remove the folders from the linker's configuration, except from files of packages."""
    for file in glob.glob("/etc/ld.so.conf.d/*.conf"):
        lines = packages.text_of(file).splitlines(True)
        left = [line for line in lines if not packages.below(line.strip(), paths)]
        if left == lines or owned(file):
            continue
        if any(line.strip() and not line.startswith("#") for line in left):
            with open(file, "w") as stream:
                stream.writelines(left)
        else:
            os.unlink(file)
    run("ldconfig")


def owned(file):
    """Whether an installed package has this file."""
    asked = (("dpkg-query", "-S", file), ("rpm", "-qf", file))
    return any(found is not None and not found[0] for found in (packages.said(*query) for query in asked))


def stop_services():
    """Stop the services of container images; return those that were running."""
    running = []
    for name in SERVICES:
        found = packages.said("systemctl", "is-active", name)
        if found and found[1].strip() == "active":
            running.append(name)
            run("systemctl", "stop", name)
    return running


def remove(thing):
    """Remove one thing, and report the bytes freed."""
    before = free()
    running = stop_services() if thing["kind"] == "container images" else []
    try:
        if thing["packages"]:
            remove_packages(thing["packages"])
        delete(thing)
    finally:
        for name in reversed(running):
            subprocess.call(["systemctl", "start", name])
    links = dangling(thing["paths"])
    if thing["kind"] == "toolkit":
        forget_libraries(thing["paths"])
    won = free() - before
    return {
        "name": thing["name"],
        "paths": thing["paths"],
        "packages": thing["packages"],
        "links": links,
        "bytes": won,
    }


def main():
    removed, error = [], None
    try:
        wanted = json.load(sys.stdin)["things"]
        for thing in wanted:
            check(thing)
        removed.extend(remove(thing) for thing in wanted)
    except (Refused, OSError) as problem:
        error = str(problem)
    print(json.dumps({"removed": removed, "error": error}))


if __name__ == "__main__":
    main()
