"""The checks against a real machine: green as it was provisioned, and the seal holds."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from bake import background
from bake import run as runs_of
from bake.errors import BakeError
from bake.localcloud import Settings
from bake.steps import provision
from bake.steps.create_image import stop
from bake.steps.quantize import quantize
from bake.steps.record_trace import record_trace
from bake.steps.seal import seal
from tests.plans import changed

from .builders import Builder, red
from .seeded_faults import CACHE

pytestmark = pytest.mark.root


def test_nvidias_daemons_may_fail_where_there_is_no_gpu(builder: Builder) -> None:
    builder.root("systemd-run --quiet --unit=nvidia-persistenced false")
    builder.root("until systemctl is-failed -q nvidia-persistenced; do sleep 0.1; done")
    try:
        assert red(builder.check(select="failed_units")) == {}
        for expect in ({"device": True}, {"accelerator": "neuron"}):
            report = builder.check(select="failed_units", **expect)
            assert "nvidia-persistenced.service" in red(report)["system.no_failed_units"]
    finally:
        builder.root("systemctl reset-failed nvidia-persistenced")


def test_a_model_in_another_precision_than_planned(builder: Builder) -> None:
    report = builder.check(select="precision or no_offload or int8", precision="int8")
    int8 = {"is_there_if_wanted", "is_whole", "draws_like_bf16", "is_roots"}
    assert red(report).keys() == {"weights.precision", *(f"weights.int8_{name}" for name in int8)}


AS_NEVER_QUANTIZED = "systemctl reset-failed bake-quantize; rm /run/bake/bake-quantize.*"


def test_int8_that_cannot_be_made_is_reported_with_the_reason(builder: Builder) -> None:
    weights = builder.plan.profile.weights.model_copy(update={"precision": "int8", "keep_source": False})
    profile = builder.plan.profile.model_copy(update={"weights": weights})
    plan = changed(builder.plan, profile)
    builder.root("mkdir /opt/flux-worker/int8")
    try:
        with pytest.raises(BakeError, match="not quantized: /opt/flux-worker/int8 exists") as caught:
            quantize(builder.session, plan, builder.run)
    finally:
        builder.root("rmdir /opt/flux-worker/int8", AS_NEVER_QUANTIZED)
    assert "run directory" in str(caught.value.hint)
    assert (builder.run.logs / "bake-quantize.out.log").exists()
    drivers = dataclasses.replace(plan.provision.drivers, on_builder=True)
    with pytest.raises(BakeError, match="not quantized: torch finds no GPU on the builder"):
        quantize(builder.session, changed(plan, drivers=drivers), builder.run)
    builder.root(AS_NEVER_QUANTIZED)
    assert red(builder.check(select="weights")) == {}  # nothing was removed for it


IMPORTS, TRACE_FILE = "/opt/bake/tracing/imports.py", "/usr/lib/flux-worker/trace.json"
NEVER_TRACED = (
    "systemctl stop 'bake-trace*'; systemctl reset-failed 'bake-trace*' 2>/dev/null || :;"
    " rm -f /run/bake/bake-trace*"
)
BREAKS = {
    "the start fails": ("raise SystemExit('no such model')", "exit code 1: no such model"),
    # As the kernel does it where memory runs out: the recorder and all that it started.
    "the recorder is killed": (
        "import signal; open('/dev/shm/started', 'w').close(); signal.pause()",
        "the recorder ended with exit code 9: systemd: result signal",
    ),
}


@pytest.mark.parametrize(("imports", "why"), BREAKS.values(), ids=BREAKS)
def test_a_recording_that_goes_wrong_leaves_a_list_and_the_bake_goes_on(
    builder: Builder, tmp_path: Path, imports: str, why: str
) -> None:
    run = runs_of.new(tmp_path, builder.run.progress)
    builder.root(NEVER_TRACED, f"cp -a {IMPORTS} {TRACE_FILE} /root/; cat >{IMPORTS} <<'END'\n{imports}\nEND")
    try:
        recorded = background.start(lambda: record_trace(builder.session, builder.plan, run))
        if "pause" in imports:
            builder.root(
                "until [ -e /dev/shm/started ]; do sleep 0.1; done; systemctl kill -s KILL bake-trace"
            )
        trace = recorded.result()
        assert trace is not None and trace.recorded == "static"
        found = json.loads((run.directory / "facts/trace.json").read_text())
        assert why in found["why"]
        (case,) = json.loads((run.directory / "facts/checks-sealed-trace.json").read_text())
        assert (case["outcome"], case["about"]["id"]) == ("failed", "performance.trace_recorded")
        assert why in case["reason"]
        assert red(builder.check(select="trace or bytecode or failed_units")) == {}
    finally:
        builder.root(
            f"mv /root/imports.py {IMPORTS}; mv /root/trace.json {TRACE_FILE}; rm -f /dev/shm/started",
            NEVER_TRACED,
        )


def test_an_image_for_another_backend(builder: Builder) -> None:
    found = red(builder.check(select="backend", backend="cpu"))
    assert found == {"worker.backend": "expected cpu, found cuda"}


@pytest.mark.parametrize(
    "folder", ["/opt", "/opt/flux-worker", "/etc/flux-worker", "/opt/flux-worker/venv/bin"]
)
def test_what_the_worker_may_not_read(builder: Builder, folder: str) -> None:
    """As a base with umask 077 leaves it, where something was made before the bake set its own."""
    builder.root(f"stat -c %a {folder} > /root/mode; chmod 700 {folder}")
    found = red(builder.check(select="may_read"))
    builder.root(f"chmod $(cat /root/mode) {folder}")
    assert found.keys() == {"worker.worker_may_read_what_it_needs"}
    assert red(builder.check(select="may_read")) == {}


def test_green_as_provisioned(builder: Builder) -> None:
    """Last of the checks: all faults are mended, and none was in the provisioning."""
    assert red(builder.check()) == {}


def test_scripts_can_run_again(builder: Builder) -> None:
    """A second run changes nothing that matters, and needs no package index of the system."""
    builder.root("mv /etc/apt /etc/apt.gone; systemctl stop 'bake-*'")
    try:
        provision.install_tools(builder.session, builder.plan, builder.aws, builder.run)
        provision.run_scripts(builder.session, builder.run, lambda: None)
    finally:
        builder.root("mv /etc/apt.gone /etc/apt")
    assert red(builder.check(select="worker or writable")) == {}


def test_sealed_disk_holds_no_trace(builder: Builder, cloud_settings: Settings) -> None:
    """What was deleted cannot be read from the raw disk either, and what must stay is there."""
    trace = f"trace-of-{builder.run.id}"
    builder.root(
        f"echo {trace} > ~ubuntu/.bash_history",
        f"mkdir /var/log/app; echo {trace} > /var/log/app/x.log",
        f"echo {trace} > /var/lib/cloud/instance/user-data.txt",
        f"echo {trace} > /root/.netrc",
        f"install -d /var/lib/flux-worker/outbox; echo {trace} > /var/lib/flux-worker/outbox/a.json",
        "sync",
    )
    seal(builder.session, builder.plan, builder.aws, builder.run)
    listing = builder.session.run("find", CACHE, "/opt", "-maxdepth", "1", sudo=True).stdout.split()
    assert {builder.expect.repo_dir, "/opt/flux-worker"} <= set(listing)
    assert "/opt/bake" not in listing
    stop(builder.aws, builder.run, builder.instance)
    disk = cloud_settings.instances / builder.instance.id / "disk.img"
    # The second word shows that the search works.
    assert found_in(disk, trace.encode(), b"FLUX_MODEL_REVISION=") == {b"FLUX_MODEL_REVISION="}


def found_in(disk: Path, *words: bytes) -> set[bytes]:
    """Which of the words the data of a sparse file holds."""
    buffer = bytearray(8 << 20)
    overlap = max(map(len, words))
    found: set[bytes] = set()
    with disk.open("rb") as file:
        end, size = 0, disk.stat().st_size
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                break  # only a hole is left
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            for offset in range(start, end, len(buffer) - overlap):
                count = os.preadv(file.fileno(), [buffer], offset)
                found |= {word for word in words if buffer.find(word, 0, count) >= 0}
    return found
