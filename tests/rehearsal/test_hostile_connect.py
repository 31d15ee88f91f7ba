"""Bases as they are met in the field, planted on one real machine: each works, or stops with its reason.

What is planted is undone after each test: the files are the machine's own ones again.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bake import ssh, units
from bake.checks import backend
from bake.errors import BakeError, RemoteCommandError
from bake.ssh import Session, channel, opening
from bake.steps.connect import MachineGone, WrongMachine, log_in
from bake.units import Unit
from tests.plans import changed

if TYPE_CHECKING:
    from tests.conftest import Machine, NewMachine

pytestmark = pytest.mark.root
FILES = (
    "/home/ubuntu/.bashrc",
    "/home/ubuntu/.profile",
    "/etc/profile.d/hostile.sh",
    "/etc/sudoers.d/99-hostile",
    "/etc/ssh/sshd_config",
    "/run/cloud-init/status.json",
    "/run/cloud-init/result.json",
)
Plant = Callable[[str, str], None]


@pytest.fixture(scope="module")
def fresh(new_machine: NewMachine) -> Iterator[Machine]:
    with new_machine() as machine:
        yield machine


@pytest.fixture(scope="module")
def root(fresh: Machine) -> Iterator[Session]:
    """A session that goes by neither the user's shell nor sudo."""
    script = "cp -p /home/ubuntu/.ssh/authorized_keys /root/.ssh/; chown root: /root/.ssh/authorized_keys"
    fresh.session.run("install", "-d", "-m", "700", "/root/.ssh", sudo=True)
    fresh.session.run("sh", "-c", script, sudo=True)
    with ssh.connect(replace(fresh.instance.login, user="root")) as session:
        yield session


@pytest.fixture
def plant(root: Session) -> Iterator[Plant]:
    """Writes a file on the machine; what was there comes back at the end."""
    keep = 'for f; do if [ -e "$f" ]; then cp -p "$f" "$f.kept"; fi; done'
    back = 'for f; do if [ -e "$f.kept" ]; then mv "$f.kept" "$f"; else rm -f "$f"; fi; done'
    root.run("sh", "-c", keep, "sh", *FILES)

    def write(path: str, text: str) -> None:
        assert path in FILES
        root.run("sh", "-c", 'cat > "$1"', "sh", path, stdin=text.encode())
        if path == "/etc/ssh/sshd_config":  # connections that are open stay as they are
            root.run("sh", "-c", "systemctl reset-failed ssh; systemctl restart ssh")

    yield write
    root.run("sh", "-c", back, "sh", *FILES)
    root.run("sh", "-c", "systemctl reset-failed ssh; systemctl restart ssh")


def sshd(machine: Machine, plant: Plant, *lines: str) -> None:
    """Have sshd go by these lines first: the first of each keyword counts."""
    config = machine.session.run("cat", "/etc/ssh/sshd_config", sudo=True).stdout
    plant("/etc/ssh/sshd_config", "".join(f"{line}\n" for line in lines) + config)


def again(machine: Machine) -> Session:
    return log_in(machine.instance, machine.plan, machine.aws, machine.run)


@pytest.mark.parametrize(
    "bashrc",
    [
        pytest.param("echo Welcome; echo beware >&2\n", id="prints"),
        pytest.param("printf 'no end of line'; printf oops >&2\n", id="prints-without-an-end"),
        pytest.param("set -x; PS4='+ '; : on\n", id="shows-its-commands"),
        pytest.param("trap 'echo Bye; echo bye >&2' EXIT\n", id="prints-at-the-end"),
        pytest.param("head -c 300000 /dev/zero | tr '\\0' x; echo\n", id="prints-a-lot"),
        pytest.param("alias printf=false sh=false; export BASH_ENV=/etc/profile ENV=/x\n", id="renames"),
    ],
)
def test_what_a_login_shell_prints_is_no_part_of_an_output(fresh: Machine, plant: Plant, bashrc: str) -> None:
    plant("/home/ubuntu/.bashrc", bashrc)
    with again(fresh) as session:
        done = session.run("sh", "-c", "echo out; echo err >&2; exit 3", check=False)
        assert (done.stdout, done.stderr, done.exit_code) == ("out\n", "err\n", 3)
        assert session.run("cat", stdin=b"\0\xff\n given", sudo=True).stdout == "\0\ufffd\n given"


