"""What the machine holds: packages, users, units, ports, settings, versions, and bytes by place.

Input: `venvs` (virtual environments whose Python packages are listed), `asked` (packages that the bake asks
for, as patterns), `lease` (what the names of the builder's own units begin with, which are left out),
`places` (name -> folders whose bytes are counted; a file counts once, for the first place that has it).
Output: the fields of an inventory, and `disk`. What fails is named in `incomplete`, and fails nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# Modules that are sent with this one.
import installed  # type: ignore[import-not-found]
import sources  # type: ignore[import-not-found]
from installed import found, output, text_of

SEARCH = 15.0  # seconds for the search for programs with rights, which on a cold disk may take longer
# What is no part of the image, or a copy of another one.
PRUNED = ("/proc", "/sys", "/dev", "/run", "/var/lib/docker", "/var/lib/containerd", "/snap")
# Package sources and the keys that sign their packages.
REPOSITORIES = (
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/*.list",
    "etc/apt/sources.list.d/*.sources",
    "etc/apt/keyrings/*",
    "etc/apt/trusted.gpg",
    "etc/apt/trusted.gpg.d/*",
    "etc/pki/rpm-gpg/*",
    "etc/yum.repos.d/*.repo",
)
# From the lowest to the highest of folders with a file of the same name, as sysctl.d(5) has them. systemd
# reads /etc/sysctl.conf only where a link in one of these leads to it, as Ubuntu and Amazon Linux ship one.
SYSCTL = ("usr/lib/sysctl.d", "usr/local/lib/sysctl.d", "run/sysctl.d", "etc/sysctl.d")
UNITS = ("usr/lib/systemd/system", "lib/systemd/system")
LIST_UNITS = ("systemctl", "list-unit-files", "--no-legend", "--plain", "--no-pager")
LISTENING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
# linux/capability.h, from 0 on.
CAPABILITIES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid",
    "setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw",
    "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct",
    "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease",
    "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog", "wake_alarm",
    "block_suspend", "audit_read", "perfmon", "bpf", "checkpoint_restore"
)  # fmt: skip


def rows(file: Path) -> list[list[str]]:
    """The fields of each line of /etc/passwd or the like."""
    return [line.split(":") for line in text_of(file).splitlines() if line and not line.startswith("#")]


def users(root: Path) -> dict[str, str]:
    """Name -> user id, group id, home and shell."""
    return {one[0]: " ".join([*one[2:4], *one[5:7]]) for one in rows(root / "etc/passwd") if len(one) > 6}


def groups(root: Path) -> dict[str, str]:
    """Name -> group id and members."""
    known = (one for one in rows(root / "etc/group") if len(one) > 3)
    return {one[0]: " ".join([one[2], *sorted(filter(None, one[3].split(",")))]) for one in known}


def units(told: str, lease: str) -> dict[str, str]:
    """Unit file -> state, in the answer of systemctl."""
    known = dict(line.split()[:2] for line in told.splitlines() if len(line.split()) > 1)
    return {
        name: state
        for name, state in known.items()
        if state != "transient" and not (lease and name.startswith(lease + "."))
    }


def unit_files(root: Path, names: Iterable[str]) -> dict[str, str]:
    """Path -> name, of the unit files where packages put them."""
    return {
        f"/{folder}/{name}": name for folder in UNITS for name in names if (root / folder / name).exists()
    }


def address(text: str) -> str:
    """Turn `0100007F` (or 32 digits) of /proc/net into an IP address; words are in host byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    if len(words) == 1:
        return socket.inet_ntop(socket.AF_INET, packed)
    return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]"


def listening(tables: dict[str, str], programs_of: dict[str, str], ephemeral: range) -> dict[str, str]:
    """Protocol, address and port -> program. A UDP port that the kernel chose is of one moment: `any`."""
    told: dict[str, set[str]] = {}
    for protocol, table in tables.items():
        for columns in (line.split() for line in table.splitlines()[1:]):
            if columns[3] == LISTENING[protocol]:
                where, _, digits = columns[1].partition(":")
                port = int(digits, 16)
                shown = "any" if protocol.startswith("udp") and port in ephemeral else str(port)
                name = f"{protocol[:3]} {address(where)}:{shown}"
                told.setdefault(name, set()).add(programs_of.get(columns[9], ""))
    return {name: ", ".join(sorted(filter(None, who))) for name, who in told.items()}


