"""The boot check finds whatever would power a machine of the image off, beyond what the base AMI brought."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from bake import layout
from bake.checks.baseline import Baseline
from bake.steps.check_power import KIND, check_power, is_lease
from bake.steps.record_baseline import record_baseline
from bake.steps.wait_for_worker import ImageIsBad

if TYPE_CHECKING:
    from tests.conftest import Machine

pytestmark = pytest.mark.root

UNITS = "/etc/systemd/system"
COMMANDS = {
    "a-command": "/usr/sbin/poweroff",
    "a-shell": "/bin/sh -c 'sleep 9; shutdown -h now'",
    "bare": "/usr/sbin/shutdown",
    "minutes": "/sbin/shutdown +30",
    "systemctl": "/bin/systemctl --force halt",
    "runlevel": "/sbin/init 0",
    "the-api": "/usr/bin/aws ec2 terminate-instances --instance-ids i-1",
    "a-script": "/usr/local/bin/planted-idle",
    "a-script-of-a-script": "/usr/local/bin/planted-outer",
}
FILES = {
    **{
        f"{UNITS}/planted-{name}.service": f"[Service]\nExecStart=-{line}\n"
        for name, line in COMMANDS.items()
    },
    "/usr/local/bin/planted-idle": "#!/bin/sh\nsleep 5 &&\\\n  poweroff\n",
    "/usr/local/bin/planted-outer": "#!/bin/sh\n/usr/local/bin/planted-idle\n",
    f"{UNITS}/planted-timer.timer": "[Timer]\nOnBootSec=9h\nUnit=poweroff.target\n",
    f"{UNITS}/planted-success.service": "[Service]\nExecStart=true\n[Unit]\nSuccessAction=poweroff-force\n",
    f"{UNITS}/planted-failure.service": "[Unit]\nFailureAction=poweroff\n",
    f"{UNITS}/planted-job.target": "[Unit]\nJobTimeoutSec=9h\nJobTimeoutAction=poweroff-immediate\n",
    f"{UNITS}/ssh.service.d/planted.conf": "[Unit]\nOnFailure=poweroff.target\n",
    "/run/systemd/transient/planted.service": "[Service]\nExecStop=/sbin/poweroff\n",
    "/usr/lib/systemd/system/planted-in-usr.service": "[Service]\nExecStartPost=/usr/sbin/halt\n",
    "/etc/systemd/logind.conf.d/planted.conf": "[Login]\nIdleAction=poweroff\n",
    "/etc/cron.d/planted": "0 3 * * * root /sbin/shutdown -P +5\n",
    "/etc/cron.daily/planted": "#!/bin/sh\npoweroff\n",
    "/var/spool/cron/crontabs/planted": "@reboot sudo poweroff\n",
    "/var/spool/cron/atjobs/a0001": "#!/bin/sh\ncd / || exit\npoweroff\n",
    "/etc/rc.local": "#!/bin/sh\n(sleep 3600; systemctl poweroff) &\n",
    "/etc/cloud/cloud.cfg.d/planted.cfg": "power_state:\n  mode: poweroff\n",
    "/var/lib/cloud/scripts/per-boot/planted": "#!/bin/sh\nhalt -p\n",
}
LINK = f"{UNITS}/timers.target.wants/poweroff.target"
HARMLESS = {
    f"{UNITS}/planted-worker.service": "[Service]\nExecStart=/bin/echo clean shutdown\n# ExecStop=poweroff\n",
    f"{UNITS}/planted-reboot.service": "[Service]\nExecStart=/sbin/shutdown -r +5\n",
    f"{UNITS}/planted-order.service": "[Unit]\nBefore=poweroff.target\nConflicts=halt.target\n",
    "/etc/cron.d/harmless": "0 3 * * * root /usr/bin/poweroff-report --halted; echo do not halt here\n",
}


@pytest.fixture
def brought(machine: Machine) -> Baseline:
    return record_baseline(machine.session, machine.plan, machine.run)


@pytest.fixture
def planted(machine: Machine, brought: Baseline) -> Iterator[None]:
    """Every kind at once, after the record of the base."""
    run = machine.session.run
    for path, content in {**FILES, **HARMLESS}.items():
        line = 'mkdir -p "$(dirname "$1")" && { [ ! -e "$1" ] || cp -a "$1" "$1.before"; } && cat >"$1"'
        run("sh", "-c", line, "sh", path, stdin=content.encode(), sudo=True)
    run("mkdir", "-p", LINK.rpartition("/")[0], sudo=True)
    run("ln", "-s", "/usr/lib/systemd/system/poweroff.target", LINK, sudo=True)
    run("sh", "-c", "setsid sh -c 'sleep 999; : shutdown -h now' >/dev/null 2>&1 &", sudo=True)
    yield
    run("pkill", "-f", "sleep 999; : shutdown", sudo=True, check=False)
    line = 'for file; do rm -f "$file"; [ ! -e "$file.before" ] || mv "$file.before" "$file"; done'
    run("sh", "-c", line, "sh", *FILES, *HARMLESS, LINK, sudo=True)


def test_the_base_brings_no_lease_and_what_it_brings_is_fine(machine: Machine, brought: Baseline) -> None:
    assert KIND in brought.found
    assert [name for name in brought.found[KIND] if is_lease(name)] == []
    with pytest.raises(ImageIsBad) as caught:  # this machine is a builder
        check_power(machine.session, machine.run, brought)
    assert {line.partition(":")[0] for line in caught.value.message.splitlines()[1:]} == {
        f"{layout.UNITS_IN_MEMORY}/{layout.LEASE_UNIT}.{kind}" for kind in ("timer", "service")
    }


def test_everything_that_would_power_it_off_is_found(
    machine: Machine, brought: Baseline, planted: None
) -> None:
    with pytest.raises(ImageIsBad) as caught:
        check_power(machine.session, machine.run, brought)
    lines = caught.value.message.splitlines()[1:]
    missed = [path for path in [*FILES, LINK] if not any(line.startswith(f"{path}: ") for line in lines)]
    # A script alone does nothing: what runs it is named.
    assert missed == ["/usr/local/bin/planted-idle", "/usr/local/bin/planted-outer"]
    assert any(line.startswith("process: ") and "sleep 999" in line for line in lines)
    assert [line for line in lines if line.startswith(tuple(HARMLESS))] == []


def test_without_a_record_of_the_base_only_a_lease_is_bad(machine: Machine, planted: None) -> None:
    with pytest.raises(ImageIsBad) as caught:
        check_power(machine.session, machine.run)
    assert len(caught.value.message.splitlines()[1:]) == 2
    assert f"{layout.LEASE_UNIT}.timer" in caught.value.message


def test_what_the_base_brought_is_noted_alone(machine: Machine, planted: None) -> None:
    """Recorded with all that is planted; the lease is never the base's."""
    everything = record_baseline(machine.session, machine.plan, machine.run)
    assert "/etc/rc.local" in everything.found[KIND]
    with pytest.raises(ImageIsBad) as caught:
        check_power(machine.session, machine.run, everything)
    assert len(caught.value.message.splitlines()[1:]) == 2
