"""The seal on a machine that logs each sudo: auditd and its kernel are stand-ins (images/hostile)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from bake.errors import NotVerified
from bake.layout import SEAL
from bake.steps import provision
from bake.steps.seal import seal

if TYPE_CHECKING:
    from tests.conftest import Machine, NewMachine

pytestmark = pytest.mark.root
LOG = "/var/log/audit/audit.log"
# A daemon that nobody can stop. It writes all the time: one that sleeps may miss the seal on a busy host.
STUBBORN = """
trap '' TERM; while :; do echo line >>/var/log/stubborn.log; exec 3>>/var/log/stubborn.log; done
"""


@pytest.fixture(scope="module")
def machine(new_machine: NewMachine) -> Iterator[Machine]:
    with new_machine(hostile="auditd") as found:
        provision.upload(found.session, found.plan, found.run)
        yield found


def root(machine: Machine, script: str) -> str:
    return machine.session.run("bash", "-c", script, sudo=True, check=False).stdout


def test_a_writer_that_goes_on_is_named(machine: Machine) -> None:
    root(machine, f"systemd-run -q --unit=stubborn bash -c {STUBBORN!r}".replace("\\n", " "))
    upload_again = root(machine, "cp -a /opt/bake /opt/kept")
    assert upload_again == ""
    try:
        with pytest.raises(NotVerified, match=r"stubborn\.log .*: open in process \d+ \(bash\)"):
            seal(machine.session, machine.plan, machine.aws, machine.run)
    finally:
        root(machine, "systemctl kill --signal=KILL stubborn; mv /opt/kept /opt/bake")
        root(machine, "rm -f /run/audit-off")


def test_what_is_audited_is_quiet_from_the_deletion_on(machine: Machine) -> None:
    root(machine, "systemctl start auditd; until [ -s /run/auditd.pid ]; do sleep 0.1; done")
    assert int(root(machine, f"stat -c %s {LOG}")) > 0
    seal(machine.session, machine.plan, machine.aws, machine.run)
    assert root(machine, f"stat -c %s {LOG}").strip() == "0"
    assert root(machine, f"python3 {SEAL}/seal.py check") == ""
    assert root(machine, "systemctl is-enabled auditd").strip() == "enabled"
