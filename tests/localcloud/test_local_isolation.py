"""What a machine's root may do to the host: nothing, whatever it puts on its disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bake.errors import BakeError, UsageError
from bake.localcloud import host
from bake.localcloud.lifecycle import cloud as localcloud
from bake.localcloud.lifecycle.local_cloud import LocalCloud
from bake.localcloud.lifecycle.prepared import Prepared
from bake.localcloud.machines import disks, isolation, rooted_files
from bake.localcloud.machines.cgroups import Cgroups
from bake.localcloud.machines.nspawn import Hardware, Machine
from bake.localcloud.settings import Settings
from bake.ssh import Session, connect

pytestmark = pytest.mark.root

NOBODY = 65534


@pytest.fixture(scope="module")
def session(account: Any) -> Iterator[Session]:
    machine = account.launch()
    with connect(machine.login) as session:
        yield session
    account.terminate(machine.id)


def daemon(settings: Settings) -> Path:
    """What /proc has of the cloud that is up."""
    return Path("/proc") / str(json.loads((settings.state / "cloud.json").read_text())["pid"])


@pytest.mark.parametrize(
    ("command", "why"),
    [
        pytest.param("mknod /dev/shm/disk b 7 0", "not permitted", id="device node"),
        pytest.param("sh -c 'echo x >/proc/sys/kernel/core_pattern'", "Read-only", id="core_pattern"),
        pytest.param("sysctl -w kernel.panic=1", "Read-only|permission denied", id="sysctl"),
        pytest.param("dmesg", "not permitted", id="kernel log"),
        pytest.param("ip link set eth0 down", "not permitted", id="network"),
        pytest.param("losetup --find --show /etc/hostname", "No such|not permitted|cannot find", id="loop"),
        pytest.param("nsenter --target 1 --net=/proc/1/ns/net unshare --fork --mount-proc -p -i sysctl -w "
                     "kernel.panic=1", "Read-only|permission denied", id="namespaces"),
        # It may do this to its own view; what is written is the host's root's all the same.
        pytest.param("sh -c 'mount -o remount,rw,bind /proc/sys; echo x >/proc/sys/kernel/core_pattern'",
                     "Permission denied", id="remount"),
    ],
)  # fmt: skip
def test_a_machines_root_is_not_the_hosts(session: Session, command: str, why: str) -> None:
    done = session.run_shell(f"sudo {command}")
    assert done.exit_code != 0
    assert any(word.lower() in done.stderr.lower() for word in why.split("|")), done.stderr


def test_its_files_are_its_roots_and_its_root_is_nobody_here(session: Session, cloud: LocalCloud) -> None:
    assert session.run("stat", "-c", "%u", "/etc/passwd").stdout == "0\n"
    inside, here, count = session.run("cat", "/proc/self/uid_map").stdout.split()
    assert (int(inside), int(count)) == (0, 65536)
    assert int(here) >= 65536


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("sudo -u nobody /usr/sbin/fstrim /", id="no root"),
        pytest.param("unshare --user --map-root-user /usr/sbin/fstrim /", id="root of a namespace below"),
        pytest.param("sudo /usr/sbin/fstrim /dev/shm", id="no disk of its own"),
    ],
)
def test_who_may_not_trim_is_refused(session: Session, command: str) -> None:
    done = session.run_shell(command)
    assert done.exit_code != 0
    assert done.stderr.startswith("fstrim: ")


def test_trimming_answers_with_what_was_freed(session: Session) -> None:
    session.run_shell("sudo dd if=/dev/urandom of=/big bs=1M count=64 conv=fsync && sudo rm /big && sync")
    freed = session.run("fstrim", "--verbose", "/", sudo=True).stdout
    assert int(freed.split("(")[1].split()[0]) >= 64 << 20
    again = session.run("fstrim", "--verbose", "/", sudo=True).stdout
    assert int(again.split("(")[1].split()[0]) < 64 << 20


def test_the_daemon_knows_nothing_of_the_users(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"HF_TOKEN": "hf_canary", "AWS_SECRET_ACCESS_KEY": "canary", "HTTPS_PROXY": "http://u:canary@p:1"}
    for name, value in {**told, "GITHUB_TOKEN": "canary", "SSH_AUTH_SOCK": "/canary"}.items():
        monkeypatch.setenv(name, value)
    localcloud.up()
    environment = (daemon(own) / "environ").read_bytes()
    assert b"canary" not in environment
    assert b"BAKE_LOCAL_NETWORK" in environment


def test_its_state_is_roots_alone(own: Settings) -> None:
    own.state.mkdir(mode=0o777)
    own.state.chmod(0o777)
    localcloud.up()
    assert own.state.stat().st_mode & 0o777 == 0o700


def test_a_state_of_somebody_else_is_refused(own: Settings) -> None:
    own.state.mkdir()
    os.chown(own.state, NOBODY, NOBODY)
    try:
        with pytest.raises(UsageError, match="belongs to another user") as refused:
            localcloud.up()
        assert "BAKE_LOCAL_STATE" in (refused.value.hint or "")
    finally:
        os.chown(own.state, 0, 0)


def test_a_machine_whose_nspawn_is_killed_is_gone(account: Any, cloud_settings: Settings) -> None:
    machine = account.launch()
    account.reach(machine.id, "running")
    marker = f"--machine={machine.id}".encode()
    [nspawn] = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists() and marker in path.read_bytes().split(b"\0")
    ]
    os.kill(nspawn, signal.SIGKILL)
    account.reach(machine.id, "stopped")
    assert Cgroups(cloud_settings, machine.id).left() == []
    account.terminate(machine.id)


# --- hosts that can't map ids ----------------------------------------------------------------------------


@pytest.fixture
def old_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose systemd knows no mapped ids: a real command, found first on the PATH."""
    programs = tmp_path / "programs"
    programs.mkdir()
    nspawn = programs / "systemd-nspawn"
    nspawn.write_text("#!/bin/sh\necho 'systemd-nspawn: unrecognized option' >&2\nexit 1\n")
    nspawn.chmod(0o755)
    monkeypatch.setattr(host, "_PATH", f"{programs}:{host._PATH}")


