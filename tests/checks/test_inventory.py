"""What a machine holds, as its own files and commands say it."""

from __future__ import annotations

import importlib
import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from bake.checks import inventory
from bake.checks.inventory import ANSWERS, take
from bake.checks.probes import MODULES, probe
from bake.ssh import CommandResult

if TYPE_CHECKING:
    from tests.conftest import NewMachine

PROBES = "bake.checks.probes"


@pytest.fixture
def installed() -> ModuleType:
    return importlib.import_module(f"{PROBES}.installed")


@pytest.fixture
def machine(installed: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program, with the modules that are sent with it."""
    monkeypatch.setitem(sys.modules, "installed", installed)
    monkeypatch.setitem(sys.modules, "sources", importlib.import_module(f"{PROBES}.sources"))
    yield importlib.import_module(f"{PROBES}.inventory")
    for name in ("inventory", "sources"):
        sys.modules.pop(f"{PROBES}.{name}")


def put(root: Path, name: str, text: str = "") -> Path:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


# Packages


def deb(
    name: str, needs: str = "", provides: str = "", *, status: str = "installed", want: str = "install"
) -> str:
    return f"{status}\t{want}\t{name}\t1:2.0-1\tamd64\t{name}-source 2.0-1\t, {needs}\t{provides}\r"


def test_the_packages_of_dpkg(installed: ModuleType) -> None:
    told = deb("git", "libc6 (>= 2.34), perl:any | perl-lite,\n libcurl3") + deb(
        "gone", status="config-files"
    )
    found = installed.debs(told + deb("linux-aws", want="hold"))
    assert [one["name"] for one in found] == ["git", "linux-aws"]
    assert installed.identity(found[0]) == {
        "kind": "deb", "name": "git", "version": "1:2.0-1", "arch": "amd64", "where": "",
        "source": "git-source 2.0-1",
    }  # fmt: skip
    assert found[0]["needs"] == ["libc6", "perl", "perl-lite", "libcurl3"]
    assert [one["held"] for one in found] == [False, True]


def test_the_packages_of_rpm(installed: ModuleType) -> None:
    told = "kernel\t6.1.1-2\tx86_64\tkernel-6.1.1-2.src.rpm\tbash,coreutils,\tkernel,\n"
    told += "gpg-pubkey\t1-2\t(none)\t(none)\t\tgpg(x),\n"
    held = installed.excluded("[main]\nexclude=kernel nvidia-open,cuda\ngpgcheck=1\n")
    assert held == ["kernel", "nvidia-open", "cuda"]
    found = installed.rpms(told, held)
    assert [(one["name"], one["arch"], one["held"], one["source"], one["needs"]) for one in found] == [
        ("kernel", "x86_64", True, "kernel-6.1.1-2.src.rpm", ["bash", "coreutils"]),
        ("gpg-pubkey", "", False, "", []),
    ]


def test_a_dependency_names_the_package_that_the_bake_asks_for(installed: ModuleType) -> None:
    told = [deb("git", "perl"), deb("perl", "base-virtual"), deb("base", "", "base-virtual"), deb("other")]
    known = installed.debs("".join(told))
    assert installed.dependencies(known, ["gi*"]) == {"perl": "git", "base": "git"}
    assert installed.dependencies(known, ["git", "perl"]) == {"base": "perl"}
    assert installed.dependencies(known, []) == {}


def test_python_packages_are_read_and_not_started(installed: ModuleType, tmp_path: Path) -> None:
    site = "opt/w/venv/lib/python3.11/site-packages"
    put(
        tmp_path,
        f"{site}/torch-2.dist-info/METADATA",
        "Metadata-Version: 2.4\nName: torch\nVersion: 2.13.0\n\nName: x\n",
    )
    put(tmp_path, f"{site}/torch/__init__.py", "raise SystemExit('started')")
    put(tmp_path, f"{site}/torch/version.py", "cuda: Optional[str] = '13.0'\nhip = None\n")
    put(tmp_path, f"{site}/broken-1.dist-info/RECORD")
    put(tmp_path, "usr/lib/python3/dist-packages/apt-1.egg-info", "Name: python-apt\nVersion: 2.4\n")
    put(tmp_path, "opt/w/venv/pyvenv.cfg", "home = /opt/w/python/3.11/bin\nversion_info = 3.11.9\n")
    found = installed.of_python(tmp_path, ["/opt/w/venv", "/opt/nowhere"])
    assert [(one["name"], one["version"], one["where"]) for one in found] == [
        ("torch", "2.13.0", "/opt/w/venv"),
        ("python-apt", "2.4", "/usr/lib/python3/dist-packages"),
    ]
    assert installed.programs(tmp_path, ["/opt/w/venv"]) == [
        installed.program("cpython", "3.11.9", "/opt/w/python/3.11")
    ]
    told = installed.versions(tmp_path, ["/opt/w/venv"], "6.8.0", found)
    assert {name: told[name] for name in ("torch", "cuda", "python", "kernel")} == {
        "torch": "2.13.0", "cuda": "13.0", "python": "3.11.9", "kernel": "6.8.0",
    }  # fmt: skip


def test_a_lib64_that_leads_to_lib_is_no_second_folder(installed: ModuleType, tmp_path: Path) -> None:
    put(tmp_path, "usr/lib/python3.9/site-packages/a-1.dist-info/METADATA", "Name: a\nVersion: 1\n")
    (tmp_path / "usr/lib64").symlink_to("lib")
    assert len(installed.of_python(tmp_path, [])) == 1


def test_a_snap_is_a_program(installed: ModuleType, tmp_path: Path) -> None:
    put(tmp_path, "snap/amazon-ssm-agent/9565/meta/snap.yaml", "name: amazon-ssm-agent\nversion: '3.3.1'\n")
    (tmp_path / "snap/amazon-ssm-agent/current").symlink_to("9565")
    assert installed.programs(tmp_path, []) == [
        installed.program("amazon-ssm-agent", "3.3.1", "/snap/amazon-ssm-agent")
    ]


def test_the_kernel_is_the_newest_by_version(installed: ModuleType, tmp_path: Path) -> None:
    for release in ("6.8.0-9-aws", "6.8.0-1021-aws", "6.5.0-1099-aws"):
        put(tmp_path, f"boot/vmlinuz-{release}")
    assert installed.kernel(tmp_path) == "6.8.0-1021-aws"
    assert installed.kernel(tmp_path / "nowhere") == os.uname().release


@pytest.mark.parametrize(
    ("package", "version"),
    [("nvidia-open", "580.95.05"), ("nvidia-driver-535-server", "580.95.05"), ("nvidia-utils", "")],
)
def test_without_a_module_the_driver_is_the_packages(
    installed: ModuleType, package: str, version: str
) -> None:
    known = [{"kind": "deb", "name": package, "version": "1:580.95.05-0ubuntu1"}]
    assert installed.driver("0.0.0-none", known) == version


# Users, units, ports


def test_users_and_groups(machine: ModuleType, tmp_path: Path) -> None:
    put(tmp_path, "etc/passwd", "root:x:0:0:root:/root:/bin/bash\n# no\nbroken\n")
    put(tmp_path, "etc/group", "adm:x:4:syslog,alice\nroot:x:0:\n")
    assert machine.users(tmp_path) == {"root": "0 0 /root /bin/bash"}
    assert machine.groups(tmp_path) == {"adm": "4 alice syslog", "root": "0"}


def test_units_without_the_builders_own(machine: ModuleType) -> None:
    told = "ssh.service enabled enabled\nrun-u1.service transient -\n"
    told += "bake-lease.timer static -\nx.mount generated -\n"
    assert machine.units(told, "bake-lease") == {"ssh.service": "enabled", "x.mount": "generated"}


def test_ports_that_listen_and_who_has_them_open(machine: ModuleType) -> None:
    head = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    )
    row = "   0: {} 00000000:0000 {} 00000000:00000000 00:00000000 00000000     0        0 {} 1\n"
    tables = {
        "tcp": head + row.format("0100007F:0016", "0A", 11) + row.format("0100007F:1F90", "01", 12),
        "tcp6": head + row.format("0" * 32 + ":0016", "0A", 13),
        "udp": head + row.format("00000000:9C40", "07", 14) + row.format("00000000:0044", "07", 15),
    }
    found = machine.listening(tables, {"11": "sshd", "15": "dhclient"}, range(32768, 61000))
    assert found == {
        "tcp 127.0.0.1:22": "sshd",
        "tcp [::]:22": "",
        "udp 0.0.0.0:any": "",
        "udp 0.0.0.0:68": "dhclient",
    }


# Files and settings


def capability(*, permitted: int = 0, inheritable: int = 0, effective: bool = True) -> bytes:
    return struct.pack("<5I", 0x02000000 | effective, permitted, inheritable, 0, 0)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (capability(permitted=1 << 13), "cap_net_raw=ep"),
        (capability(permitted=1 << 10 | 1 << 12, effective=False), "cap_net_bind_service,cap_net_admin=p"),
        (struct.pack("<6I", 0x03000001, 0, 0, 1 << 7, 0, 0), "cap_bpf=ep"),
    ],
)
def test_capabilities_are_shown_as_getcap_shows_them(machine: ModuleType, value: bytes, shown: str) -> None:
    assert machine.capabilities(value) == shown


def test_programs_with_rights_are_those_with_a_bit_or_an_attribute(machine: ModuleType) -> None:
    def attribute(path: str) -> bytes:
        if path == "/usr/bin/ping":
            return capability(permitted=1 << 13)
        raise OSError

    listed = (
        b"4755 root root /usr/bin/su do\n\x00755 root root /usr/bin/ls\x00755 root root /usr/bin/ping\x00"
    )
    assert machine.rights(listed, attribute) == {
        "/usr/bin/su do\n": "4755 root root",
        "/usr/bin/ping": "755 root root cap_net_raw=ep",
    }


def test_sysctl_files_as_systemd_reads_them(machine: ModuleType, tmp_path: Path) -> None:
    put(
        tmp_path,
        "usr/lib/sysctl.d/50-default.conf",
        "# a\n; b\nkernel.sysrq = 16\n-net.core.default_qdisc=fq\n\n",
    )
    put(tmp_path, "usr/lib/sysctl.d/90-late.conf", "kernel.sysrq = 1\nvm.swappiness=60\n")
    put(tmp_path, "etc/sysctl.d/10-early.conf", "kernel.sysrq = 0\nnet/ipv4/conf/eth0.1/rp_filter = 1  2\n")
    (tmp_path / "etc/sysctl.d/50-default.conf").symlink_to("/dev/null")
    put(tmp_path, "etc/sysctl.conf", "vm.swappiness=10\nkernel.pid_max=1\n")
    assert machine.sysctl(tmp_path) == {
        "kernel.sysrq": "1",
        "vm.swappiness": "60",
        "net.ipv4.conf.eth0/1.rp_filter": "1 2",
    }
    (tmp_path / "etc/sysctl.d/99-sysctl.conf").symlink_to("../sysctl.conf")
    assert machine.sysctl(tmp_path)["vm.swappiness"] == "10"


def test_the_command_line_of_the_entry_that_boots(machine: ModuleType, tmp_path: Path) -> None:
    put(tmp_path, "proc/cmdline", "BOOT_IMAGE=/x now\n")
    assert machine.kernel_parameters(tmp_path, "6.8") == "BOOT_IMAGE=/x now"
    put(
        tmp_path,
        "boot/grub/grub.cfg",
        "menuentry {\n\tlinux\t/boot/vmlinuz-6.8 root=PARTUUID=1 ro\n}\nlinux /y z\n",
    )
    assert machine.kernel_parameters(tmp_path, "6.8") == "root=PARTUUID=1 ro"
    put(tmp_path, "boot/loader/entries/a.conf", "linux /boot/vmlinuz-6.1\noptions old\n")
    put(
        tmp_path,
        "boot/loader/entries/b.conf",
        "title x\nlinux /boot/vmlinuz-6.8\noptions root=UUID=2 quiet\n",
    )
    assert machine.kernel_parameters(tmp_path, "6.8") == "root=UUID=2 quiet"


def test_package_sources_are_hashed_and_never_shown(machine: ModuleType, tmp_path: Path) -> None:
    put(tmp_path, "etc/apt/sources.list.d/x.list", "deb https://user:pa55word@example.com / #\n")
    put(tmp_path, "etc/apt/sources.list.d/x.list.old", "deb\n")
    put(tmp_path, "etc/yum.repos.d/y.repo", "[y]\n")
    found = machine.repositories(tmp_path)
    assert list(found) == ["/etc/apt/sources.list.d/x.list", "/etc/yum.repos.d/y.repo"]
    assert all(len(digest) == 64 for digest in found.values())


def test_bytes_count_once_and_for_the_first_place(machine: ModuleType, tmp_path: Path) -> None:
    big = put(tmp_path, "worker/int8/big", "x" * 100_000)
    os.link(big, tmp_path / "worker/again")
    (tmp_path / "worker/link").symlink_to(big)
    small = put(tmp_path, "worker/small", "x" * 5000)
    places = {"int8": [str(tmp_path / "worker/int8")], "environment": [str(tmp_path / "worker")]}
    found = machine.disk(str(tmp_path), {**places, "weights": [str(tmp_path / "nowhere")]})
    assert found["int8"] >= 100_000
    assert 5000 <= found["environment"] < 100_000
    assert found["weights"] == 0
    assert found["total"] > found["used"] > 0
    assert small.stat().st_blocks


# All of it


def test_what_fails_is_named_and_fails_nothing_else(
    machine: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("gone")

    for name in ("sysctl", "privileged", "output"):
        monkeypatch.setattr(machine, name, broken)
    put(tmp_path, "etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
    given = {"venvs": [], "asked": [], "lease": "bake-lease", "places": {}}
    found = machine.facts(tmp_path, given)
    assert {"sysctl", "setuid", "units"} <= set(found["incomplete"])
    assert found["users"] == {"root": "0 0 /root /bin/bash"}
    assert found["sysctl"] == {}


class Session:
    """A machine that answers the same whatever runs there."""

    def __init__(self, stdout: str, code: int = 0) -> None:
        self._result = CommandResult((), code, stdout, "", 0.0)

    def run(self, *_: str, **__: Any) -> CommandResult:
        return self._result


@pytest.mark.parametrize(
    "session",
    [Session("", 137), Session("no JSON"), Session('{"users": 3}')],
    ids=["too late", "no facts", "other facts"],
)
def test_no_answer_is_an_inventory_of_nothing(session: Any) -> None:
    found, disk = take(session, "base", cache="/c")
    assert set(found.incomplete) == ANSWERS
    assert disk == inventory.Disk()


def test_an_answer_in_part_names_what_is_missing() -> None:
    answer: dict[str, Any] = {name: {} for name in ANSWERS - {"sysctl"}}
    answer |= {"kernel": "6", "os": "x", "packages": [], "held": [], "sources": []}
    answer |= {"kernel_parameters": "", "incomplete": ["ports"], "disk": {"total": 1}}
    found, disk = take(Session(json.dumps(answer)), "sealed", cache="/c")  # type: ignore[arg-type]
    assert (found.moment, found.incomplete) == ("sealed", ("ports", "sysctl"))
    assert disk.total == 1


def test_the_modules_of_a_probe_are_sent_with_it() -> None:
    for name, modules in MODULES.items():
        assert [module for module, _, _ in probe(name).modules] == [*modules, "__main__"]


@pytest.mark.root
@pytest.mark.parametrize(
    ("profile", "kind", "user"), [("g6e-ubuntu", "deb", "ubuntu"), ("g6e-amazon-linux", "rpm", "ec2-user")]
)
def test_of_a_machine(new_machine: NewMachine, profile: str, kind: str, user: str) -> None:
    """A builder before anything is written to it: everything is recorded, and twice the same."""
    with new_machine(profile) as builder:
        cache = builder.plan.weights.cache
        found, disk = take(builder.session, "base", cache=cache, asked=["git"])
        again, _ = take(builder.session, "base", cache=cache, asked=["git"])
    assert found.incomplete == ()
    assert {one.kind for one in found.packages} >= {kind, "python"}
    assert found.users[user].endswith("/bin/bash")
    assert found.units[{"deb": "ssh.service", "rpm": "sshd.service"}[kind]] in ("enabled", "alias")
    assert found.ports["tcp 0.0.0.0:22"] == "sshd"
    assert "/usr/bin/sudo" in found.setuid
    assert found.owners["/usr/bin/sudo"] == "sudo"
    assert found.dependencies
    assert found.repositories
    assert found.versions["system python"]
    assert not [name for name in found.units if name.startswith("bake")]
    assert (disk.total or 0) > (disk.used or 0) > 0
    assert found == again
