"""The base AMI: a stand-in for the Deep Learning AMI, built by mmdebstrap from the host's distribution."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

from bake.errors import BakeError, UsageError
from bake.localcloud import host

PACKAGES = [
    "systemd-sysv",
    "udev",
    "dbus",
    "libnss-myhostname",
    "locales",
    "netbase",
    "iproute2",
    "ca-certificates",
    "curl",
    "sudo",
    "procps",
    "openssh-server",
    "cloud-init",
    "python3",
    "python3-venv",
    "e2fsprogs",
    "util-linux",
    "mount",
    "gpgv",
    "gpg",
    "git",
]
SIZE_GIB = 8

CLOUD = Template("""\
datasource_list: [ Ec2 ]
datasource:
  Ec2:
    strict_id: false
    max_wait: 120
    timeout: 5
network: { config: disabled }
system_info:
${distro}  default_user:
    name: $user
    gecos: $gecos
    lock_passwd: true
    groups: [$groups]
    sudo: ["ALL=(ALL) NOPASSWD:ALL"]
    shell: /bin/bash
# The disk is grown outside and the sources are the host's: see localcloud/machines/disks.py and base.py.
growpart: { mode: "off" }
resize_rootfs: false
apt_preserve_sources_list: true
locale: false
grub_dpkg: { enabled: false }
ssh_genkeytypes: [ed25519]
""")
# Files that make the machine behave as on EC2: path on the image -> content.
FILES = {
    "etc/cloud/cloud.cfg.d/90_ec2.cfg": CLOUD.substitute(
        distro="", user="ubuntu", gecos="Ubuntu", groups="adm, sudo"
    ),
    "etc/cloud/ds-identify.cfg": "policy: enabled\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    "etc/hostname": "localhost\n",
    "etc/fstab": "",
    "etc/default/locale": "LANG=C.UTF-8\n",
    # An AMI has no machine id: each machine gets its own.
    "etc/machine-id": "",
    "etc/motd": "A stand-in for a Deep Learning AMI: a rehearsal machine without a GPU.\n",
}
# Units without meaning in a container, and those that run apt in the background, which would hold its locks.
MASKED = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "systemd-networkd.service",
    "systemd-networkd-wait-online.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "console-getty.service",
    "getty@tty1.service",
    "dpkg-db-backup.timer",
]


@dataclass(frozen=True)
class Base:
    """A base image on disk. `python` is its python3's minor version, like "3.11"; `os` is its pretty name."""

    disk: Path
    image_id: str
    name: str
    python: str
    os: str


def base(cache: Path, say: Callable[[str], None]) -> Base:
    """Return the cached base, or build it (about a minute)."""
    sources = own_sources()
    recipe = json.dumps([PACKAGES, FILES, MASKED, SIZE_GIB, sources, _proxy(), 1], sort_keys=True)
    key = hashlib.sha256(recipe.encode()).hexdigest()
    place = cache / "base" / key[:16]
    if not (place / "base.json").exists():
        started = time.monotonic()
        say("building the base AMI with mmdebstrap (once; about a minute) …")
        _build(place, sources)
        say(f"built the base AMI in {time.monotonic() - started:.0f} s")
    facts = json.loads((place / "base.json").read_text())
    return Base(place / "disk.img", f"ami-{key[:17]}", facts["name"], facts["python"], facts["os"])


def _build(place: Path, sources: list[str]) -> None:
    with building(place) as work:
        root = work / "root"
        install(root, sources, PACKAGES)
        configure(root, FILES)
        facts = {"python": _python(root), "os": os_release(root)["PRETTY_NAME"]}
        system = re.match(r"(\S+).*?([\d.]+)", facts["os"])
        facts["name"] = (
            f"Stand-in for Deep Learning Base AMI ({' '.join(system.groups()) if system else facts['os']})"
        )
        write_disk(root, work / "disk.img")
        (work / "base.json").write_text(json.dumps(facts))