def test_a_host_that_cant_map_ids_is_refused(own: Settings, old_host: None) -> None:
    with pytest.raises(UsageError, match="unrecognized option") as refused:
        localcloud.up()
    assert "--trust-guests" in (refused.value.hint or "")
    assert not own.control.exists()


def test_with_leave_it_goes_on_and_says_so(own: Settings, old_host: None, account_of: Any) -> None:
    said: list[str] = []
    cloud = localcloud.up(trust_guests=True, say=said.append)
    assert any("--trust-guests" in line for line in said)
    assert any("root is this host's root" in line for line in cloud.differences)
    machine = account_of(cloud).launch()
    with connect(machine.login) as session:
        assert session.run("cat", "/proc/self/uid_map").stdout.split()[:2] == ["0", "0"]
        session.run("fstrim", "/", sudo=True)
    with pytest.raises(UsageError, match="trusts its machines") as refused:
        localcloud.up()
    assert "bake local down" in (refused.value.hint or "")
    assert localcloud.up(trust_guests=True) == cloud


def test_a_host_that_can_never_trusts(own: Settings) -> None:
    cloud = localcloud.up(trust_guests=True)
    assert not any("root is this host's root" in line for line in cloud.differences)
    assert localcloud.up() == cloud


def test_the_trial_leaves_nothing(own: Settings) -> None:
    def host_has() -> tuple[str, str]:
        mounts = Path("/proc/self/mountinfo").read_text()
        return mounts, subprocess.run(["losetup", "--list"], capture_output=True, text=True).stdout

    before = host_has()
    assert isolation.problem(own) is None
    assert host_has() == before
    assert Cgroups(own).left() == []


# --- a hostile disk --------------------------------------------------------------------------------------


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A folder of the host's that a link on a disk leads to."""
    folder = tmp_path / "canary"
    folder.mkdir()
    for name in ("resolv.conf", "machine-id", "os-release", "file"):
        (folder / name).write_text("the host's own\n")
    return folder


