"""A schedule of systemd on a machine with a systemd of its own, as `bake schedule` writes it there.

The timer elapses, and the hardened service plans a bake by the local cloud's API; it is refused since nothing
is agreed. What it does not show: AWS itself, and a bake that goes on for hours.
"""

from __future__ import annotations

import importlib.metadata
import io
import re
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bake.ssh import Session, connect

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
UNIT = "bake-g6e-ubuntu"
PROGRAM = """#!/usr/bin/python3 -P
import sys
sys.path.insert(0, "/opt/bake/lib")
from bake.cli import main
main()
"""
# Stands for a bake that has created something, which it removes when it is told to end.
CREATED = """#!/usr/bin/python3 -P
import sys, time
sys.path.insert(0, "/opt/bake/lib")
from bake import interrupt
from bake.undo import Undo
interrupt.install()
def remove():
    time.sleep(2)
    print("removed", flush=True)
try:
    with Undo() as undo:
        undo.add("thing", remove, by_hand="rm")
        print("created", flush=True)
        time.sleep(600)
except KeyboardInterrupt:
    sys.exit(130)
"""


def locked() -> list[str]:
    """The packages that the controller runs."""
    text = (ROOT / "requirements/bake.txt").read_text()
    return [*re.findall(r"^([a-z0-9._-]+)==", text, re.M), "ami-bake"]


