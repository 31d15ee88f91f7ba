"""The checks against a real machine: each seeded fault is seen, nothing else is, and the seal holds."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bake import checks
from bake.aws import Aws
from bake.checks import Expectations, Report
from bake.errors import BakeError
from bake.localcloud import Settings
from bake.planning.plan import Plan
from bake.run import Run
from bake.ssh import Session
from bake.steps import prefetch, provision
from bake.steps.create_image import stop
from bake.steps.launch import Instance
from bake.steps.quantize import quantize
from bake.steps.seal import seal
from bake.steps.verify import expectations
from bake.undo import Undo
from tests.plans import changed

from . import seeded_faults

if TYPE_CHECKING:
    from tests.conftest import NewMachine

pytestmark = pytest.mark.root

LOADED = ("loads_offline", "is_flux_dev", "precision", "no_offload")


@dataclass(frozen=True)
class Builder:
    """A machine as the bake has it just before `verify`."""

    plan: Plan
    aws: Aws
    run: Run
    instance: Instance
    session: Session
    expect: Expectations
    blob: str
    """The name of a blob in the cache."""

    def check(self, select: str | None = None, **expect: object) -> Report:
        """Run the checks, all of them unless `select` narrows it."""
        expected = dataclasses.replace(self.expect, **expect)  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory() as folder:
            return checks.run(self.session, expected, Path(folder, "log"), select=select)

    def root(self, *lines: str) -> str:
        """Run a bash script as root. It goes in by stdin: sudo would log it, a seeded token too."""
        names = {
            "SNAPSHOT": f"{self.expect.repo_dir}/snapshots/{self.expect.revision}",
            "BLOBS": f"{self.expect.repo_dir}/blobs",
            "BLOB": self.blob,
            "PY": f"python{self.expect.python}",
            "TOKEN": self.expect.token or "",
        }
        settings = [f"{name}={shlex.quote(value)}" for name, value in names.items()]
        script = "\n".join([*settings, *lines]).encode()
        return self.session.run("bash", "-euo", "pipefail", "-s", stdin=script, sudo=True).stdout


@pytest.fixture(scope="module")
def builder(new_machine: NewMachine) -> Iterator[Builder]:
    with new_machine() as machine:
        plan, run, session = machine.plan, machine.run, machine.session
        provision.upload(session, plan, run)
        provision.install_tools(session, plan, machine.aws, run)
        download = prefetch.start(session, plan, machine.aws, run, Undo(), machine.instance)
        provision.run_scripts(session, run, download.check)
        download.wait()
        expect = expectations(plan, machine.aws, machine.instance)
        blob = session.run("ls", f"{expect.repo_dir}/blobs").stdout.split()[0]
        yield Builder(plan, machine.aws, run, machine.instance, session, expect, blob)


def red(report: Report) -> set[str]:
    return {check.id for check in report.red}


def test_every_seeded_fault_is_seen_and_nothing_else(builder: Builder) -> None:
    assert len(seeded_faults.FAULTS) >= 25
    builder.root(*(fault.seed for fault in seeded_faults.FAULTS))
    try:
        report = builder.check()
    finally:
        builder.root(*(fault.mend for fault in seeded_faults.FAULTS))
    seen = {name for fault in seeded_faults.FAULTS for name in fault.red}
    assert {check.id: check.reason for check in report.red if check.id not in seen} == {}
    assert red(report) == seen
    assert builder.expect.token not in "".join(check.reason for check in report.checks)


def test_a_driver_and_a_stack_that_are_not_there(builder: Builder) -> None:
    """No machine of the local cloud has a driver: what is expected says that there must be one."""
    assert red(builder.check(select="drivers", driver_minimum="580.65.06")) == {
        "drivers.driver_is_new_enough",
        "drivers.driver_has_its_libraries",
    }
    report = builder.check(select="drivers", accelerator="neuron")
    assert len(red(report)) == 4
    assert all(name.startswith("drivers.neuron_stack") for name in red(report))


def test_a_neuron_image_without_what_was_to_be_compiled(builder: Builder) -> None:
    """No size of images, no environment that draws it, and what a compiler leaves."""
    builder.root("mkdir /var/tmp/neuron-compile-cache")
    report = builder.check(select="neuron or compile", accelerator="neuron", neuron_sizes=("1024x1024",))
    builder.root("rmdir /var/tmp/neuron-compile-cache")
    names = ("compiled_for_neuron", "worker_finds_what_is_compiled", "compiler_left_nothing_else")
    assert {name for name in red(report) if "stack" not in name} == {f"drivers::{name}" for name in names}


# Where there would be a kernel with a driver's module, and CUDA's library; the machine is a container.
DRIVER = """
cd /usr/local/bin
stand_in() { printf '#!/bin/sh\n%s\n' "$2" >"$1"; chmod 755 "$1"; }
stand_in systemd-detect-virt 'exit 1'
stand_in grubby 'echo /boot/vmlinuz-6.8.0-1099-aws'
stand_in modinfo '[ "$1" = --set-version=6.8.0-1099-aws ] || exit 1; echo 580.95.05'
stand_in ldconfig 'echo "	libcuda.so.1 (libc6,x86-64) => /root/libcuda.so.1"'
ln -s libcuda.so.580.95.05 /root/libcuda.so.1
touch /root/libcuda.so.580.95.05
"""


@pytest.fixture
def driven(builder: Builder) -> Iterator[Builder]:
    """The builder with an NVIDIA driver, as far as a machine without a GPU has one."""
    builder.root(DRIVER)
    yield builder
    builder.root("rm -f /usr/local/bin/* /root/libcuda*")


def test_a_driver_is_checked_without_a_gpu(driven: Builder) -> None:
    def found() -> set[str]:
        return red(driven.check(select="drivers", driver_minimum="580.65.06"))

    assert found() == set()
    driven.root("ln -sf libcuda.so.590.44.01 /root/libcuda.so.1; touch /root/libcuda.so.590.44.01")
    assert found() == {"drivers.driver_has_its_libraries"}
    driven.root("sed -i s/1099/1100/ /usr/local/bin/grubby")  # a kernel that was installed after the driver
    assert found() == {"drivers.driver_has_its_libraries", "drivers.driver_is_new_enough"}


def test_a_gpu_is_checked_where_the_plan_has_one(driven: Builder) -> None:
    """Not where one happens to be: without a word of the plan, nobody asks."""
    assert red(driven.check(select="drivers")) == set()
    report = driven.check(select="drivers", device=True)
    assert red(report) == {"drivers.gpus_answer", "drivers.torch_has_the_gpu"}
    driven.root("printf '#!/bin/sh\necho 580.95.05\n' >/usr/local/bin/nvidia-smi; chmod 755 /usr/local/bin/*")
    assert red(driven.check(select="gpus_answer", device=True)) == set()
    driven.root("sed -i s/580/590/ /usr/local/bin/nvidia-smi")
    assert red(driven.check(select="gpus_answer", device=True)) == {"drivers.gpus_answer"}
    assert red(driven.check(select="devices", accelerator="neuron", device=True)) == {
        "drivers.neuron_devices_are_there"
    }


def test_nvidias_daemons_may_fail_where_there_is_no_gpu(builder: Builder) -> None:
    builder.root("systemd-run --quiet --unit=nvidia-persistenced false")
    builder.root("until systemctl is-failed -q nvidia-persistenced; do sleep 0.1; done")
    try:
        assert red(builder.check(select="failed_units")) == set()
        for expect in ({"device": True}, {"accelerator": "neuron"}):
            assert red(builder.check(select="failed_units", **expect)) == {"system.no_failed_units"}
    finally:
        builder.root("systemctl reset-failed nvidia-persistenced")


def test_broken_weights(builder: Builder) -> None:
    """A shard that is missing and one that is cut short: sizes, links and the model itself tell."""
    gone, short = sorted(name for name in builder.expect.files if name.startswith("transformer/diffusion"))[
        :2
    ]
    builder.root(
        f"mv $SNAPSHOT/{gone} /root/shard",
        f"cp --preserve=all -L $SNAPSHOT/{short} /root/whole",
        f"truncate -s 100 $SNAPSHOT/{short}",
    )
    report = builder.check(select="cache or model")
    builder.root(f"mv /root/shard $SNAPSHOT/{gone}", f"cp --preserve=all /root/whole $SNAPSHOT/{short}")
    builder.root("rm /root/whole")
    assert red(report) == {
        "weights.files_are_there",
        "weights.files_have_their_size",
        "weights.no_unused_blobs",
        *(f"model::{name}" for name in LOADED),
    }


def test_model_in_another_precision(builder: Builder) -> None:
    report = builder.check(select="precision or no_offload or int8", precision="int8")
    assert red(report) == {"weights.precision", "weights.int8_is_there_if_wanted"}


def test_int8_checkpoints_that_are_not_what_they_were(builder: Builder) -> None:
    """Half a checkpoint, with a file too many, of another revision, in everybody's reach, and unlike bf16."""
    folder = f"{builder.session.run('mktemp', '-d').stdout.strip()}/int8"
    outputs = {"vae/a.safetensors": {"bytes": 9}, "vae/b.safetensors": {"bytes": 9}}
    provenance = json.dumps({"revision": "0" * 40, "outputs": outputs})
    builder.root(
        f"install -d -m 777 {folder}/vae",
        f"echo short > {folder}/vae/a.safetensors; echo more > {folder}/vae/c.safetensors",
        f"echo {shlex.quote(provenance)} > {folder}/quantization.json",
        f"""echo '{{"psnr": 11.5}}' > {folder}/comparison.json""",
    )
    names = ("is_there_if_wanted", "is_whole", "draws_like_bf16", "is_roots")
    report = builder.check(select="int8", precision="int8", model_dir=folder)
    assert red(report) == {f"checkpoint::int8_{name}" for name in names}


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
    assert red(builder.check(select="test_cache")) == set()  # nothing was removed for it


