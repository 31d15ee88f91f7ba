"""SSH through a command: its process comes with the connection and goes with it, and its words are heard."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from bake import interrupt, redaction, ssh
from bake.errors import BakeError, Interrupted
from bake.instance import KeyPair
from bake.ssh import Login, opening, proxy

from .ssh_server import Server, host_key

pytestmark = pytest.mark.integration
TIMEOUT = 600.0  # seconds: a test that used them up would be noticed

RELAY = """
import os, select, signal, socket, subprocess, sys, threading
here, port, noise, stubborn = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
child = 0
if stubborn:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(999)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    process.stdout.readline()
    child = process.pid
with open(f"{here}/{os.getpid()}.new", "w") as file:
    file.write(str(child))
os.rename(f"{here}/{os.getpid()}.new", f"{here}/{os.getpid()}")
if noise:
    os.write(2, b"x" * noise)
there = socket.create_connection(("127.0.0.1", port))
deaf = []
signal.signal(signal.SIGUSR1, lambda *_: deaf.append(1))
def up():
    while not deaf:
        if select.select([0], [], [], 0.05)[0]:
            if not (data := os.read(0, 65536)):
                os._exit(0)
            there.sendall(data)
    os.close(0)
    open(f"{here}/{os.getpid()}.deaf", "w").close()
threading.Thread(target=up, daemon=True).start()
while data := there.recv(65536):
    os.write(1, data)
"""


@pytest.fixture(scope="module")
def pinned() -> KeyPair:
    return KeyPair.generate()


@pytest.fixture
def server(pinned: KeyPair) -> Iterator[Server]:
    server = Server(host_key(pinned))
    yield server
    server.close()


Through = Callable[..., Login]


@pytest.fixture
def relays(tmp_path: Path) -> Path:
    """Each relay leaves a file here: its process, and in it that of what it has started, or 0."""
    folder = tmp_path / "relays"
    folder.mkdir()
    return folder


@pytest.fixture
def through(server: Server, pinned: KeyPair, relays: Path, monkeypatch: pytest.MonkeyPatch) -> Through:
    """A login whose address nobody has: only a command leads to the server."""
    monkeypatch.setattr(opening, "PAUSE_WITH_PROXY", 0.1)

    def login(*command: str, noise: int = 0, stubborn: str = "") -> Login:
        relay = (sys.executable, "-c", RELAY, str(relays), str(server.port), str(noise), stubborn)
        key = KeyPair.generate().private
        return Login("192.0.2.1", "ubuntu", key, pinned.public, proxy=command or relay)

    return login


def pids(relays: Path) -> list[int]:
    """The relays' processes, in the order in which they began."""
    there = [file for file in relays.iterdir() if file.suffix == ""]
    return [int(file.name) for file in sorted(there, key=lambda file: file.stat().st_mtime_ns)]


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has reaped yet has, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_command_leads_to_the_machine_and_ends_with_the_session(through: Through, relays: Path) -> None:
    with ssh.connect(through(), timeout=TIMEOUT) as session:
        assert session.run("echo", "there").stdout == "there\n"
        [pid] = pids(relays)
        assert not is_gone(pid)
        assert os.getsid(pid) == pid != os.getsid(0), "Ctrl-C does not reach it, and no terminal is asked"
    assert is_gone(pid)


def test_what_the_command_has_started_ends_with_it(
    through: Through, relays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "GRACE", 0.3)
    with ssh.connect(through(stubborn="yes"), timeout=TIMEOUT):
        [pid] = pids(relays)
        child = int((relays / str(pid)).read_text())
        assert not is_gone(child)
    until(lambda: is_gone(child))


def test_each_connection_has_a_process_of_its_own(through: Through, relays: Path) -> None:
    with ssh.connect(through(), timeout=TIMEOUT) as one, ssh.connect(through(), timeout=TIMEOUT) as two:
        first, second = pids(relays)
        one.close()
        assert is_gone(first)
        assert two.run("echo", "there").stdout == "there\n"
        assert not is_gone(second)


def test_much_on_stderr_does_not_hold_it_up(through: Through) -> None:
    with ssh.connect(through(noise=1 << 20), timeout=TIMEOUT) as session:
        assert len(session.run("head", "-c", "3000000", "/dev/zero").stdout) == 3_000_000


def test_a_command_that_closes_its_stderr_costs_no_time(through: Through, relays: Path) -> None:
    login = through()
    quiet = ("sh", "-c", 'exec "$@" 2>&-', "sh", *login.proxy)
    with ssh.connect(dataclasses.replace(login, proxy=quiet), timeout=TIMEOUT) as session:
        before = time.process_time()
        session.run("sleep", "1")
        assert time.process_time() - before < 0.5, "it was asked again and again for what it would say"


def test_a_command_that_ends_is_told_with_its_exit_code_and_last_words(through: Through) -> None:
    redaction.register("hunter2-hunter2")
    login = through("sh", "-c", "echo ada@bastion: Permission denied hunter2-hunter2 >&2; exit 255")
    with pytest.raises(BakeError) as caught:
        ssh.connect(login, timeout=0.5)
    assert caught.value.message == (
        "no SSH connection to ubuntu@192.0.2.1:22 within 0 s: "
        "proxy_command ended with exit code 255: ada@bastion: Permission denied [redacted]"
    )
    assert "builder.proxy_command must lead there; by hand: sh -c" in str(caught.value.hint)
    assert "hunter2" not in str(caught.value.hint)


