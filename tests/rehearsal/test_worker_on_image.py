"""What a worker that does not get ready says about its image, told on a real machine with systemd."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from bake.errors import BakeError
from bake.steps.boot_check import ImageIsBad, wait_until_ready

if TYPE_CHECKING:
    from tests.conftest import Machine

pytestmark = pytest.mark.root
UNIT = "/run/systemd/system/flux-worker.service"
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


def wait(machine: Machine, seconds: float) -> float:
    return wait_until_ready(machine.session, machine.aws, machine.run, seconds)


def test_one_that_gets_ready_is_ready(worker: Machine) -> None:
    install(worker, "ExecStart=/bin/sh -c 'systemd-notify --ready; exec sleep 600'")
    assert wait(worker, 120) > 0


def test_without_a_worker_the_image_is_bad_at_once(worker: Machine) -> None:
    with pytest.raises(ImageIsBad, match=r"has no flux-worker\.service: systemd says not-found"):
        wait(worker, 600)


def test_one_that_fails_is_the_images_fault(worker: Machine) -> None:
    install(worker, "ExecStart=/bin/sh -c 'echo no model here; exit 78'")
    with pytest.raises(ImageIsBad, match=r"does not start on the new image:(.|\n)*no model here"):
        wait(worker, 600)


def test_one_that_hangs_is_the_images_fault(worker: Machine) -> None:
    install(worker, "ExecStart=/bin/sleep 600")
    with pytest.raises(ImageIsBad, match="the worker's READY: not there after 1 s"):
        wait(worker, 1)


def test_one_that_still_reads_its_model_says_nothing_about_the_image(worker: Machine) -> None:
    model = ("if=/dev/zero", "of=/var/tmp/model", "bs=1M", "count=1", "conv=fsync")
    worker.session.run("dd", *model, sudo=True)
    put(worker, READER, READS)
    install(worker, f"ExecStart=/usr/bin/python3 {READER}")
    with pytest.raises(BakeError, match="still reads its model from the disk") as caught:
        wait(worker, 1)
    assert not isinstance(caught.value, ImageIsBad)
