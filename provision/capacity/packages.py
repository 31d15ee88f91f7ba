"""Find packages with files in a directory, and what is removed with them. Python 3.6, standard library."""

import glob
import os
import re
import subprocess

# Where a toolkit's package may have files besides its own folder: nothing that runs.
BESIDE = re.compile(
    r"^/(usr/share/(doc|lintian|man|info|applications|pixmaps|metainfo|icons|licenses)(/|$)|etc/alternatives(/|$)"
    r"|etc/ld\.so\.conf\.d(/|$)|usr(/local)?/lib(64)?(/x86_64-linux-gnu|/aarch64-linux-gnu)?/pkgconfig(/|$)"
    r"|usr/lib/\.build-id(/|$))"
)
# The driver's packages, and others that a bake needs, whatever files they have.
PROTECTED = re.compile(
    r"^(nvidia-(?!gds)|libnvidia-|cuda-drivers|kmod-|linux-|kernel|xserver-|xorg-|aws-neuronx|python3?($|-|\.)"
    r"|libpython|openssh|systemd|sudo|cloud-init|dkms|glibc|libc6)"
)


def is_folder(path):
    return os.path.isdir(path) and not os.path.islink(path)


def text_of(file):
    try:
        with open(file, "rb") as stream:
            return os.fsdecode(stream.read(1 << 20))
    except OSError:
        return ""


def below(path, tops):
    return any(path == top or path.startswith(top + "/") for top in tops)


def said(*command, seconds=40):
    """Return exit code and streams of a command; None if it is missing or takes too long."""
    path = "/usr/sbin:/usr/bin:/sbin:/bin"  # sudo may keep a user's, without the first and the third
    environment = dict(os.environ, PATH=path, LC_ALL="C", DEBIAN_FRONTEND="noninteractive")
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr)


def any_inside(paths, tops):
    return any(path.startswith(top + "/") for path in paths for top in tops)


def files_below(tops):
    """Return package -> its files, for packages with a file below one of `tops`."""
    found = {}
    for file in glob.glob("/var/lib/dpkg/info/*.list"):
        with open(file, "rb") as stream:
            content = os.fsdecode(stream.read())
        if any("\n" + top + "/" in content for top in tops):
            found[plain(os.path.basename(file)[: -len(".list")])] = content.split("\n")
    if not os.path.isdir("/var/lib/dpkg/info"):
        listed = said("rpm", "-qa", "--qf", r"[%{=NAME}-%{=VERSION}-%{=RELEASE}.%{=ARCH}\t%{FILENAMES}\n]")
        files = {}
        for line in (listed or (1, "", ""))[1].splitlines():
            name, _, path = line.partition("\t")
            files.setdefault(name, []).append(path)
        found = {name: paths for name, paths in files.items() if any_inside(paths, tops)}
    return found


def plain(package):
    """Return a package's name as apt prints it, without this machine's architecture."""
    name, _, architecture = package.partition(":")
    own = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine)
    return name if architecture == own else package


def files_of(package):
    """The files of one installed package."""
    listed = said("dpkg-query", "-L", package)
    listed = listed if listed and not listed[0] else said("rpm", "-ql", package)
    return (listed or (1, "", ""))[1].split("\n")


def removed_with(packages):
    """Return all that the package manager would remove with `packages`; None and its message if it can't."""
    simulated = said("apt-get", "-s", "-o", "Debug::NoLocking=1", "remove", *packages)
    if simulated is not None:
        names = re.findall(r"^(?:Remv|Purg) (\S+)", simulated[1], re.MULTILINE)
        return (None, last_line(simulated[2])) if simulated[0] else (names, "")
    going = list(packages)
    while True:  # rpm names the packages that need these; they go, too
        tested = said("rpm", "-e", "--test", *going)
        if tested is None or not tested[0]:
            return going, ""
        more = set(re.findall(r"is needed by \(installed\) (\S+)", tested[2])) - set(going)
        if not more:
            return None, last_line(tested[2])
        going += sorted(more)


def last_line(text):
    return (text.strip().splitlines() or ["no word of the package manager"])[-1]


def owners(tops, files):
    """Return the packages that go with `tops`, and why they can't, or None."""
    mine = sorted(name for name, paths in files.items() if any_inside(paths, tops))
    if not mine:
        return [], None
    going, why = removed_with(mine)
    if going is None:
        return mine, "the package manager does not remove it: " + why
    for package in going:
        paths = files.get(package) or files_of(package)
        # Each package lists its parent folders; a link may lead into `tops`.
        other = [path for path in paths if path.startswith("/") and not os.path.isdir(path)]
        other = [path for path in other if not (below(path, tops) or BESIDE.match(path))]
        if PROTECTED.match(package) or other:
            has = ", which has " + other[0] if other else ""
            return going, "its packages would take " + package + " along" + has
    return sorted(going), None
