"""What is installed: packages, Python packages, programs, and the versions that people ask for.

A module of the probe `inventory`, sent with it. Functions that take `root` read the files below it.
"""

from __future__ import annotations

import fnmatch
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # sudo may keep a user's, without the first and the third
# dpkg folds long fields, so a record ends with a character that no field has.
DEB = (
    "${db:Status-Status}\\t${db:Status-Want}\\t${Package}\\t${Version}\\t${Architecture}"
    "\\t${source:Package} ${source:Version}\\t${Pre-Depends}, ${Depends}\\t${Provides}\\r"
)
RPM = (
    "%{NAME}\\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\\t%{ARCH}"
    "\\t%{SOURCERPM}\\t[%{REQUIRENAME},]\\t[%{PROVIDENAME},]\\n"
)
SYSTEM_PYTHON = (
    "usr/lib/python3*/dist-packages",
    "usr/lib*/python3*/site-packages",
    "usr/local/lib*/python3*/dist-packages",
    "usr/local/lib*/python3*/site-packages",
)
PYTHON_VERSIONS = ("torch", "diffusers", "transformers", "flux-worker")
NVIDIA = ("nvidia-open", "nvidia-driver", "nvidia-driver-[0-9]*", "nvidia-dkms-[0-9]*", "kmod-nvidia*")

Package = dict[str, Any]
"""Kind, name, version, arch, where; of the system's packages also whether held, its needs and provides."""


def said(*command: str, check: bool = False) -> str:
    """What a command prints, whatever its exit code; raises where there is none. LC_ALL keeps it English."""
    environment = {**os.environ, "LC_ALL": "C", "PATH": PATH}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=check, env=environment, timeout=60
    )
    return done.stdout.decode(errors="replace")


def output(*command: str) -> str:
    """The same of a command that must not fail: raises CalledProcessError."""
    return said(*command, check=True)


def text_of(file: Path) -> str:
    """A file's content; empty where there is none."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def found(root: Path, patterns: Iterable[str]) -> list[Path]:
    """The files that match, sorted within a pattern."""
    return [path for pattern in patterns for path in sorted(root.glob(pattern)) if path.exists()]


def by_version(text: str) -> list[tuple[int, str]]:
    """A key that sorts 6.10 after 6.9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def debs(told: str) -> list[Package]:
    """The installed packages in the answer of dpkg-query."""
    rows = [row.lstrip("\n").split("\t") for row in told.split("\r")]
    return [
        {
            "kind": "deb",
            "name": name,
            "version": version,
            "arch": arch,
            "source": source,
            "held": want == "hold",
            "needs": names(needs),
            "provides": names(provides),
        }
        for status, want, name, version, arch, source, needs, provides in (
            row for row in rows if len(row) == 8
        )
        if status == "installed"
    ]


def names(relations: str) -> list[str]:
    """The names in `a (>= 1), b:any | c`."""
    words = (part.split("(")[0].strip().partition(":")[0] for part in re.split(r"[,|]", relations))
    return [word for word in words if word]


def rpms(told: str, held: Iterable[str]) -> list[Package]:
    """The installed packages in the answer of rpm."""
    kept = set(held)
    return [
        {
            "kind": "rpm",
            "name": name,
            "version": version,
            "arch": "" if arch == "(none)" else arch,
            "source": "" if source == "(none)" else source,
            "held": name in kept,
            "needs": needs.split(",")[:-1],
            "provides": provides.split(",")[:-1],
        }
        for name, version, arch, source, needs, provides in (
            row for row in (line.split("\t") for line in told.splitlines()) if len(row) == 6
        )
    ]


def excluded(settings: str) -> list[str]:
    """The names that dnf leaves as they are."""
    lines = re.findall(r"^exclude(?:pkgs)?\s*=(.*)$", settings, re.MULTILINE)
    return [word for line in lines for word in re.split(r"[\s,]+", line) if word]


def of_system(root: Path) -> list[Package]:
    """Every package of the operating system's package manager."""
    if shutil.which("dpkg-query", path=PATH) and (root / "var/lib/dpkg/status").exists():
        return debs(output("dpkg-query", "--show", "--showformat", DEB))
    settings = text_of(root / "etc/dnf/dnf.conf") or text_of(root / "etc/yum.conf")
    return rpms(output("rpm", "--query", "--all", "--queryformat", RPM), excluded(settings))


def dependencies(known: list[Package], asked: Iterable[str]) -> dict[str, str]:
    """Package -> the asked one that needs it, through however many others."""
    needs: dict[str, set[str]] = {}
    providers: dict[str, set[str]] = {}
    for one in known:
        needs.setdefault(one["name"], set()).update(one["needs"])
        for name in (one["name"], *one["provides"]):
            providers.setdefault(name, set()).add(one["name"])
    roots = sorted({name for pattern in asked for name in fnmatch.filter(needs, pattern)})
    told, waiting = {name: name for name in roots}, list(roots)
    for name in waiting:
        for other in sorted(set().union(*(providers.get(need, ()) for need in needs[name]))):
            if other not in told:
                told[other] = told[name]
                waiting.append(other)
    return {name: root for name, root in told.items() if name not in roots}


def owners(files: dict[str, str], kind: str) -> dict[str, str]:
    """What `files` calls a path -> the package that delivered it."""
    if not files:
        return {}
    if kind == "rpm":
        lines = said("rpm", "--query", "--file", "--queryformat", "%{NAME}\n", *files).splitlines()
        told = {path: line for path, line in zip(files, lines) if " " not in line}  # noqa: B905
    else:
        # /bin is a link to /usr/bin, and a package may name either.
        spelt = {name: path for path in files for name in spellings(path)}
        lines = said("dpkg-query", "--search", *spelt).splitlines()
        rows = [line.rpartition(": ") for line in lines if not line.startswith("diversion ")]
        told = {spelt[path]: who.split(",")[0].partition(":")[0] for who, _, path in rows if path in spelt}
    return {files[path]: package for path, package in told.items()}


