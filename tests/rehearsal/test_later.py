"""An image boots thirty days later, on a kernel of its own, and stays up: nothing in it powers off."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bake.builder_lease.program import GRACE
from bake.checks.baseline import Baseline
from bake.checks.probes import probe
from bake.layout import LEASE_UNIT
from bake.localcloud import LocalCloud, Settings
from bake.steps.check_power import KIND

from .bakes import Outcome
from .qemu import Kernel, booted, initramfs, kernel

pytestmark = [pytest.mark.root, pytest.mark.long]
LATER = timedelta(days=30)
# A lease that nobody renews ends a machine this long after its boot, where it finds no metadata service.
STAYS = GRACE + 60
# A login on the console hangs up whoever has it open.
WATCH = """say() { sed 's/^/watch: /' >>/dev/ttyS0; }
echo "booted $(date -u +%Y-%m-%dT%H:%M:%S+00:00)" | say
up() { cut -d. -f1 /proc/uptime; }
until [ "$(up)" -ge @STAYS@ ] && systemctl is-active --quiet multi-user.target; do
  sleep 10; echo "up $(up)" | say
done
systemctl list-timers --all --no-legend --no-pager | sed 's/^/timer /' | say
systemctl list-units --all --no-legend --no-pager --plain | sed 's/^/unit /' | say
systemctl list-jobs --no-legend --no-pager | sed 's/^/job /' | say
echo '{"lease": "@LEASE@"}' | python3 /run/watch/power.py | sed 's/^/power /' | say
echo done | say
""".replace("@STAYS@", str(STAYS)).replace("@LEASE@", LEASE_UNIT)
SERVICE = """[Unit]
DefaultDependencies=no
After=local-fs.target
[Service]
ExecStart=/bin/sh /run/watch/watch.sh
"""
# What an image must not hold.
PLANTED = {
    "planted.timer": "[Unit]\nDefaultDependencies=no\n[Timer]\nOnBootSec=60\n",
    "planted.service": "[Unit]\nDefaultDependencies=no\n[Service]\n"
    "ExecStart=/usr/bin/systemctl --no-block poweroff\n",
}


@pytest.fixture(scope="module")
def of(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    return kernel(tmp_path_factory.mktemp("kernel"))


@pytest.fixture
def disk(cloud: LocalCloud, baked: Outcome) -> Path:
    """The root disk of the AMI, as its snapshot has it."""
    return Settings.load().images / f"{baked.report['image']['volumes'][0]['snapshot']}.img"


def ramdisk(of: Kernel, units: dict[str, str]) -> bytes:
    power = probe("power").modules[-1][2]
    return initramfs(of, {"watch.sh": WATCH, "power.py": power}, {"watch.service": SERVICE, **units})


def test_an_image_of_thirty_days_ago_stays_up(of: Kernel, disk: Path, baked: Outcome, tmp_path: Path) -> None:
    clock = datetime.now(UTC) + LATER
    with booted(disk, of, ramdisk(of, {}), clock, tmp_path) as machine:
        told = machine.until("done")
        assert machine.process.poll() is None, f"it powered off: {machine.console.read_text()[-3000:]}"
    began = next(datetime.fromisoformat(line.split()[1]) for line in told if line.startswith("booted "))
    assert abs(began - clock) < timedelta(hours=1)
    assert max(int(line.split()[1]) for line in told if line.startswith("up ")) >= STAYS
    listed = [line for line in told if line.startswith(("timer ", "unit ", "job "))]
    assert [line for line in listed if "multi-user.target" in line]
    assert not [line for line in listed if LEASE_UNIT in line or "poweroff" in line.split()[-1]]
    [power] = [json.loads(line.removeprefix("power ")) for line in told if line.startswith("power ")]
    brought = json.loads((baked.directory / "baseline.json").read_text())["found"]
    assert Baseline(found=brought).caused(KIND, power[KIND]) == {}, power["lines"]


def test_a_timer_that_powers_off_is_seen(of: Kernel, disk: Path, tmp_path: Path) -> None:
    """Or the test above could not fail."""
    with booted(disk, of, ramdisk(of, PLANTED), datetime.now(UTC) + LATER, tmp_path) as machine:
        told = machine.until("done")
        assert machine.process.wait(120) == 0
    assert "done" not in told
