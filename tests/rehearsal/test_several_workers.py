"""Several workers on one instance: the units as they are on the image, under systemd on a real machine."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bake import layout
from bake.lease import Lease
from bake.progress import PlainScreen, Progress
from bake.run import Run
from bake.steps.connect import log_in
from bake.steps.launch import LaunchSpec, launch
from bake.steps.provision import render
from bake.steps.tags import tags
from bake.steps.wait_for_worker import wait_until_ready
from bake.undo import Undo
from bake.wiring import wire

if TYPE_CHECKING:
    from tests.conftest import Machine

pytestmark = pytest.mark.root
ROOTFS = Path(__file__).parents[2] / "provision" / "rootfs"
SETTINGS = layout.SETTINGS | {"BAKE_USER": "ubuntu"}
UNITS = [f"{layout.UNITS}/flux-worker{kind}" for kind in (".service", "@.service", ".path")]
SCRIPTS = [f"{layout.LIBRARY}/{name}.sh" for name in ("wait-for-settings", "workers")]
WORKER = f"{layout.VENV}/bin/flux-worker"
# Says what it was started with, and is ready: all that systemd sees of a worker.
STAND_IN = """#!/usr/bin/python3
import json, os, pathlib, signal, socket
names = ("FLUX_WORKERS", "FLUX_DEVICE", "STATE_DIRECTORY", "RUNTIME_DIRECTORY")
print(json.dumps({name: os.environ.get(name) for name in names}), flush=True)
for folder in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CACHE_DIRECTORY"):
    (pathlib.Path(os.environ[folder]) / f"of-{os.getpid()}").touch()
told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
told.connect(os.environ["NOTIFY_SOCKET"])
told.send(b"READY=1")
signal.pause()
"""
PLACES = "AWS_REGION=eu-west-1\nFLUX_QUEUE_URL=https://q\nFLUX_BUCKET=b\nFLUX_EVENT_BUS=e\n"


def put(machine: Machine, file: str, content: str, mode: str = "644") -> None:
    script = 'mkdir -p "$(dirname "$1")" && cat >"$1.new" && chmod "$2" "$1.new" && mv "$1.new" "$1"'
    machine.session.run("sh", "-c", script, "sh", file, mode, stdin=content.encode(), sudo=True)


def systemctl(machine: Machine, *words: str) -> str:
    return str(machine.session.run("systemctl", *words, sudo=True, check=False).stdout)


@pytest.fixture
def worker(machine: Machine) -> Iterator[Machine]:
    """The builder, with the image's units and a stand-in for the worker, which waits for its settings."""
    for unit in UNITS:
        put(machine, unit, render((ROOTFS / f"{unit[1:]}.j2").read_text(), SETTINGS))
    for script in SCRIPTS:
        put(machine, script, (ROOTFS / script[1:]).read_text(), "755")
    put(machine, layout.WORKER_ENV, "FLUX_BACKEND=cpu\n")
    put(machine, WORKER, STAND_IN, "755")
    machine.session.run("install", "-d", "-o", "ubuntu", "-g", "ubuntu", layout.STATE, sudo=True)
    systemctl(machine, "daemon-reload")
    systemctl(machine, "start", "flux-worker.path", "flux-worker.service")
    yield machine
    systemctl(machine, "stop", "flux-worker.path", "flux-worker.service")
    left = [*UNITS, layout.LIBRARY, layout.STATE, layout.WORKER, str(Path(layout.INSTANCE_ENV).parent)]
    machine.session.run("rm", "-rf", *left, "/run/flux-worker", layout.WORKERS_ENV, sudo=True)
    systemctl(machine, "daemon-reload")
    systemctl(machine, "reset-failed")


def active(machine: Machine) -> dict[str, str]:
    """The services that are active, by name, with their processes."""
    listed = systemctl(
        machine, "list-units", "--state=active", "--plain", "--no-legend", "flux-worker*.service"
    )
    names = [line.split()[0] for line in listed.splitlines()]
    return {name: systemctl(machine, "show", "--value", "-p", "MainPID", name).strip() for name in names}


def wait(machine: Machine, what: str, holds: Callable[[], Any]) -> None:
    machine.aws.wait(what, lambda: holds() or None, timeout=120, longest=0.5)


def told(machine: Machine, unit: str) -> dict[str, str | None]:
    """What the last process of a unit was started with."""
    words = ("-u", unit, "-o", "cat", "--no-pager", "_TRANSPORT=stdout")
    lines = machine.session.run("journalctl", *words, sudo=True).stdout.splitlines()
    return dict(json.loads([line for line in lines if line.startswith("{")][-1]))


BOTH = ["flux-worker@0.service", "flux-worker@1.service"]