@contextmanager
def building(place: Path) -> Iterator[Path]:
    """A directory to build in, which becomes `place` if the build succeeds."""
    work = place.with_name(f"{place.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    mask = os.umask(0o022)  # whatever the user's is: a machine's users read what is written here
    try:
        work.mkdir(parents=True)
        yield work
        shutil.rmtree(place, ignore_errors=True)
        work.rename(place)
    finally:
        os.umask(mask)


def install(root: Path, sources: list[str], packages: Iterable[str], *options: str) -> None:
    """Install packages of the host's distribution, with their dependencies, in a new tree."""
    listing = root.with_name("sources.list")
    listing.write_text("".join(f"{line}\n" for line in sources))
    # In namespaces of its own, so that an interrupted build leaves no process and no mount behind.
    host.run(
        "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
        "mmdebstrap", "--variant=minbase", "--mode=root", f"--include={','.join(packages)}",
        *(f"--aptopt={line}" for line in _proxy()), *options, _codename(), root, listing, timeout=1800,
    )  # fmt: skip
    if proxy := _proxy():
        (root / "etc/apt/apt.conf.d/90proxy").write_text("".join(f"{line};\n" for line in proxy))


def configure(root: Path, files: Mapping[str, str]) -> None:
    """Write files (path -> content), mask units, and remove the machine's identity."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(content, encoding="utf-8")
    for unit in MASKED:
        path = root / "etc/systemd/system" / unit
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/null")
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    for left in ("var/lib/dbus/machine-id", "etc/resolv.conf"):
        (root / left).unlink(missing_ok=True)


def write_disk(root: Path, disk: Path) -> None:
    """Move a tree to a new disk of SIZE_GIB."""
    with disk.open("wb") as file:
        file.truncate(SIZE_GIB << 30)
    host.run(
        "mkfs.ext4", "-q", "-F", "-L", "cloudimg-rootfs", "-E", "lazy_itable_init=1,lazy_journal_init=1",
        "-d", root, disk, timeout=600,
    )  # fmt: skip
    shutil.rmtree(root)


def _python(root: Path) -> str:
    target = (root / "usr/bin/python3").readlink().name
    version = target.removeprefix("python")
    if tuple(map(int, version.split("."))) < (3, 11):
        raise UsageError(
            f"this system's python3 is {version}; the worker needs 3.11 or newer on the base AMI",
            hint="rehearse on Debian 12, Ubuntu 24.04 or newer",
        )
    return version


def os_release(root: Path) -> dict[str, str]:
    """The fields of a tree's os-release."""
    lines = (root / "etc/os-release").read_text(encoding="utf-8", errors="replace").splitlines()
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines) if key}


def _codename() -> str:
    release = os_release(Path("/"))
    codename = release.get("VERSION_CODENAME")
    if release.get("ID") not in {"debian", "ubuntu"} or not codename:
        raise UsageError(
            f"the local cloud builds its machines from the host's own distribution, and "
            f"{release.get('PRETTY_NAME', 'this one')} is neither Debian nor Ubuntu",
            hint="rehearse on Debian 12, Ubuntu 24.04 or newer",
        )
    return codename


def _proxy() -> list[str]:
    """The host's apt proxy settings, as apt.conf lines without the semicolon."""
    dump = host.run("apt-config", "dump", "--format", '%f "%v"%n')
    return sorted(
        line for line in dump.splitlines() if re.match(r"Acquire::https?::Proxy(::\S+)? \"..", line)
    )


def package_servers(lines: Iterable[str] | None = None) -> set[tuple[str, int]]:
    """IPv4 addresses and ports of package sources that this host can resolve without the network.

    `lines` are apt's of sources and proxies, this host's own if left out.
    """
    found = set()
    for url in map(urlsplit, package_urls(lines)):
        told = host.run("getent", "--service=files", "ahostsv4", url.hostname or "", check=False)
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        found |= {(line.split()[0], port) for line in told.splitlines()}
    return found


def package_urls(lines: Iterable[str] | None = None) -> list[str]:
    """The URLs of package sources and proxies in apt's `lines`, this host's own if left out."""
    text = "\n".join([*own_sources(), *_proxy()] if lines is None else lines)
    return re.findall(r"https?://[^\s\"]+", text)


def own_sources(etc_apt: Path = Path("/etc/apt")) -> list[str]:
    """The host's sources of its own distribution, in one-line form; third parties' are left out."""
    codename = _codename()
    files = [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*"))]
    lines = []
    for path in files:
        if path.suffix == ".sources":
            lines += [
                line
                for stanza in _stanzas(path.read_text(encoding="utf-8", errors="replace"))
                for line in _one_line(stanza)
            ]
        elif path.suffix == ".list" and path.exists():
            lines += [
                line.strip()
                for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
                if line.startswith("deb ")
            ]
    own = re.compile(rf"\s{codename}(-(updates|security|backports))?\s")
    found = list(dict.fromkeys(line for line in lines if own.search(line)))
    if not found:
        raise BakeError(
            f"no apt sources for {codename} in {etc_apt}",
            hint="the base AMI is made from the host's apt sources",
        )
    return found


def _stanzas(text: str) -> list[dict[str, str]]:
    """Parse deb822: stanzas apart by blank lines, values may go on in indented lines."""
    stanzas = []
    for block in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0].isspace():
                fields[name] += f" {line.strip()}"
            else:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        stanzas.append(fields)
    return stanzas


def _one_line(stanza: dict[str, str]) -> list[str]:
    if "deb" not in stanza.get("types", "").split() or stanza.get("enabled", "yes") == "no":
        return []
    key = stanza.get("signed-by", "")
    option = f"[signed-by={key}] " if key.startswith("/") else ""
    return [
        f"deb {option}{uri} {suite} {stanza.get('components', '')}".strip()
        for uri in stanza["uris"].split()
        for suite in stanza["suites"].split()
    ]