def openers(proc: Path) -> dict[str, str]:
    """Inode of a socket -> name of a process that has it open; systemd's only where nobody else's is."""
    told: dict[str, str] = {}
    for process in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            links = [str(link.readlink()) for link in (process / "fd").iterdir()]
        except OSError:  # it has ended
            continue
        name = text_of(process / "comm").strip()
        told.update({link[8:-1]: name for link in links if link.startswith("socket:[")})
    return told


def ports(proc: Path) -> dict[str, str]:
    """See `listening`."""
    bounds = text_of(proc / "sys/net/ipv4/ip_local_port_range").split() or ["32768", "60999"]
    tables = {protocol: text_of(proc / "net" / protocol) for protocol in LISTENING}
    return listening(tables, openers(proc), range(int(bounds[0]), int(bounds[1]) + 1))


def capabilities(value: bytes) -> str:
    """The attribute `security.capability` as getcap shows it; the flags are of permitted and effective."""
    words = struct.unpack(f"<{len(value) // 4}I", value[: len(value) // 4 * 4])
    effective = "e" if words[0] & 1 else ""
    permitted, inheritable = words[1] | words[3] << 32, words[2] | words[4] << 32
    flags = effective + ("i" if inheritable else "") + ("p" if permitted else "")
    every = permitted | inheritable
    known = ["cap_" + name for bit, name in enumerate(CAPABILITIES) if every >> bit & 1]
    return "{}={}".format(",".join(known) or hex(every), flags)


def rights(listed: bytes, attribute: Callable[[str], bytes]) -> dict[str, str]:
    """Path -> mode, owner and capabilities, of find's `mode user group path` that have any rights."""
    told = {}
    for entry in listed.split(b"\0")[:-1]:
        mode, user, group, path = os.fsdecode(entry).split(" ", 3)
        try:
            capable = capabilities(attribute(path))
        except (OSError, struct.error, IndexError):
            capable = ""
        if capable or int(mode, 8) & 0o6000:
            told[path] = " ".join(filter(None, (mode, user, group, capable)))
    return told


def privileged() -> dict[str, str]:
    """The programs of the root file system that run with another's rights, or with the kernel's."""
    pruned = [word for place in PRUNED for word in ("-path", place, "-o")][:-1]
    shown = ["-perm", "/6111", "-printf", "%m %u %g %p\\0"]
    argv = ["find", "/", "-xdev", "(", *pruned, ")", "-prune", "-o", "-type", "f", *shown]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=SEARCH)
    return rights(done.stdout, lambda path: os.getxattr(path, "security.capability", follow_symlinks=False))


def sysctl(root: Path) -> dict[str, str]:
    """Kernel parameter -> the value that a boot sets: of files in order of their names, the last one wins."""
    files = {file.name: file for file in found(root, [folder + "/*.conf" for folder in SYSCTL])}
    told = {}
    for name in sorted(files):
        for line in text_of(files[name]).splitlines():
            key, equals, value = line.partition("=")
            if equals and line.strip()[0] not in "#;":
                told[parameter(key)] = " ".join(value.split())
    return told


def parameter(text: str) -> str:
    """`net/ipv4/conf/eth0.1/x` and `-net.ipv4…` in one spelling: with dots between, as sysctl shows them."""
    key = text.strip().lstrip("-").strip()
    first = re.search(r"[./]", key)
    return key.translate(str.maketrans("./", "/.")) if first and first.group() == "/" else key


def kernel_parameters(root: Path, release: str) -> str:
    """The command line of the entry that boots: of the boot loader's files, or else of this boot."""
    entries = [text_of(file) for file in sorted(root.glob("boot/loader/entries/*.conf"))]
    options = [
        "".join(re.findall(r"^options +(.*)$", entry, re.MULTILINE)[:1])
        for entry in entries
        if re.search(rf"^linux .*{re.escape(release)}$", entry, re.MULTILINE)
    ]
    for file in ("boot/grub/grub.cfg", "boot/grub2/grub.cfg"):
        options += re.findall(r"^\s*linux\S*\s+/\S+ +(.*)$", text_of(root / file), re.MULTILINE)[:1]
    return (options or [text_of(root / "proc/cmdline")])[0].strip()


def repositories(root: Path) -> dict[str, str]:
    """Package source or key -> hash of its content."""
    files = [path for path in found(root, REPOSITORIES) if path.is_file()]
    return {
        "/" + str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def os_name(root: Path) -> str:
    """PRETTY_NAME."""
    lines = re.findall(r"^PRETTY_NAME=(.*)$", text_of(root / "etc/os-release"), re.MULTILINE)
    return "".join(lines[:1]).strip("\"'")


def bytes_below(folder: str, device: int, seen: set[tuple[int, int]]) -> int:
    """Bytes of the blocks in a folder; not of other file systems, nor of what was counted before."""
    total, waiting = 0, [folder]
    while waiting:
        path = waiting.pop()
        known = os.lstat(path)
        if known.st_dev != device or (known.st_dev, known.st_ino) in seen:
            continue
        seen.add((known.st_dev, known.st_ino))
        total += known.st_blocks * 512
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
                continue
            one = entry.stat(follow_symlinks=False)
            # The file of a layer below may have another device than its folder.
            if (one.st_dev, one.st_ino) not in seen:
                seen.add((one.st_dev, one.st_ino))
                total += one.st_blocks * 512
    return total


def disk(root: str, places: dict[str, list[str]]) -> dict[str, int]:
    """Bytes of the root file system, and of each place on it. `free` is what a plain user may take."""
    system, device = os.statvfs(root), os.lstat(root).st_dev
    seen: set[tuple[int, int]] = set()
    told = {
        "total": system.f_blocks * system.f_frsize,
        "used": (system.f_blocks - system.f_bfree) * system.f_frsize,
        "free": system.f_bavail * system.f_frsize,
    }
    for name, folders in places.items():
        there = [Path(folder).resolve() for folder in folders if Path(folder).is_dir()]
        told[name] = sum(bytes_below(str(folder), device, seen) for folder in there)
    return told


class Asking:
    """Asks for one field after the other, and keeps the names of those that failed."""

    def __init__(self) -> None:
        self.failed: set[str] = set()

    def ask(self, name: str, nothing: Any, question: Callable[[], Any]) -> Any:
        """The answer; `nothing` where the question fails."""
        try:
            return question()
        except Exception:
            self.failed.add(name)
            return nothing


def facts(root: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Everything about the machine."""
    asking, venvs = Asking(), given["venvs"]
    ask = asking.ask
    release = ask("kernel", "", lambda: installed.kernel(root))
    system = ask("packages", [], lambda: installed.of_system(root))
    known = system + ask("packages", [], lambda: installed.of_python(root, venvs))
    known += ask("packages", [], lambda: installed.programs(root, venvs))
    there = ask("units", {}, lambda: units(output(*LIST_UNITS), given["lease"]))
    programs = ask("setuid", {}, privileged)
    files = unit_files(root, there)
    files.update((path, path) for path in programs)
    kind = system[0]["kind"] if system else ""
    told = {
        "os": ask("os", "", lambda: os_name(root)),
        "kernel": release,
        "kernel_parameters": ask("kernel_parameters", "", lambda: kernel_parameters(root, release)),
        "packages": sorted(map(installed.identity, known), key=lambda one: list(one.values())),
        "held": sorted({one["name"] for one in system if one["held"]}),
        "dependencies": ask("dependencies", {}, lambda: installed.dependencies(system, given["asked"])),
        "versions": ask("versions", {}, lambda: installed.versions(root, venvs, release, known)),
        "users": ask("users", {}, lambda: users(root)),
        "groups": ask("groups", {}, lambda: groups(root)),
        "units": there,
        "ports": ask("ports", {}, lambda: ports(root / "proc")),
        "setuid": programs,
        "owners": ask("owners", {}, lambda: installed.owners(files, kind)),
        "sysctl": ask("sysctl", {}, lambda: sysctl(root)),
        "repositories": ask("repositories", {}, lambda: repositories(root)),
        "sources": ask("sources", [], lambda: sources.of_updates(root, kind)),
        "disk": ask("disk", None, lambda: disk(str(root), given["places"])),
    }
    return {**told, "incomplete": sorted(asking.failed)}


def main() -> None:
    """Print the facts."""
    print(json.dumps(facts(Path("/"), json.load(sys.stdin)), sort_keys=True))


if __name__ == "__main__":
    main()