def test_one_that_ends_is_tried_again_since_the_machine_may_boot(
    through: Through, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "PATIENT_BREAKS", 0.0)  # it is not the machine that breaks the connection
    tries, login = tmp_path / "tries", through()
    late = f'echo x >> {tries}; [ "$(wc -l < {tries})" -gt 4 ] || exit 255; exec "$@"'
    with ssh.connect(
        dataclasses.replace(login, proxy=("sh", "-c", late, "sh", *login.proxy)), timeout=TIMEOUT
    ):
        assert len(tries.read_text().splitlines()) == 5


def test_one_that_hangs_is_given_up_and_ended(
    through: Through, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "NAMED_THROUGH_PROXY", 0.5)
    file = tmp_path / "pid"
    login = through("sh", "-c", f"echo $$ > {file}; echo Connecting >&2; exec sleep 999")
    with pytest.raises(BakeError, match="nothing came through proxy_command: Connecting"):
        ssh.connect(login, timeout=0.1)
    assert is_gone(int(file.read_text()))


@pytest.mark.parametrize(
    ("program", "why"), [("no-such-program", "No such file"), ("/", "Permission denied")]
)
def test_one_that_can_not_be_run_is_told_at_once(through: Through, program: str, why: str) -> None:
    with pytest.raises(BakeError, match=rf"builder\.proxy_command can't be run: {program}: {why}") as caught:
        ssh.connect(through(program, "{host}"), timeout=TIMEOUT)
    assert "PATH" in str(caught.value.hint)


def test_a_command_that_dies_in_the_middle_is_begun_anew_and_nothing_is_lost(
    through: Through, relays: Path, tmp_path: Path
) -> None:
    """As a tunnel of Instance Connect Endpoint does, after an hour at most."""
    began, go_on = tmp_path / "began", tmp_path / "go on"
    with ssh.connect(through(), timeout=TIMEOUT) as session:
        done: list[str] = []
        line = 'echo x >> "$1"; while [ ! -e "$2" ]; do sleep 0.05; done; echo done'
        work = threading.Thread(
            target=lambda: done.append(session.run("sh", "-c", line, "sh", str(began), str(go_on)).stdout)
        )
        work.start()
        until(began.exists)
        [first] = pids(relays)
        os.kill(first, signal.SIGKILL)
        until(lambda: len(pids(relays)) == 2)
        go_on.touch()
        work.join(TIMEOUT)
        assert done == ["done\n"]
    assert all(is_gone(pid) for pid in pids(relays))


def test_a_command_that_takes_nothing_more_is_begun_anew_before_its_output_ends(
    through: Through, relays: Path
) -> None:
    """As one that dies just now: what is sent fails before the connection's own thread reads an end."""
    with ssh.connect(through(), timeout=TIMEOUT) as session:
        [first] = pids(relays)
        os.kill(first, signal.SIGUSR1)
        until((relays / f"{first}.deaf").exists)
        assert session.run("echo", "there").stdout == "there\n"
        assert len(pids(relays)) == 2
        assert is_gone(first)


def test_a_way_that_falls_silent_is_given_up_for_a_new_one(
    through: Through, relays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command shows nothing of a machine that is gone without a word; sshd answers, or it is lost."""
    monkeypatch.setattr(proxy, "SILENCE", 3.0)
    monkeypatch.setattr(proxy, "BEAT", 0.2)
    with ssh.connect(through(), timeout=TIMEOUT) as session:
        session.run("sleep", "4")  # it is quiet, and there
        [first] = pids(relays)
        os.kill(first, signal.SIGSTOP)
        assert session.run("echo", "there").stdout == "there\n"
        assert len(pids(relays)) == 2
        assert is_gone(first)


def test_a_broken_connection_is_told_with_the_commands_words(through: Through, relays: Path) -> None:
    with ssh.connect(through(), timeout=TIMEOUT) as session:
        transport = session._client.get_transport()
        assert transport is not None
        os.kill(pids(relays)[0], signal.SIGKILL)
        transport.join(TIMEOUT)
        with pytest.raises(BakeError, match=r"running: true\n.*proxy_command ended with SIGKILL"):
            session.run("true", again=False)


def test_the_host_key_is_held_to_the_pinned_one(through: Through, server: Server, relays: Path) -> None:
    server.key = paramiko.RSAKey.generate(2048)
    with pytest.raises(BakeError, match="another SSH host key"):
        ssh.connect(through(), timeout=TIMEOUT)
    [pid] = pids(relays)
    assert is_gone(pid), "asked once, and ended"


def test_an_interrupt_ends_the_command_too(through: Through, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    interrupt.install()
    try:

        def press() -> None:
            until(lambda: file.exists() and file.read_text())
            interrupt.request()

        threading.Thread(target=press, daemon=True).start()
        with pytest.raises(Interrupted):
            ssh.connect(through("sh", "-c", f"echo $$ > {file}; exec sleep 999"), timeout=TIMEOUT)
        assert is_gone(int(file.read_text()))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        interrupt._state.update(deferred=0, pending=0, raised=0, ending=0)
