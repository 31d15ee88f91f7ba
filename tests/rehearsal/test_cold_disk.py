"""A start from a disk that fills while it is read: slow, and not dead.

The worker's libraries, some hundred MB, come from the disk by page faults as the weights do.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bake.layout import INSTANCE_ENV
from bake.lease import Lease
from bake.localcloud import LocalCloud, Settings, over_socket
from bake.progress import PlainScreen, Progress
from bake.run import Run
from bake.ssh import Session
from bake.steps.connect import log_in
from bake.steps.launch import LaunchSpec, launch
from bake.steps.tags import tags
from bake.steps.wait_for_worker import services, wait_until_ready
from bake.undo import Undo
from bake.wiring import wire

if TYPE_CHECKING:
    from tests.conftest import Machine

pytestmark = pytest.mark.root
# MB/s one block after the other; with the image's read-ahead some five come at once. MB/s of all at most.
RATE, CEILING = 4.0, 100.0
# Seconds that the unit gives the worker: too few to read its libraries at that rate.
LIMIT = 20
# What the worker reads before it can ask for more time; the limit of a real unit is far above that.
BEFORE = "import flux_worker.cli, flux_worker.serve"
DROP_IN = "/etc/systemd/system/flux-worker.service.d/short.conf"
# What starts like the worker, reads for longer than its unit gives it, and then hangs.
HANGS = """
import os, time
from flux_worker.host.monitor import Monitor
from flux_worker.host.notify import Notifier
from flux_worker.host.startup import StartupMonitor
with StartupMonitor(Monitor(Notifier()), stall_seconds=4, interval=0.5) as startup:
    startup.doing("Loading the model")
    file = os.open("/var/tmp/model", os.O_RDONLY)
    started = time.monotonic()
    while time.monotonic() - started < 9:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.pread(file, 4 << 20, 0)
        time.sleep(0.1)
    print("hangs", flush=True)
    time.sleep(600)
"""
UNIT = """
[Service]
Type=notify
TimeoutStartSec=4
ExecStart=/opt/flux-worker/venv/bin/python /run/hangs.py
"""


def put(session: Session, file: str, content: str) -> None:
    session.run("mkdir", "-p", str(Path(file).parent), sudo=True)
    session.run("sh", "-c", 'cat > "$1"', "sh", file, stdin=content.encode(), sudo=True)


@pytest.fixture(scope="module")
def short(machine: Machine, image: str) -> Iterator[str]:
    """The baked image, whose unit gives the worker little time."""
    ec2: Any = machine.aws.ec2
    with Undo() as undo:
        spec = LaunchSpec("short", image, machine.plan.profile.builder.types)
        instance = launch(spec, machine.plan, machine.aws, machine.run, undo)
        with log_in(instance, machine.plan, machine.aws, machine.run) as session:
            put(session, DROP_IN, f"[Service]\nTimeoutStartSec={LIMIT}\n")
            session.run("sync")
        made = ec2.create_image(InstanceId=instance.id, Name=f"short-{machine.run.id}")["ImageId"]
        ec2.get_waiter("image_available").wait(ImageIds=[made], WaiterConfig={"Delay": 1, "MaxAttempts": 300})
    yield str(made)
    ec2.deregister_image(ImageId=made)


@contextmanager
def lazily(settings: Settings) -> Iterator[None]:
    """Disks of instances that are launched meanwhile fill while they are read."""
    ask = over_socket(settings)
    ask("POST", f"/-/lazy-disks?rate={RATE}&ceiling={CEILING}", None)
    try:
        yield
    finally:
        ask("DELETE", "/-/lazy-disks", None)


def seconds_to_ready(session: Session) -> float:
    """From the start of the worker's process to its READY, by systemd's clock."""
    names = ("ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic")
    begun, ready = (
        int(session.run("systemctl", "show", "--value", "-p", name, "flux-worker").stdout) for name in names
    )
    return (ready - begun) / 1e6


@pytest.mark.long  # three minutes: the whole machine boots from that disk
def test_a_worker_on_a_cold_disk_gets_ready(
    machine: Machine, cloud: LocalCloud, cloud_settings: Settings, short: str, tmp_path: Path
) -> None:
    shown = io.StringIO()
    run = Run(f"{machine.run.id}-cold", tmp_path, Progress(PlainScreen(shown)))
    plan, aws = machine.plan, machine.aws
    Lease(plan.lease, aws, run)
    with Undo() as undo:
        known = {tag["Key"]: tag["Value"] for tag in tags(plan, run, f"bake-{run.id}")}
        wiring = wire(aws, run.id, known, undo)
        settings = wiring.environment(plan.profile.worker.region, plan.launch.settings)
        with lazily(cloud_settings):
            spec = LaunchSpec("cold", short, plan.profile.builder.types)
            instance = launch(spec, plan, aws, run, undo)
        with log_in(instance, plan, aws, run) as session:
            script = 'cat "/sys/dev/block/$(findmnt -no MAJ:MIN --target / | tr -d " ")/queue/read_ahead_kb"'
            assert session.run("sh", "-c", script).stdout == "2560\n", "the image's own rule"
            session.run("/opt/flux-worker/venv/bin/python", "-c", BEFORE)
            put(session, INSTANCE_ENV, settings)  # for which flux-worker.path waits
            wait_until_ready(session, aws, run, stall=300, limit=1500)
            assert services(session)[0]["NRestarts"] == "0"
            assert seconds_to_ready(session) > LIMIT, "the disk was too fast to show anything"
            assert "MB read, " in shown.getvalue(), "no progress was told"
            _hangs(session)


def _hangs(session: Session) -> None:
    """One that reads no more dies by its unit's limit, although that was extended while it read."""
    session.run("systemctl", "stop", "flux-worker", sudo=True)
    session.run("dd", "if=/dev/urandom", "of=/var/tmp/model", "bs=1M", "count=4", "conv=fsync", sudo=True)
    put(session, "/run/hangs.py", HANGS)
    put(session, "/run/systemd/system/hangs.service", UNIT)
    session.run("systemctl", "daemon-reload", sudo=True)
    session.run("systemctl", "start", "hangs", sudo=True, check=False)
    said = session.run("journalctl", "-u", "hangs", "-o", "cat", sudo=True).stdout
    assert "hangs" in said.splitlines(), "it was stopped while it read"
    assert session.run("systemctl", "show", "--value", "-p", "Result", "hangs").stdout == "timeout\n"
