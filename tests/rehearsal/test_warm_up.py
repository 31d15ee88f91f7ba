"""flux-warm.service under systemd on real machines: its sandbox, its end, and when in a boot it starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bake import layout
from bake.lease import Lease
from bake.run import Run
from bake.ssh import Session
from bake.steps.connect import log_in
from bake.steps.launch import LaunchSpec, launch
from bake.steps.provision import render
from bake.undo import Undo

if TYPE_CHECKING:
    from tests.conftest import Machine

pytestmark = pytest.mark.root
ROOTFS = Path(__file__).parents[2] / "provision" / "rootfs"
CACHE = "/home/ubuntu/.cache/huggingface/hub"
UNIT = f"{layout.UNITS}/{layout.WARM_SERVICE}"
PROGRAMS = [f"{layout.LIBRARY}/{name}.py" for name in ("warm", "reading_order", "surroundings")]
WEIGHTS = f"{CACHE}/weights"
# Another user's, whom nobody else may read; so often that the end is far.
SETUP = f"""
mkdir -p {layout.VENV}/bin {CACHE} /etc/flux-worker
ln -sfn /usr/bin/python3 {layout.VENV}/bin/python
dd if=/dev/urandom of={WEIGHTS} bs=1M count=64 status=none
chmod 600 {WEIGHTS}
chmod 700 {CACHE}
chown -R ubuntu: {CACHE}
stat -c '%s %.9Y' {WEIGHTS}
"""
TIMES = 5000
CAP_DAC_READ_SEARCH = 1 << 2


def put(session: Session, file: str, content: str) -> None:
    script = 'mkdir -p "$(dirname "$1")" && cat >"$1"'
    session.run("sh", "-c", script, "sh", file, stdin=content.encode(), sudo=True)


def shown(session: Session, unit: str, *names: str) -> list[str]:
    words = [word for name in names for word in ("-p", name)]
    lines = session.run("systemctl", "show", unit, *words, sudo=True).stdout.splitlines()
    found = dict(line.split("=", 1) for line in lines)
    return [found[name] for name in names]


def report(session: Session) -> dict[str, Any]:
    """What the warm-up tells, to anybody; empty before it does."""
    text = session.run("cat", layout.WARM_REPORT, check=False).stdout
    found: dict[str, Any] = json.loads(text or "{}")
    return found


def wait(machine: Machine, what: str, holds: Callable[[], Any]) -> Any:
    return machine.aws.wait(what, lambda: holds() or None, timeout=120, longest=0.5)


@pytest.fixture
def builder(machine: Machine) -> Iterator[Machine]:
    """The builder with the image's unit and programs, and something to read that takes long."""
    session, settings = machine.session, layout.SETTINGS | {"HF_HUB_CACHE": CACHE}
    for program in PROGRAMS:
        put(session, program, (ROOTFS / program[1:]).read_text())
    put(session, UNIT, render((ROOTFS / f"{UNIT[1:]}.j2").read_text(), settings))
    size, time = session.run("sh", "-c", SETUP, sudo=True).stdout.split()
    entry = [WEIGHTS, 0, 0, int(size), int(time.replace(".", ""))]
    stages = [{"name": "transformer", "ranges": [entry] * TIMES}]
    trace = {"format": 1, "image": "a plan", "recorded": "start on cpu", "stages": stages}
    put(session, layout.TRACE, json.dumps(trace))
    session.run("systemctl", "daemon-reload", sudo=True)
    yield machine
    session.run("systemctl", "stop", layout.WARM_SERVICE, sudo=True)
    left = [UNIT, layout.LIBRARY, layout.WORKER, CACHE, str(Path(layout.WARM_REPORT).parent)]
    session.run("rm", "-rf", *left, sudo=True)
    session.run("systemctl", "daemon-reload", sudo=True)


def test_killed_it_goes_on_and_stopped_it_ends(builder: Machine) -> None:
    """It reads what is another user's, and has no other right of root."""
    session = builder.session
    session.run("systemctl", "start", layout.WARM_SERVICE, sudo=True)
    first = wait(builder, "the first report", lambda: report(session).get("bytes"))
    [pid] = shown(session, layout.WARM_SERVICE, "MainPID")
    status = session.run("cat", f"/proc/{pid}/status", sudo=True).stdout
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == CAP_DAC_READ_SEARCH
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert "idle" in session.run("ionice", "-p", pid, sudo=True).stdout
    assert int(facts["VmHWM"].split()[0]) < 64 << 10, "kB"

    session.run("kill", "-9", pid, sudo=True)
    wait(
        builder, "the next one", lambda: any("was killed after" in one for one in report(session)["skipped"])
    )
    assert shown(session, layout.WARM_SERVICE, "ActiveState", "NRestarts") == ["active", "1"]
    assert first > 0

    session.run("systemctl", "stop", layout.WARM_SERVICE, sudo=True)
    assert report(session)["state"] == "stopped"
    assert shown(session, layout.WARM_SERVICE, "ActiveState", "Result") == ["inactive", "success"]


def test_on_a_builder_it_does_not_run(builder: Machine) -> None:
    session = builder.session
    session.run("mkdir", layout.BAKE, sudo=True)
    try:
        session.run("systemctl", "start", layout.WARM_SERVICE, sudo=True)
        assert shown(session, layout.WARM_SERVICE, "ActiveState", "ConditionResult") == ["inactive", "no"]
    finally:
        session.run("rmdir", layout.BAKE, sudo=True)
    assert report(session) == {}


NETWORK_STAGES = ("cloud-init.service", "cloud-init-network.service")  # its name until 24.2, and from then on


def started(session: Session, unit: str) -> int:
    """When its process was started, in microseconds since the boot; 0 if it was not."""
    [at] = shown(session, unit, "ExecMainStartTimestampMonotonic")
    return int(at)


def test_a_boot_of_the_image_reads_before_the_network_is_there(
    machine: Machine, image: str, tmp_path: Path
) -> None:
    """And a trace that is of no use fails nothing: the next start follows a static order."""
    plan, aws = machine.plan, machine.aws
    run = Run(f"{machine.run.id}-warm", tmp_path, machine.run.progress)
    Lease(plan.lease, aws, run)
    with Undo() as undo:
        spec = LaunchSpec("warm", image, plan.profile.builder.types)
        instance = launch(spec, plan, aws, run, undo)
        with log_in(instance, plan, aws, run) as session:
            done = wait(
                machine, "its end", lambda: report(session).get("state") == "done" and report(session)
            )
            assert done["bytes"] >= 0.9 * done["of"] > 0, done
            assert {"text_encoders", "transformer", "vae"} <= {stage["name"] for stage in done["stages"]}
            stages = [at for unit in NETWORK_STAGES if (at := started(session, unit))]
            assert 0 < started(session, layout.WARM_SERVICE) < min(stages)
            order = shown(session, layout.WARM_SERVICE, "Before")[0].split()
            assert order == ["shutdown.target"], "nothing waits for it"

            put(session, layout.TRACE, "no trace")
            session.run("rm", layout.WARM_REPORT, sudo=True)
            session.run("systemctl", "restart", layout.WARM_SERVICE, sudo=True)
            static = wait(
                machine, "its end", lambda: report(session).get("state") == "done" and report(session)
            )
            assert (static["recorded"], static["bytes"]) == ("static", static["of"])
            assert any(f"{layout.TRACE} is no trace" in line for line in static["skipped"])
            assert shown(session, layout.WARM_SERVICE, "Result") == ["success"]
