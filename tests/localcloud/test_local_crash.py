"""Whatever happens to the local cloud's process, nothing of it stays on the machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bake.errors import UsageError
from bake.localcloud.lifecycle import cloud as localcloud
from bake.localcloud.lifecycle.sweep import leftovers, sweep
from bake.localcloud.network.control import over_socket
from bake.localcloud.settings import Settings

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[2]


def process_of(settings: Settings) -> int:
    """The process of the cloud that is up."""
    return int(json.loads((settings.state / "cloud.json").read_text())["pid"])


def test_down_removes_all_after_a_kill(own: Settings, account_of: Any) -> None:
    account = account_of(localcloud.up())
    machine = account.launch()
    account.reach(machine.id, "running")
    found = " ".join(leftovers(own))
    for kind in ("process", "mount", "loop device", "control group", "interface", "nftables"):
        assert kind in found
    os.kill(process_of(own), signal.SIGKILL)
    account.wait("the daemon's end", lambda: True if localcloud.current() is None else None)
    assert localcloud.status() is None
    said: list[str] = []
    localcloud.down(said.append)
    assert leftovers(own) == []
    assert any("interface" in line for line in said)
    assert list(own.instances.iterdir()) == []
    assert not (Path("/run/bake/kernel") / own.tag).exists()


def test_a_killed_owner_takes_its_cloud_along(own: Settings, account_of: Any) -> None:
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    account = account_of(localcloud.up(owner_pid=owner.pid))
    machine = account.launch()
    account.reach(machine.id, "running")
    owner.kill()
    owner.wait()
    account.wait("the end of the cloud", lambda: None if leftovers(own) else True)
    assert not (own.state / "cloud.json").exists()
    assert not (own.state / "credentials.json").exists()


def test_each_cloud_has_keys_of_its_own_and_takes_them_with_it(own: Settings) -> None:
    """Also one that crashed."""
    file = own.state / "credentials.json"
    first = localcloud.up().keys
    assert localcloud.up().keys == first
    os.kill(process_of(own), signal.SIGKILL)
    second = localcloud.up().keys
    assert second.id != first.id and second.secret != first.secret
    os.kill(process_of(own), signal.SIGKILL)
    assert file.exists()
    localcloud.down()
    assert not file.exists()
    localcloud.up()
    localcloud.down()
    assert not file.exists()


def test_a_cloud_that_is_up_is_used_and_stays(own: Settings) -> None:
    first = localcloud.up()
    with localcloud.running() as second:
        assert second == first
    status = localcloud.status()
    assert status is not None
    assert status.endpoint == first.endpoint


def test_a_cloud_that_answers_late_is_not_taken_for_a_dead_one(own: Settings) -> None:
    first, pid = localcloud.up(), process_of(own)
    os.kill(pid, signal.SIGSTOP)
    going_on = threading.Timer(7, os.kill, (pid, signal.SIGCONT))
    going_on.start()
    try:
        assert localcloud.up() == first
        assert process_of(own) == pid
    finally:
        going_on.join()


def test_a_cloud_on_its_way_down_is_not_joined(own: Settings) -> None:
    localcloud.up(owner_pid=os.getpid())
    left = process_of(own)
    assert over_socket(own)("DELETE", f"/-/owners?pid={os.getpid()}", None)["last"]
    localcloud.up()
    assert process_of(own) != left
    assert localcloud.status() is not None


def test_another_clouds_network_is_refused_and_left_alone(
    own: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    localcloud.up()
    before = leftovers(own)
    with monkeypatch.context() as other:
        other.setenv("BAKE_LOCAL_STATE", str(tmp_path / "other"))
        with pytest.raises(UsageError, match="belongs to a local cloud that is up") as refused:
            localcloud.up()
        assert "BAKE_LOCAL_NETWORK" in (refused.value.hint or "")
        sweep(Settings.load())
    assert leftovers(own) == before


def test_a_network_of_the_hosts_is_refused(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["ip", "link", "add", "bake-test0", "type", "bridge"], check=True)
    try:
        address = str(own.network[9])
        subprocess.run(["ip", "addr", "add", f"{address}/28", "dev", "bake-test0"], check=True)
        subprocess.run(["ip", "link", "set", "bake-test0", "up"], check=True)
        with pytest.raises(UsageError, match="bake-test0"):
            localcloud.up()
    finally:
        subprocess.run(["ip", "link", "del", "bake-test0"], check=True)
    assert leftovers(own) == []


def test_two_at_once_bring_up_one_cloud(own: Settings) -> None:
    code = "from bake import localcloud; print(localcloud.up().environment['BAKE_SUBNET_ID'])"
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(2)
    ]
    said = {process.communicate(timeout=900)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(said) == 1


@pytest.mark.parametrize("delay", [0, 0.2], ids=["at once", "a moment later"])
def test_an_interrupted_up_leaves_nothing(own: Settings, delay: float) -> None:
    """Ctrl-C while the cloud's process is on its way up."""
    # As the command does it: a process that inherits an ignored SIGINT (a background job) hears it, too.
    code = "from bake import interrupt; interrupt.install(); from bake.localcloud.lifecycle import cloud; "
    code += "cloud._health = lambda settings: None; cloud.up()"  # it waits on, however late the signal comes
    starting = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 900
    while not (own.state / "daemon.log").exists() and time.monotonic() < deadline:
        assert starting.poll() is None
        time.sleep(0.005)
    time.sleep(delay)
    starting.send_signal(signal.SIGINT)
    assert starting.wait(timeout=300) != 0
    time.sleep(1)  # a daemon that nobody ends would be up by now
    assert leftovers(own) == []