def spellings(path: str) -> list[str]:
    """A path with and without /usr before it."""
    return [path, path[4:]] if path.startswith("/usr/") else [path, "/usr" + path]


def distributions(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and version of each Python package in a folder, by its metadata."""
    for entry in sorted(folder.iterdir()):
        if entry.suffix == ".dist-info":
            file = entry / "METADATA"
        elif entry.suffix == ".egg-info":
            file = entry / "PKG-INFO" if entry.is_dir() else entry
        else:
            continue
        headers = text_of(file).partition("\n\n")[0]
        fields = dict(re.findall(r"^(Name|Version): *(\S+)", headers, re.MULTILINE))
        if len(fields) == 2:
            yield fields["Name"], fields["Version"]


def of_python(root: Path, venvs: Iterable[str]) -> list[Package]:
    """The packages of the environments, which are named by their folder, and of the system's Python."""
    folders = [
        (venv, path)
        for venv in venvs
        for path in found(root / venv.lstrip("/"), ["lib/python3*/site-packages"])
    ]
    folders += [("/" + str(path.relative_to(root)), path) for path in found(root, SYSTEM_PYTHON)]
    seen: set[Path] = set()  # lib64 may be a link to lib
    told = []
    for where, path in folders:
        if path.resolve() not in seen:
            seen.add(path.resolve())
            told += [
                {"kind": "python", "name": name, "version": version, "where": where}
                for name, version in distributions(path)
            ]
    return told


def environment_of(root: Path, venv: str) -> dict[str, str]:
    """The lines of an environment's pyvenv.cfg; venv calls its Python's version `version`, uv otherwise."""
    lines = re.findall(r"^(\w+) *= *(.*)$", text_of(root / venv.lstrip("/") / "pyvenv.cfg"), re.MULTILINE)
    known: dict[str, str] = dict(lines)
    return {"version": known.get("version_info", ""), **known}


def programs(root: Path, venvs: Iterable[str]) -> list[Package]:
    """What no package manager knows: Pythons of the environments that are not the system's, and snaps."""
    told = {}
    for known in (environment_of(root, venv) for venv in venvs):
        home = str(Path(known.get("home", "/usr/bin")).parent)
        if not home.startswith("/usr"):
            told[home] = program("cpython", known["version"], home)
    for file in found(root, ["snap/*/current/meta/snap.yaml"]):
        name, lines = file.parts[-4], re.findall(r"^version: *(.*)$", text_of(file), re.MULTILINE)
        told[name] = program(name, "".join(lines[:1]).strip("'\" "), "/snap/" + name)
    return list(told.values())


def program(name: str, version: str, where: str) -> Package:
    """A program of no package."""
    return {"kind": "program", "name": name, "version": version, "where": where}


def identity(package: Package) -> dict[str, str]:
    """What of a package goes into the report."""
    return {name: package.get(name, "") for name in ("kind", "name", "version", "arch", "where", "source")}


def kernel(root: Path) -> str:
    """The release that the image boots: grub's default, or the newest, or the one that runs."""
    try:
        chosen = output("grubby", "--default-kernel").strip() if shutil.which("grubby", path=PATH) else ""
    except subprocess.CalledProcessError:
        chosen = ""
    names = [path.name for path in root.glob("boot/vmlinuz-*")]
    newest = max(names, key=by_version, default="")
    return (Path(chosen).name or newest or "vmlinuz-" + os.uname().release)[len("vmlinuz-") :]


def driver(release: str, known: list[Package]) -> str:
    """The NVIDIA driver: of the module for the kernel that boots, or else of the package."""
    with_module = ("modinfo", "--set-version=" + release, "--field=version", "nvidia")
    try:
        if told := output(*with_module).strip():
            return told
    except (OSError, subprocess.SubprocessError):
        pass
    packages = [one for pattern in NVIDIA for one in known if fnmatch.fnmatch(one["name"], pattern)]
    return re.sub(r"^\d+:|-.*$", "", packages[0]["version"]) if packages else ""


def versions(root: Path, venvs: list[str], release: str, known: list[Package]) -> dict[str, str]:
    """The versions of what the worker stands on; of several environments, the first one that has it."""
    toolkit = json.loads(text_of(root / "usr/local/cuda/version.json") or "{}")
    told = {
        "kernel": release,
        "driver": driver(release, known),
        "system python": platform.python_version(),
        "cuda toolkit": toolkit.get("cuda", {}).get("version", ""),
    }
    for venv in venvs:
        one = versions_in(root, venv, known)
        told.update({name: told.get(name) or version for name, version in one.items()})
    neuron = [one for one in known if one["kind"] != "python" and "neuronx" in one["name"]]
    told.update({one["name"]: one["version"] for one in neuron})
    return {name: version for name, version in told.items() if version}


def versions_in(root: Path, venv: str, known: list[Package]) -> dict[str, str]:
    """Of one environment: its Python, what draws, and the CUDA that its torch was built for."""
    packages = {one["name"].lower(): one["version"] for one in known if one.get("where") == venv}
    files = found(root / venv.lstrip("/"), ["lib/python3*/site-packages/torch/version.py"])
    cuda = re.findall(r"^cuda\b.*= *'([\d.]+)'", "".join(map(text_of, files)), re.MULTILINE)
    told = {name: packages.get(name, "") for name in PYTHON_VERSIONS}
    return {**told, "python": environment_of(root, venv)["version"], "cuda": "".join(cuda[:1])}