def parcel() -> bytes:
    """bake as it is here, with all that it runs, and nothing for developing."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=1) as tar:
        for name in locked():
            try:
                found = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:
                continue  # of another system or version of Python
            for file in found.files or ():
                if ".." not in file.parts and file.suffix != ".pyc" and Path(str(file.locate())).is_file():
                    tar.add(str(file.locate()), f"lib/{file}")
        for folder in ("bake", "profiles", "provision", "requirements", "worker", ".env.example"):
            tar.add(ROOT / folder, f"lib/{folder}", filter=_of_the_source)
        for name, text in (("bin/bake", PROGRAM), ("bin/created", CREATED)):
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = 0o755, len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return content.getvalue()


def _of_the_source(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    left_out = "__pycache__" in entry.name or ".egg-info" in entry.name or "node_modules" in entry.name
    entry.uid = entry.gid = 0
    return None if left_out else entry


@pytest.fixture(scope="module")
def session(account: Any) -> Iterator[Session]:
    """A machine with bake in /opt/bake and a folder to bake from in /srv/images."""
    machine = account.launch()
    environment = account.cloud.environment
    given = {
        "AWS_ENDPOINT_URL": account.cloud.endpoint,
        "AWS_ACCESS_KEY_ID": account.cloud.keys.id,
        "AWS_SECRET_ACCESS_KEY": account.cloud.keys.secret,
        "HF_ENDPOINT": account.cloud.hub,
    }
    with connect(machine.login) as session:
        session.run("cloud-init", "status", "--wait", check=False)
        put(session, "/etc/default/bake", "".join(f"{key}={value}\n" for key, value in given.items()))
        session.run("mkdir", "-p", "/opt/bake", "/srv/images/profiles", sudo=True)
        session.run("tar", "-xzC", "/opt/bake", stdin=parcel(), sudo=True)
        put(session, "/srv/images/.env.local", "".join(f"{k}={v}\n" for k, v in environment.items()))
        session.run("chmod", "600", "/srv/images/.env.local", sudo=True)
        shell(session, "cp /opt/bake/lib/profiles/g*-ubuntu.yaml /srv/images/profiles")
        yield session
    account.terminate(machine.id)


def put(session: Session, file: str, text: str) -> None:
    session.run("tee", file, stdin=text.encode(), sudo=True)


def shell(session: Session, line: str, *, check: bool = True) -> str:
    done = session.run("sh", "-c", line, sudo=True, check=check)
    return done.stdout + done.stderr


def scheduled(session: Session, *words: str) -> None:
    """Write the units on the machine, and have systemd read them; without chance in the time."""
    command = f"cd /srv/images && /opt/bake/bin/bake schedule --profile g6e-ubuntu {' '.join(words)}"
    shell(session, f"{command} --as systemd --hours 3 --out /etc/systemd/system --replace")
    shell(session, f"mkdir -p /etc/systemd/system/{UNIT}.timer.d /etc/systemd/system/{UNIT}.service.d")
    put(
        session,
        f"/etc/systemd/system/{UNIT}.timer.d/test.conf",
        "[Timer]\nRandomizedDelaySec=0\nAccuracySec=1s\n",
    )
    shell(session, "systemctl daemon-reload")


def shown(session: Session, *names: str) -> dict[str, str]:
    found = shell(session, f"systemctl show --property={','.join(names)} {UNIT}.service")
    return dict(line.split("=", 1) for line in found.splitlines())


def wait_for(session: Session, line: str, seconds: float = 120) -> str:
    """Wait until a line of shell has an output."""
    deadline = time.monotonic() + seconds
    while not (found := shell(session, line, check=False).strip()):
        assert time.monotonic() < deadline, shell(session, f"journalctl --no-pager -n 100 -u {UNIT}.service")
        time.sleep(0.5)
    return found


def test_a_timer_makes_up_for_a_missed_time_and_the_hardened_service_plans_a_bake(session: Session) -> None:
    assert shell(session, "python3 -c 'import sys; print(sys.version_info[:2])'").strip() == str(
        sys.version_info[:2]
    )
    scheduled(session, "--cron", "'0 3 * * 1'", "--zone", "Europe/Berlin")
    units = f"/etc/systemd/system/{UNIT}"
    shell(session, f"systemd-analyze verify {units}.service {units}.timer {units}-failed.service")
    # It fired last a month ago.
    shell(session, "mkdir -p /var/lib/systemd/timers")
    shell(session, f"touch -d '30 days ago' /var/lib/systemd/timers/stamp-{UNIT}.timer")
    shell(session, f"systemctl enable --now {UNIT}.timer")
    told = wait_for(session, f"journalctl --no-pager -o cat -t {UNIT} | grep 'journalctl --unit'")
    assert told == f"the bake of g6e-ubuntu failed: journalctl --unit={UNIT}.service"
    said = shell(session, f"journalctl --no-pager -o cat -u {UNIT}.service")
    assert shown(session, "ExecMainStatus", "Result") == {"ExecMainStatus": "3", "Result": "exit-code"}, said
    assert "nothing was started" in said and "bake approve" in said
    swept = wait_for(
        session, f"journalctl --no-pager -o cat -u {UNIT}-sweep.service | grep 'lease has ended'"
    )
    assert "Traceback" not in said + swept
    monday = wait_for(session, f"systemctl list-timers --no-pager --no-legend {UNIT}.timer")
    assert monday.startswith("Mon ")


def test_stopping_the_service_waits_for_the_removal(session: Session) -> None:
    scheduled(session, "--cron", "'0 3 * * 1'")
    put(
        session,
        f"/etc/systemd/system/{UNIT}.service.d/test.conf",
        "[Service]\nExecStart=\nExecStart=/opt/bake/bin/created\nStandardOutput=journal\n",
    )
    shell(session, "systemctl daemon-reload")
    shell(session, f"systemctl start {UNIT}.service")
    wait_for(session, f"journalctl --no-pager -o cat -u {UNIT}.service | grep -x created")
    before = shown(session, "MainPID", "UID")
    assert int(before["UID"]) in range(61184, 65520)  # a user that is there while the service runs
    shell(session, f"systemctl start {UNIT}.service")  # a second one joins the first
    assert shown(session, "MainPID", "UID") == before
    shell(session, f"systemctl stop {UNIT}.service")
    lines = shell(session, f"journalctl --no-pager -o cat -u {UNIT}.service").splitlines()
    assert "removed" in lines
    assert shown(session, "ExecMainStatus") == {"ExecMainStatus": "130"}