READ_AHEAD = "/etc/udev/rules.d/60-bake-read-ahead.rules"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(f"mv {READ_AHEAD} /root/rule", id="no-rule"),
        pytest.param(f"cp {READ_AHEAD} /root/rule; sed -i s/2560/128/ {READ_AHEAD}", id="as-linux-has-it"),
        pytest.param(f"cp {READ_AHEAD} /root/rule; sed -i 's/KERNEL==/KERNEL/' {READ_AHEAD}", id="malformed"),
        pytest.param(f"cp {READ_AHEAD} /root/rule; sed -i '/xvd/d' {READ_AHEAD}", id="not-on-xen"),
    ],
)
def test_a_disk_that_is_not_read_ahead_of(builder: Builder, change: str) -> None:
    builder.root(change)
    try:
        report = builder.check(select="read_ahead")
    finally:
        builder.root(f"mv /root/rule {READ_AHEAD}")
    assert red(report) == {"performance.read_ahead_rule"}


@pytest.mark.parametrize("fault", seeded_faults.START.values(), ids=seeded_faults.START)
def test_what_the_service_starts_with(builder: Builder, fault: seeded_faults.Fault) -> None:
    builder.root(fault.seed)
    try:
        report = builder.check(select="backend or unit_restarts")
    finally:
        builder.root(fault.mend)
    assert red(report) == set(fault.red)
    if "worker.backend" in fault.red:
        assert "and the plan says cuda" in report.red[0].reason


