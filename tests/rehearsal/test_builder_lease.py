"""A builder ends itself when its lease runs out: whoever bakes may be dead, and the builder may reboot."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bake import builder_lease
from bake import run as runs_of
from bake.errors import ConnectionLost
from bake.instance import describe
from bake.layout import LEASE, LEASE_KEPT, LEASE_UNIT, UNITS_IN_MEMORY
from bake.lease import Lease
from bake.run import Run
from bake.ssh import Session, connect
from bake.steps.launch import Instance, LaunchSpec, launch
from bake.undo import Undo
from tests import plans

if TYPE_CHECKING:
    from tests.conftest import Machine, NewMachine

pytestmark = pytest.mark.root

PATIENCE = 300  # seconds: a busy host is ten times slower at times
HANGS = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=true
ExecStop=sleep infinity
TimeoutStopSec=infinity
[Install]
WantedBy=multi-user.target
"""


Builder = Callable[[timedelta], AbstractContextManager[Instance]]


@pytest.fixture
def builder(machine: Machine, tmp_path: Path) -> Builder:
    """Launches a builder of a bake that dies at once: nobody renews its lease."""
    return lambda lease: launched(machine, runs_of.new(tmp_path, machine.run.progress), lease)


@contextmanager
def launched(machine: Machine, run: Run, lease: timedelta) -> Iterator[Instance]:
    hours = {"lease_hours": lease / timedelta(hours=1)}
    profile = machine.plan.profile
    plan = plans.changed(
        machine.plan, profile.model_copy(update={"builder": profile.builder.model_copy(update=hours)})
    )
    spec = LaunchSpec("builder", plan.launch.base.id, plan.profile.builder.types)
    Lease(plan.lease, machine.aws, run)  # never begun: nobody renews it
    with Undo() as undo:
        yield launch(spec, plan, machine.aws, run, undo)


def until(what: str, ask: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not ask():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.2)


def ended(machine: Machine, instance: Instance) -> str:
    """Wait until it is terminated; return EC2's reason."""
    facts = {}

    def gone() -> bool:
        facts.update(describe(machine.aws, instance.id) or {})
        return facts["State"]["Name"] == "terminated"

    until(f"the end of {instance.id}", gone)
    return str(facts["StateReason"]["Code"])


def reboot(session: Session) -> None:
    with suppress(ConnectionLost):
        session.run("systemctl", "--no-block", "reboot", sudo=True, check=False, again=False)


def seconds_left(session: Session) -> float:
    """Until the timer elapses, by the machine's monotonic clock."""
    shown = session.run(
        "systemctl", "show", "-p", "NextElapseUSecMonotonic", "--timestamp=us", f"{LEASE_UNIT}.timer"
    )
    ask = "import sys, time; print(time.monotonic())"
    now = float(session.run("python3", "-c", ask).stdout)
    return span(shown.stdout.strip().partition("=")[2]) - now


def span(text: str) -> float:
    """Seconds of systemd's "1h 2min 3.5s"."""
    units = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}
    units |= {"day": 86400, "days": 86400, "week": 604800, "weeks": 604800}
    total = 0.0
    for word in text.split():
        number = word.rstrip("abcdefghijklmnopqrstuvwxyz")
        total += float(number) * units[word[len(number) :]]
    return total


def test_a_builder_whose_lease_runs_out_ends_itself(machine: Machine, builder: Builder) -> None:
    with builder(timedelta(seconds=20)) as instance:
        assert ended(machine, instance) == "Client.InstanceInitiatedShutdown"


def test_a_builder_that_hangs_in_its_shutdown_ends_all_the_same(machine: Machine, builder: Builder) -> None:
    with builder(timedelta(minutes=10)) as instance:
        with connect(instance.login) as session:
            file = "/run/systemd/system/hangs.service"
            session.run("sh", "-c", 'cat >"$1"', "sh", file, stdin=HANGS.encode(), sudo=True)
            session.run("systemctl", "start", "hangs.service", sudo=True)
            soon = machine.aws.now() + timedelta(seconds=3)
            builder_lease.renew(session, soon, timedelta(minutes=10))
        assert ended(machine, instance) == "Client.InstanceInitiatedShutdown"


def test_a_renewed_builder_outlives_a_reboot_until_its_lease_is_over(
    machine: Machine, builder: Builder
) -> None:
    length = timedelta(seconds=90)
    first = machine.aws.now() + length
    with builder(length) as instance, connect(instance.login) as session:
        until("the first timer", lambda: 0 < seconds_left(session) <= 90)
        builder_lease.renew(session, machine.aws.now() + timedelta(hours=1), timedelta(hours=1))
        assert 3400 < seconds_left(session) <= 3601
        until("the first expiry", lambda: machine.aws.now() > first + timedelta(seconds=15))
        reboot(session)
        with connect(instance.login) as again:
            again.run("cloud-init", "status", "--wait", check=False)
            # The boot command's own length bounds it: the expiry is the renewed one, which is later.
            assert 0 < seconds_left(again) <= 91
            builder_lease.renew(again, machine.aws.now() + timedelta(hours=1), timedelta(hours=1))
            again.run("sh", "-c", f"echo 5 >{LEASE_KEPT}", sudo=True)
            reboot(again)
        assert ended(machine, instance) == "Client.InstanceInitiatedShutdown"


def test_amazon_linux_has_the_timer_too(new_machine: NewMachine) -> None:
    with new_machine("g6e-amazon-linux") as machine:
        assert 0 < seconds_left(machine.session) <= machine.plan.lease.total_seconds()


def test_a_sealed_builder_whose_bake_died_still_ends(machine: Machine, builder: Builder) -> None:
    """The seal removes the files; the timer that is armed needs none of them."""
    with builder(timedelta(minutes=10)) as instance:
        with connect(instance.login) as session:
            soon = machine.aws.now() + timedelta(seconds=15)
            builder_lease.renew(session, soon, timedelta(minutes=10))
            gone = f"rm -r {LEASE} {LEASE_KEPT} {UNITS_IN_MEMORY}/{LEASE_UNIT}.*"
            session.run("sh", "-c", gone, sudo=True)
        assert ended(machine, instance) == "Client.InstanceInitiatedShutdown"
