"""A worker that does not become ready: what that says about its image, on a real machine with systemd."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bake.errors import BakeError
from bake.lease import Lease
from bake.run import Run
from bake.steps.boot_check import boot_check
from bake.steps.wait_for_worker import ImageIsBad, wait_until_ready
from bake.undo import Undo
from tests.plans import changed

if TYPE_CHECKING:
    from tests.conftest import Machine

pytestmark = pytest.mark.root
UNIT = "/run/systemd/system/flux-worker.service"
SMI = "/usr/local/bin/nvidia-smi"
READER = "/run/reads.py"
READS = """
import mmap, os
file = os.open("/var/tmp/model", os.O_RDONLY | os.O_DIRECT)
buffer = mmap.mmap(-1, 1 << 20)
while True:
    os.preadv(file, [buffer], 0)
"""


@pytest.fixture
def worker(machine: Machine) -> Iterator[Machine]:
    """The builder, with room for a worker that behaves as a test wants it to."""
    yield machine
    machine.session.run("systemctl", "stop", "flux-worker", sudo=True, check=False)
    machine.session.run("rm", "-f", UNIT, READER, "/var/tmp/model", sudo=True)
    machine.session.run("systemctl", "daemon-reload", sudo=True)
    machine.session.run("systemctl", "reset-failed", sudo=True)


def put(machine: Machine, file: str, content: str) -> None:
    machine.session.run("sh", "-c", 'cat > "$1"', "sh", file, stdin=content.encode(), sudo=True)


def install(machine: Machine, *lines: str) -> None:
    unit = "\n".join(["[Service]", "Type=notify", "NotifyAccess=all", *lines, ""])
    machine.session.run(
        "dd", "if=/dev/zero", "of=/var/tmp/model", "bs=1M", "count=1", "conv=fsync", sudo=True
    )
    machine.session.run("mkdir", "-p", "/run/systemd/system", sudo=True)
    put(machine, UNIT, unit)
    machine.session.run("systemctl", "daemon-reload", sudo=True)
    machine.session.run("systemctl", "start", "--no-block", "flux-worker", sudo=True)


def wait(machine: Machine, *, stall: float = 600, limit: float = 900) -> float:
    return wait_until_ready(machine.session, machine.aws, machine.run, stall=stall, limit=limit)


def install_reader(machine: Machine, *lines: str) -> None:
    put(machine, READER, READS)
    install(machine, f"ExecStart=/usr/bin/python3 {READER}", *lines)


def test_one_that_gets_ready_is_ready(worker: Machine) -> None:
    install(worker, "ExecStart=/bin/sh -c 'systemd-notify --ready; exec sleep 600'")
    assert wait(worker) > 0


def test_without_a_worker_the_image_is_bad_at_once(worker: Machine) -> None:
    with pytest.raises(ImageIsBad, match=r"has no flux-worker\.service: systemd says not-found"):
        wait(worker)


def test_one_that_fails_is_the_images_fault(worker: Machine) -> None:
    install(worker, "ExecStart=/bin/sh -c 'echo no model here; exit 78'")
    with pytest.raises(ImageIsBad, match=r"does not start on the new image:(.|\n)*no model here"):
        wait(worker)


def test_one_that_fails_is_told_with_the_drivers_words(worker: Machine) -> None:
    """The kernel's part is played by a daemon of the driver, and nvidia-smi's by a script."""
    worker.session.run("systemd-cat", "-t", "nvidia-persistenced", "echo", "No NVIDIA devices", sudo=True)
    worker.session.run("systemd-cat", "-t", "others", "echo", "nvidia, says another", sudo=True)
    put(worker, SMI, "#!/bin/sh\necho NVIDIA-SMI has failed >&2\nexit 9\n")
    worker.session.run("chmod", "755", SMI, sudo=True)
    install(worker, "ExecStart=/bin/sh -c 'echo no GPU here; exit 78'")
    try:
        with pytest.raises(ImageIsBad) as caught:
            wait(worker)
    finally:
        worker.session.run("rm", SMI, sudo=True)
    worker_says, _, driver = caught.value.message.partition("\nof the driver:\n")
    assert "no GPU here" in worker_says
    assert driver.splitlines() == ["No NVIDIA devices", "NVIDIA-SMI has failed"]


def test_an_image_whose_gpu_can_not_be_used_is_bad_at_once(machine: Machine, image: str) -> None:
    """The baked image, with nothing said at launch: it draws on a GPU or not at all."""
    drivers = replace(machine.plan.provision.drivers, on_worker=True)
    plan = changed(machine.plan, drivers=drivers)
    run = Run(f"{machine.run.id}-no-gpu", machine.run.directory, machine.run.progress)
    Lease(plan.lease, machine.aws, run)
    with (
        pytest.raises(ImageIsBad, match=r"does not start on the new image:(.|\n)*torch finds no GPU"),
        Undo() as undo,
    ):
        boot_check(plan, machine.aws, run, undo, image)
    journal = (run.logs / "boot-check.journal.log").read_text()
    assert "status=78" in journal
    assert "Scheduled restart job" not in journal


def test_one_that_hangs_is_the_images_fault(worker: Machine) -> None:
    install(worker, "ExecStart=/bin/sleep 600")
    with pytest.raises(ImageIsBad, match="the worker's READY: not there, and no progress for"):
        wait(worker, stall=1)


def test_one_that_hangs_after_it_has_read_is_the_images_fault(worker: Machine) -> None:
    put(worker, READER, READS.replace("while True", "for _ in range(9)") + "import time; time.sleep(600)\n")
    install(worker, f"ExecStart=/usr/bin/python3 {READER}")
    with pytest.raises(ImageIsBad, match="no progress for"):
        wait(worker, stall=5)


def test_one_that_reads_on_is_waited_for_longer_than_one_that_hangs(worker: Machine) -> None:
    ready = 'import subprocess; subprocess.run(["systemd-notify", "--ready"]); import time; time.sleep(600)\n'
    slow = READS.replace("while True", "import time\nfor _ in range(60)") + "    time.sleep(0.2)\n" + ready
    put(worker, READER, slow)
    install(worker, f"ExecStart=/usr/bin/python3 {READER}")
    assert wait(worker, stall=8) > 0


def test_one_that_still_reads_at_the_end_says_nothing_about_the_image(worker: Machine) -> None:
    install_reader(worker)
    with pytest.raises(BakeError, match="not there after 1 s; the worker still gets on") as caught:
        wait(worker, limit=1)
    assert not isinstance(caught.value, ImageIsBad)
    assert "worker.start_hours" in str(caught.value.hint)


RESTARTED = ("Restart=on-failure", "RestartSec=1", "TimeoutStartSec=4", "TimeoutStopSec=4")


def test_one_whose_time_ends_while_it_reads_says_nothing_about_the_image(worker: Machine) -> None:
    """A worker that asks for no more time: one of an older image, or one whose disk paused for too long."""
    install_reader(worker, *RESTARTED)
    with pytest.raises(BakeError, match=r"ran out of time .* while it read from the disk") as caught:
        wait(worker)
    assert not isinstance(caught.value, ImageIsBad)


def test_one_whose_time_ends_while_it_does_nothing_is_the_images_fault(worker: Machine) -> None:
    install(worker, "ExecStart=/bin/sleep 600", *RESTARTED)
    with pytest.raises(ImageIsBad, match="does not start on the new image"):
        wait(worker)


def test_one_that_fails_while_it_reads_is_the_images_fault(worker: Machine) -> None:
    put(worker, READER, READS.replace("while True", "for _ in range(9)") + "raise SystemExit('damaged')\n")
    install(worker, f"ExecStart=/usr/bin/python3 {READER}")
    with pytest.raises(ImageIsBad, match=r"does not start on the new image:(.|\n)*damaged"):
        wait(worker)