def test_several_workers_are_one_service_to_whoever_starts_and_stops_it(worker: Machine) -> None:
    assert active(worker) == {}, "nothing says where the queue is"
    put(worker, layout.INSTANCE_ENV, f"{PLACES}FLUX_WORKERS=2\n")  # for which flux-worker.path waits
    assert wait_until_ready(worker.session, worker.aws, worker.run, stall=120, limit=120) > 0
    begun = active(worker)
    assert sorted(begun) == BOTH
    of_all = {"FLUX_WORKERS": "2", "RUNTIME_DIRECTORY": "/run/flux-worker"}
    for device in "01":
        own = {"FLUX_DEVICE": device, "STATE_DIRECTORY": f"{layout.STATE}/{device}"}
        assert told(worker, f"flux-worker@{device}") == of_all | own

    worker.session.run("kill", "-9", begun[BOTH[1]], sudo=True)
    wait(
        worker,
        "the second to be restarted",
        lambda: active(worker).get(BOTH[1]) not in (None, begun[BOTH[1]]),
    )
    again = active(worker)
    assert again[BOTH[0]] == begun[BOTH[0]], "the first goes on"

    systemctl(worker, "restart", "flux-worker")
    wait(worker, "both to be others", lambda: not set(active(worker).values()) & set(again.values()))
    wait(worker, "both to be ready", lambda: sorted(active(worker)) == BOTH)

    systemctl(worker, "stop", BOTH[0])
    assert list(active(worker)) == BOTH[1:]
    systemctl(worker, "start", "flux-worker")
    wait(worker, "both again", lambda: sorted(active(worker)) == BOTH)
    assert "is not needed" in _refused(worker, "flux-worker@2")

    systemctl(worker, "stop", "flux-worker")
    assert active(worker) == {}
    shown = worker.session.run("ls", "/run/flux-worker", sudo=True).stdout
    assert "of-" in shown, "what they told one another stays"


def test_one_worker_again_where_one_is_wanted(worker: Machine) -> None:
    """What an earlier start found must not count."""
    put(worker, layout.INSTANCE_ENV, f"{PLACES}FLUX_WORKERS=2\n")
    wait(worker, "both", lambda: sorted(active(worker)) == BOTH)
    put(
        worker, layout.INSTANCE_ENV, PLACES
    )  # and flux-worker.path starts the one, which waits for their GPUs
    wait(worker, "the one to wait", lambda: "runs, since" in _journal(worker, "flux-worker"))
    assert sorted(active(worker)) == BOTH
    systemctl(worker, "restart", "flux-worker")
    assert wait_until_ready(worker.session, worker.aws, worker.run, stall=120, limit=120) > 0
    assert list(active(worker)) == ["flux-worker.service"]
    alone = {"FLUX_WORKERS": "1", "FLUX_DEVICE": None, "STATE_DIRECTORY": layout.STATE}
    assert told(worker, "flux-worker") == alone | {"RUNTIME_DIRECTORY": "/run/flux-worker"}
    assert "is not needed" in _refused(worker, "flux-worker@0")
    put(worker, layout.INSTANCE_ENV, f"{PLACES}FLUX_WORKERS=2\n")
    systemctl(worker, "restart", "flux-worker")
    wait(worker, "both once more", lambda: sorted(active(worker)) == BOTH)


def test_two_workers_of_a_baked_image_get_ready_and_show_in_one_status(
    machine: Machine, image: str, tmp_path: Path
) -> None:
    """The workers themselves, from the image's disk, on the CPU in place of GPUs."""
    plan, aws = machine.plan, machine.aws
    run = Run(f"{machine.run.id}-two", tmp_path, Progress(PlainScreen(io.StringIO())))
    Lease(plan.lease, aws, run)
    with Undo() as undo:
        known = {tag["Key"]: tag["Value"] for tag in tags(plan, run, f"bake-{run.id}")}
        settings = wire(aws, run.id, known, undo).environment(
            plan.profile.worker.region, plan.launch.settings
        )
        files = {layout.INSTANCE_ENV: f"{settings}FLUX_WORKERS=2\n"}
        spec = LaunchSpec("two", image, plan.profile.builder.types, files)
        instance = launch(spec, plan, aws, run, undo)
        with log_in(instance, plan, aws, run) as session:
            assert wait_until_ready(session, aws, run, stall=600, limit=1500) > 0
            found = json.loads(session.run(WORKER, "status", "--json").stdout)
            assert [(one["worker"], one["workers"]) for one in found["workers"]] == [(0, 2), (1, 2)]
            shown = session.run(WORKER, "status").stdout.splitlines()
            assert [line[:9] for line in shown if line.startswith("worker")] == ["worker 0:", "worker 1:"]
            session.run("systemctl", "stop", "flux-worker", sudo=True)
            assert session.run(WORKER, "status", check=False).exit_code == 1


def _refused(machine: Machine, unit: str) -> str:
    """What a unit says that is started and does not stay."""
    systemctl(machine, "start", unit)
    assert f"{unit}.service" not in active(machine)
    return _journal(machine, unit)


def _journal(machine: Machine, unit: str) -> str:
    return str(machine.session.run("journalctl", "-u", unit, "-o", "cat", "--no-pager", sudo=True).stdout)
