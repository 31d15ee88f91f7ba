"""SSH and units against one real machine of the local cloud."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import TYPE_CHECKING

import pytest

from bake import ssh, units
from bake.errors import BakeError, RemoteCommandError
from bake.steps.launch import KeyPair

if TYPE_CHECKING:
    from tests.conftest import Machine

pytestmark = pytest.mark.root
CANARY = "canary-8c1f-never-on-a-disk"


def test_the_machine_matches_the_request(machine: Machine) -> None:
    volume = machine.aws.ec2.describe_volumes(VolumeIds=[machine.instance.root_volume])["Volumes"][0]
    assert (volume["Size"], volume["VolumeType"]) == (80, "gp3")
    size = machine.session.run("df", "--block-size=1G", "--output=size", "/").stdout.split()[-1]
    assert 76 <= int(size) <= 80
    facts = machine.aws.ec2.describe_instances(InstanceIds=[machine.instance.id])
    instance = facts["Reservations"][0]["Instances"][0]
    assert instance["InstanceType"] == "g6e.xlarge"
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    named = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
    assert named["bake:run"] == machine.run.id
    assert named["bake:plan"] == machine.plan.id


def test_any_other_host_key_is_refused_at_once(machine: Machine) -> None:
    login = dataclasses.replace(machine.instance.login, host_key=KeyPair.generate().public)
    started = time.monotonic()
    with pytest.raises(BakeError, match="another SSH host key"):
        ssh.connect(login, timeout=900)
    assert time.monotonic() - started < 300


def test_no_answer_says_what_to_look_at(machine: Machine) -> None:
    login = dataclasses.replace(machine.instance.login, port=2)
    with pytest.raises(BakeError, match=r"no SSH connection to ubuntu@.*:2 within 1 s") as caught:
        ssh.connect(login, timeout=1)
    assert "security group" in str(caught.value.hint)


def test_both_streams_are_drained_at_once(machine: Machine) -> None:
    script = "import sys\nfor _ in range(200): sys.stdout.write('o' * 9999); sys.stderr.write('e' * 9999)"
    result = machine.session.run("python3", "-c", script)
    assert (len(result.stdout), len(result.stderr)) == (1_999_800, 1_999_800)


def test_arguments_arrive_as_they_are(machine: Machine) -> None:
    odd = ["a b", "$HOME", "'quoted'", "new\nline", "", "*", "ünïcödé"]
    assert machine.session.run("printf", "%s\\0", *odd).stdout.split("\0")[:-1] == odd


def test_a_failing_command_shows_itself_its_code_and_both_streams(machine: Machine) -> None:
    with pytest.raises(RemoteCommandError) as caught:
        machine.session.run("sh", "-c", "echo to-out; echo to-err >&2; exit 7")
    for part in ("exit code 7", "sh -c", "to-out", "to-err"):
        assert part in caught.value.message


def test_a_unit_runs_with_its_settings_and_without_a_terminal(machine: Machine) -> None:
    machine.session.run("sh", "-c", "echo GREETING=hello > /tmp/settings.env")
    unit = units.start(
        machine.session,
        "test-settings",
        "bash",
        "-c",
        'echo "$GREETING $PWD $(id -un)"; test -t 0 && echo terminal; cat',
        user="ubuntu",
        directory="/tmp",
        environment_file="/tmp/settings.env",
    )
    result = unit.wait()
    assert (result.exit_code, result.stdout) == (0, "hello /tmp ubuntu\n")


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", 9)], ids=["exit code", "killed"])
def test_failures_of_a_unit_are_distinguished(machine: Machine, script: str, code: int) -> None:
    name = f"test-fails-{code}"
    result = units.start(machine.session, name, "bash", "-c", f"echo so far >&2; {script}").wait()
    assert result.exit_code == code
    with pytest.raises(RemoteCommandError, match="so far"):
        result.check()


def test_a_secret_goes_in_by_stdin_and_is_nowhere_else(machine: Machine) -> None:
    unit = units.start(
        machine.session,
        "test-secret",
        "bash",
        "-c",
        "read -r secret; sleep 2; echo ${#secret}",
        stdin=f"{CANARY}\n".encode(),
    )
    look = (
        "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; journalctl --no-pager; "
        "cat /run/systemd/transient/test-secret.service; "
        "grep -rs -e canary-8c1f-never /run/bake /tmp /var/log"
    )
    seen = machine.session.run("sh", "-c", look, sudo=True, check=False).stdout
    # The looking commands name a part of the canary only; the whole must not be seen.
    assert CANARY not in seen
    assert unit.wait().stdout.strip() == str(len(CANARY))


def test_a_dropped_connection_costs_nothing(machine: Machine) -> None:
    with ssh.connect(machine.instance.login) as session:
        server = session.run("sh", "-c", "echo $PPID").stdout.strip()  # the sshd of this connection
        # It ends after the connection does, however late that is.
        script = f"while test -e /proc/{server}; do sleep 0.1; done; sleep 1; echo survived"
        unit = units.start(session, "test-drop", "bash", "-c", script)
        killer = threading.Timer(1, lambda: machine.session.run("kill", server, sudo=True))
        killer.start()
        result = unit.wait()
        killer.join()
        assert session.run("sh", "-c", "echo $PPID").stdout.strip() != server
    assert (result.exit_code, result.stdout) == (0, "survived\n")


def test_a_killed_command_is_distinguished_from_a_lost_connection(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "DYING_SECONDS", 1)
    with pytest.raises(RemoteCommandError, match="killed by a signal"):
        machine.session.run("sh", "-c", "kill -9 $$")
    assert machine.session.run("echo", "still here").stdout == "still here\n"


@pytest.mark.parametrize(
    ("script", "works"),
    [
        pytest.param("timeout 20 sh -c 'while :; do :; done' || true", True, id="computes"),
        pytest.param("for _ in $(seq 20); do sleep 1; done", False, id="polls"),
    ],
)
def test_a_silent_unit_gets_on_only_if_it_works(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, script: str, works: bool
) -> None:
    """Compiling for hours prints nothing, and must not end the lease; one that hangs must."""
    monkeypatch.setattr(units, "WINDOW", 5.0)
    tally, moves = machine.session.tally, list[str]()
    monkeypatch.setattr(tally, "moved", moves.append)
    name = f"test-silent-{'works' if works else 'polls'}"
    assert units.start(machine.session, name, "bash", "-c", script).wait(seconds=1.0).exit_code == 0
    assert (f"{name} worked" in moves) is works, moves