@pytest.mark.parametrize(
    "bashrc",
    [
        pytest.param("exec sh\n", id="execs-another-shell"),
        pytest.param("exec bash -l\n", id="execs-a-login-shell"),
        pytest.param("echo closed for maintenance >&2; exit 0\n", id="exits"),
        pytest.param("exec cat\n", id="execs-what-waits-for-input"),
    ],
)
def test_a_shell_that_does_not_run_what_it_is_given_stops_the_bake(
    fresh: Machine, plant: Plant, bashrc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "bash -l" in bashrc:  # it does so for ever
        monkeypatch.setattr(channel, "BEGINS", 4.0)
    plant("/home/ubuntu/.bashrc", bashrc)
    with pytest.raises(WrongMachine, match="does not run what it is given") as caught:
        again(fresh)
    assert "bashrc" in str(caught.value.hint)


def test_forced_commands_stop_the_bake(fresh: Machine, plant: Plant) -> None:
    sshd(fresh, plant, "ForceCommand echo use the bastion")
    with pytest.raises(WrongMachine, match="said use the bastion"):
        again(fresh)


def test_modes_environment_and_programs_are_the_bakes_own(
    fresh: Machine, root: Session, plant: Plant
) -> None:
    plant("/etc/sudoers.d/99-hostile", "Defaults umask=0077, umask_override\n")
    plant(
        "/home/ubuntu/.bashrc",
        "umask 077; export LC_ALL=de_DE.UTF-8 LANG=C TMPDIR=/nowhere PATH=/nowhere HF_HOME=/x TMOUT=1\n",
    )
    root.run("sh", "-c", "echo exit 9 > /usr/local/bin/python3; chmod 755 /usr/local/bin/python3")
    try:
        with again(fresh) as session:
            for sudo in (False, True):
                assert session.run("sh", "-c", "umask", sudo=sudo).stdout == "0022\n"
                variables = session.run("env", sudo=sudo).stdout.splitlines()
                names = {line.split("=")[0] for line in variables} - {"PWD"}  # dash's own
                assert names == {"PATH", "LC_ALL", "HOME", "USER", "LOGNAME", "SHELL"}
                assert "LC_ALL=C.UTF-8" in variables
                session.run("python3", "-c", "import sys", sudo=sudo)
            unit = units.start(session, "hostile-unit", "sh", "-c", "umask; echo $LC_ALL")
            assert unit.wait().stdout == "0022\nC.UTF-8\n"
    finally:
        root.run("rm", "/usr/local/bin/python3")


@pytest.mark.parametrize("most", [1, 2])
def test_few_sessions_a_connection_are_shared(fresh: Machine, plant: Plant, most: int) -> None:
    """Three at once, one of which polls without a pause; none is kept out, none fails."""
    sshd(fresh, plant, f"MaxSessions {most}")
    with again(fresh) as session:
        unit = units.start(session, f"hostile-sessions-{most}", "sh", "-c", "sleep 4; echo done")
        ended: list[str] = []
        threads = [
            threading.Thread(target=lambda: ended.append(unit.wait(seconds=0.1).stdout)),
            threading.Thread(
                target=lambda: ended.extend(session.run("echo", n).stdout for n in "0123456789")
            ),
        ]
        for thread in threads:
            thread.start()
        for number in range(10):
            assert session.run("echo", str(number)).stdout == f"{number}\n"
        for thread in threads:
            thread.join()
    assert sorted(ended) == sorted(["done\n", *(f"{n}\n" for n in range(10))])


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        pytest.param(
            ("HostKey /etc/ssh/ssh_host_ecdsa_key", "PubkeyAcceptedAlgorithms ecdsa-sha2-nistp256"),
            "ecdsa-sha2-nistp256",
            id="fips-no-ed25519",
        ),
        pytest.param(
            ("HostKeyAlgorithms ecdsa-sha2-nistp256,ecdsa-sha2-nistp384",),
            "ecdsa-sha2-nistp256",
            id="narrowed-to-ecdsa",
        ),
        pytest.param(
            ("HostKeyAlgorithms ssh-ed25519", "PubkeyAcceptedAlgorithms ssh-ed25519"),
            "ssh-ed25519",
            id="narrowed-to-ed25519",
        ),
    ],
)
def test_either_kind_of_key_lets_in(fresh: Machine, plant: Plant, lines: tuple[str, ...], kind: str) -> None:
    sshd(fresh, plant, *lines)
    with again(fresh) as session:
        transport = session._client.get_transport()
        assert transport is not None
        assert transport.get_remote_server_key().get_name() == kind


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(("HostKeyAlgorithms rsa-sha2-512",), id="no-such-key-there"),
        pytest.param(("KexAlgorithms diffie-hellman-group18-sha512",), id="no-common-exchange"),
    ],
)
def test_a_handshake_that_can_not_succeed_ends_at_once(
    fresh: Machine,
    plant: Plant,
    lines: tuple[str, ...],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(opening, "PATIENT_BREAKS", 4.0)
    sshd(fresh, plant, *lines)
    started = time.monotonic()
    with pytest.raises(BakeError, match=r"speaks SSH in a way|ends each|another SSH host key") as caught:
        again(fresh)
    assert time.monotonic() - started < 200, "not the 300 s that a machine may take to boot"
    assert "sshd" in str(caught.value.hint)
    assert "Traceback" not in capfd.readouterr().err


def test_sudo_that_wants_a_terminal_stops_the_bake(fresh: Machine, plant: Plant) -> None:
    plant("/etc/sudoers.d/99-hostile", "Defaults requiretty\n")
    with pytest.raises(WrongMachine, match=r"can't become root .* tty") as caught:
        again(fresh)
    assert "requiretty" in str(caught.value.hint)


def test_sudo_in_a_terminal_of_its_own_changes_no_byte(fresh: Machine, plant: Plant) -> None:
    plant("/etc/sudoers.d/99-hostile", "Defaults use_pty, log_output, lecture=always\n")
    data = bytes(range(256)) * 400
    with again(fresh) as session:
        done = session.run("sh", "-c", "sha256sum; echo to-err >&2", stdin=data, sudo=True)
        assert done.stdout.split()[0] == hashlib.sha256(data).hexdigest()
        assert "to-err" in done.stderr


def test_cloud_init_that_does_not_end_names_what_runs(fresh: Machine, root: Session, plant: Plant) -> None:
    root.run("rm", "/run/cloud-init/result.json")
    builder = fresh.plan.profile.builder.model_copy(update={"cloud_init_wait_minutes": 0})
    profile = fresh.plan.profile.model_copy(update={"builder": builder})
    plan = changed(fresh.plan, profile)
    with pytest.raises(WrongMachine, match=r"did not end on i-.* within 0 s; still running") as caught:
        log_in(fresh.instance, plan, fresh.aws, fresh.run)
    assert "status: running" in caught.value.message
    assert "cloud_init_wait_minutes" in str(caught.value.hint)
    assert "waiting for cloud-init" in (fresh.run.directory / "events.jsonl").read_text()


def test_cloud_init_that_failed_stops_the_bake_with_its_log(fresh: Machine, plant: Plant) -> None:
    text = fresh.session.run("cat", "/run/cloud-init/status.json", sudo=True).stdout
    assert '"errors": []' in text
    plant("/run/cloud-init/status.json", text.replace('"errors": []', '"errors": ["a module failed"]'))
    with pytest.raises(WrongMachine, match=r"cloud-init failed on i-(.|\n)*a module failed"):
        again(fresh)
    assert (fresh.run.logs / "builder.cloud-init-output.log").exists()
    assert (fresh.run.logs / "builder.console.log").exists()


def test_a_unit_that_can_not_take_its_input_is_shown_with_its_reason(fresh: Machine) -> None:
    fresh.session.run("install", "-d", "-m", "700", "/opt/closed", sudo=True)
    with pytest.raises(RemoteCommandError, match="did not take its input") as caught:
        units.start(
            fresh.session,
            "hostile-deaf",
            "cat",
            user="ubuntu",
            directory="/opt/closed",
            stdin=b"s3cret" * 40_000,
        )
    assert "exit code 200" in caught.value.message
    assert "status=200/CHDIR" in caught.value.message
    assert "s3cret" not in caught.value.message


def test_a_command_whose_connection_breaks_is_run_again(fresh: Machine) -> None:
    with ssh.connect(fresh.instance.login) as session:
        # The first run ends its own connection; the second finds the mark that it left.
        script = 'if mkdir /tmp/hostile-once; then pkill -f "^sshd: ubuntu@notty$"; sleep 60; fi; echo twice'
        assert session.run("sh", "-c", script, sudo=True).stdout == "twice\n"
        session.run("rmdir", "/tmp/hostile-once", sudo=True)
        # Checks go by testinfra, which has commands of its own.
        found = backend.host(session).run("sh -c %s", script)
        assert (found.rc, found.stdout) == (0, "twice\n")
        session.run("rmdir", "/tmp/hostile-once", sudo=True)


def test_a_unit_is_started_once_however_often_it_is_asked_for(fresh: Machine) -> None:
    script = "cat >> /tmp/hostile-count; echo >> /tmp/hostile-count"
    for _ in range(2):
        unit: Unit = units.start(fresh.session, "hostile-once", "sh", "-c", script, stdin=b"one")
        assert unit.wait().exit_code == 0
    assert fresh.session.run("cat", "/tmp/hostile-count").stdout == "one\n"


def test_an_instance_that_is_ended_is_named_with_ec2s_reason(new_machine: NewMachine) -> None:
    with new_machine() as machine:
        instance = machine.instance.id
        timer = threading.Timer(1.0, lambda: machine.aws.ec2.terminate_instances(InstanceIds=[instance]))
        timer.start()
        with pytest.raises(MachineGone, match=f"the builder {instance} was (stopped|terminated)") as caught:
            machine.session.run("sleep", "600")
        timer.join()
        assert (machine.run.logs / "builder.console.log").read_text()
        assert "Client.UserInitiatedShutdown" in caught.value.message


@contextmanager
def silent(address: str) -> Iterator[Callable[[], None]]:
    """Nothing from or to an address passes, without a word to anybody; call what is given to end that."""
    table = f"bake-test-silence-{os.getpid()}"
    rules = "; ".join(
        f"chain {hook} {{ type filter hook {hook} priority -300; ip {side} {address} drop; }}"
        for hook, side in (("prerouting", "saddr"), ("output", "daddr"))
    )
    subprocess.run(["nft", f"table ip {table} {{ {rules}; }}"], check=True)

    def speak() -> None:
        subprocess.run(["nft", "delete", "table", "ip", table], check=False, capture_output=True)

    try:
        yield speak
    finally:
        speak()


def test_a_machine_that_ends_without_a_word_is_missed_soon(new_machine: NewMachine) -> None:
    """As at a spot interruption or a failure of its host: no connection is closed, packets just stop."""
    with new_machine() as machine, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(machine.session.run, "sleep", "600")
        machine.session.run("true")
        with silent(machine.instance.login.address):
            started = time.monotonic()
            machine.aws.ec2.terminate_instances(InstanceIds=[machine.instance.id])
            with pytest.raises(MachineGone, match=r"Client\.UserInitiatedShutdown"):
                waiting.result(timeout=300)
            print(f"missed after {time.monotonic() - started:.1f} s")


def test_a_network_that_is_gone_for_a_while_costs_a_command_nothing(fresh: Machine) -> None:
    with ssh.connect(fresh.instance.login) as session, ThreadPoolExecutor(1) as pool:
        transport = session._client.get_transport()
        assert transport is not None
        waiting = pool.submit(session.run, "sh", "-c", "sleep 3; echo done")
        with silent(fresh.instance.login.address) as speak:
            transport.join(300)
            assert not transport.is_active(), "the silence was not noticed"
            speak()
            assert waiting.result(timeout=300).stdout == "done\n"