def test_an_image_for_another_backend(builder: Builder) -> None:
    assert red(builder.check(select="backend", backend="cpu")) == {"worker.backend"}


def test_cache_in_memory(builder: Builder) -> None:
    builder.root(f"mount -t tmpfs none {seeded_faults.CACHE}")
    report = builder.check(select="test_disk")
    builder.root(f"umount {seeded_faults.CACHE}")
    assert red(report) == {"disk.cache_on_root_volume", "disk.cache_on_a_disk"}


@pytest.mark.parametrize(
    "folder", ["/opt", "/opt/flux-worker", "/etc/flux-worker", "/opt/flux-worker/venv/bin"]
)
def test_what_the_worker_may_not_read(builder: Builder, folder: str) -> None:
    """As a base with umask 077 leaves it, where something was made before the bake set its own."""
    builder.root(f"stat -c %a {folder} > /root/mode; chmod 700 {folder}")
    found = red(builder.check(select="may_read"))
    builder.root(f"chmod $(cat /root/mode) {folder}")
    assert found == {"worker.worker_may_read_what_it_needs"}
    assert red(builder.check(select="may_read")) == set()


def test_what_should_have_been_removed_from_the_base(builder: Builder) -> None:
    assert red(builder.check(select="removed_is_gone", removed=("cuda-12.6", "docker-images"))) == set()
    builder.root("mkdir /usr/local/cuda-12.6")
    report = builder.check(select="removed_is_gone", removed=("cuda-12.6", "docker-images"))
    builder.root("rmdir /usr/local/cuda-12.6")
    assert red(report) == {"disk.what_was_removed_is_gone"}


def test_volume_that_nobody_agreed_to(builder: Builder) -> None:
    report = builder.check(select="test_disk", root_volume_gib=100, root_volume_type="io2")
    assert red(report) == {
        "disk.volume_size_as_agreed",
        "disk.volume_type_as_agreed",
        "disk.filesystem_fills_volume",
    }


def test_green_as_provisioned(builder: Builder) -> None:
    """Last of the checks: all faults are mended, and none was in the provisioning."""
    report = builder.check()
    assert {check.id: check.reason for check in report.red} == {}


def test_scripts_can_run_again(builder: Builder) -> None:
    """A second run changes nothing that matters, and needs no package index of the system."""
    builder.root("mv /etc/apt /etc/apt.gone; systemctl stop 'bake-*'")
    try:
        provision.install_tools(builder.session, builder.plan, builder.aws, builder.run)
        provision.run_scripts(builder.session, builder.run, lambda: None)
    finally:
        builder.root("mv /etc/apt.gone /etc/apt")
    assert red(builder.check(select="service or writable")) == set()


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
    listing = builder.session.run(
        "find", seeded_faults.CACHE, "/opt", "-maxdepth", "1", sudo=True
    ).stdout.split()
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