def content(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def seen(folder: Path) -> dict[str, tuple[int, int, str]]:
    """What is in it."""
    return {
        str(path.relative_to(folder)): (
            facts.st_mtime_ns,
            facts.st_mode,
            path.read_text() if path.is_file() else "",
        )
        for path in sorted([folder, *folder.rglob("*")])
        if (facts := path.lstat())
    }


@contextmanager
def hostile(cloud: LocalCloud, settings: Settings, link: str, target: Path) -> Iterator[Machine]:
    """A machine whose disk has a link to the host's `target` at the path `link`."""
    machine = Machine(settings, "i-hostile", Hardware(str(settings.subnet[-2]), "02:00:00:00:00:fc", 1 << 30))
    machine.directory.mkdir(parents=True)
    disks.clone(Prepared.load(settings.state / "prepared.json").base.disk, machine.disk)
    disks.mount(machine.disk, machine.root)
    try:
        path = machine.root / link
        if path.is_dir() and not path.is_symlink():
            # As root of the machine would: what is there stays in use, by another name.
            path.rename(path.with_name(f"{path.name}.real"))
        else:
            path.unlink(missing_ok=True)
        path.symlink_to(target)
    finally:
        disks.unmount(machine.root)
    try:
        yield machine
    finally:
        machine.kill()
        machine.unplug()
        shutil.rmtree(machine.directory)


@pytest.mark.parametrize(
    "link",
    [
        *("etc", "etc/resolv.conf", "etc/machine-id", "etc/os-release", "etc/hostname", "etc/localtime"),
        *("usr", "usr/lib", "usr/lib/os-release", "dev", "proc", "sys", "run", "tmp", "var", "root"),
    ],
)
def test_links_on_a_disk_lead_nowhere_on_the_host(
    link: str, canary: Path, cloud: LocalCloud, cloud_settings: Settings
) -> None:
    folder = not link.endswith(("resolv.conf", "machine-id", "os-release", "hostname", "localtime"))
    before = seen(canary)
    with hostile(cloud, cloud_settings, link, canary if folder else canary / "resolv.conf") as machine:
        try:
            machine.start()
        except BakeError as error:  # it can't boot so, which is its own affair
            why, _, where = str(error).partition(" at ")
            assert why == f"the disk of {machine.name} can't be booted: links lead out of it"
            assert link in where.split(", ")
        else:
            machine.poweroff()
            machine.wait()
    assert seen(canary) == before


def test_a_file_beneath_a_root_replaces_a_link(tmp_path: Path, canary: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/resolv.conf").symlink_to(canary / "resolv.conf")
    rooted_files.replace(root, "etc/resolv.conf", "mine\n")
    assert (root / "etc/resolv.conf").read_text() == "mine\n"
    assert (canary / "resolv.conf").read_text() == "the host's own\n"


@pytest.mark.parametrize(
    "target", ["/real", "../../../../real", "real"], ids=["absolute", "above", "relative"]
)
def test_a_linked_folder_is_looked_for_beneath_the_root(tmp_path: Path, target: str) -> None:
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "etc").symlink_to(target)
    rooted_files.replace(root, "etc/resolv.conf", "mine\n")
    assert (root / "real/resolv.conf").read_text() == "mine\n"


def test_links_that_stay_on_the_disk_may_be(tmp_path: Path) -> None:
    (tmp_path / "var/run").mkdir(parents=True)
    (tmp_path / "run").symlink_to("var/run")
    (tmp_path / "mnt").symlink_to("/var")
    (tmp_path / "dead").symlink_to("/nowhere/at/all")
    assert rooted_files.leading_out(tmp_path, ["run", "var", "missing", "dead"]) == []
    assert rooted_files.leading_out(tmp_path, ["run", "mnt", "mnt/run"]) == ["mnt", "mnt/run"]


def test_where_there_is_no_folder_nothing_is_written(tmp_path: Path, canary: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "etc").symlink_to(canary)  # which leads to root/tmp/…/canary, and that is not there
    before = seen(canary)
    with pytest.raises(FileNotFoundError):
        rooted_files.replace(root, "etc/resolv.conf", "mine\n")
    assert seen(canary) == before
