"""The accelerator's driver, and the kernel that it is built for."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from testinfra.host import Host

from bake import layout
from bake.checks import probe
from bake.checks.expectations import Expectations

SHOWN = r"'${Package} ${db:Status-Status}\n'"
KERNELS = {
    "dpkg-query": f"dpkg-query --show --showformat {SHOWN} 'linux-image*' 'linux-aws*'",
    "rpm": r"rpm --query --all --queryformat '%{NAME} installed\n' 'kernel*'",
}

DRIVERS = {
    "dpkg-query": "dpkg-query --show --showformat '${Version}' nvidia-open",
    "rpm": "rpm --query --queryformat '%{VERSION}' nvidia-open",
}


def test_torch_is_built_for_the_planned_cuda(host: Host, expect: Expectations) -> None:
    """The worker's torch is the build that the plan reckoned the driver for (R-HW)."""
    found = host.check_output(f"cat {expect.venv}/lib/python*/site-packages/torch/version.py")
    built = re.search(r"^cuda\b.*= *'?(None|\d+)", found, re.MULTILINE)
    assert built and built[1] == str(expect.cuda)


def test_driver_is_new_enough(host: Host, expect: Expectations) -> None:
    """Where torch needs an NVIDIA driver, one that is new enough is built for the image's kernel (R-HW)."""
    have, need = driver(host), expect.driver_minimum
    assert not need or (have and numbers(have) >= numbers(need)), f"the driver is {have or 'not there'}"


def test_driver_has_its_libraries(host: Host, expect: Expectations) -> None:
    """Where torch needs an NVIDIA driver, CUDA's library is of the module's version (R-HW)."""
    have = driver(host)
    found = host.run("ldconfig -p | sed -n 's/.*libcuda[.]so[.]1 .* => //p' | xargs -r readlink -f").stdout
    libraries = found.split()
    assert not expect.driver_minimum or libraries, "there is no libcuda.so.1"
    assert [path for path in libraries if not path.endswith(f".so.{have}")] == []


@pytest.mark.device("cuda")
def test_gpus_answer(host: Host) -> None:
    """The builder's GPUs answer, by the driver that the image boots with (R-HW)."""
    found = host.check_output("nvidia-smi --query-gpu=driver_version --format=csv,noheader").split()
    assert found
    assert set(found) == {driver(host)}


@pytest.mark.device("cuda")
def test_torch_has_the_gpu(host: Host, expect: Expectations) -> None:
    """The worker's torch can use the builder's GPU (R-HW)."""
    asked = "import torch; print(torch.cuda.is_available())"
    assert host.check_output("%s/bin/python -B -c %s", expect.venv, asked) == "True"


def driver(host: Host) -> str:
    """The NVIDIA driver's version by its module for the image's kernel; a container has its package alone."""
    if not contained(host):
        found: str = host.run("modinfo --set-version=%s --field=version nvidia", kernel(host)).stdout
        return found.strip()
    package = host.run(next(command for tool, command in DRIVERS.items() if host.exists(tool)))
    return re.sub(r"^\d+:|-.*$", "", package.stdout.strip()) if package.rc == 0 else ""


def kernel(host: Host) -> str:
    """The release of the kernel that the image boots, as provision/lib/kernel.sh finds it."""
    ask = "grubby --default-kernel 2>/dev/null || ls /boot/vmlinuz-* 2>/dev/null | sort -V | tail -n 1"
    image: str = host.run(ask).stdout.strip()
    running: str = host.check_output("uname --kernel-release")
    return image.rpartition("/vmlinuz-")[2] or running


def contained(host: Host) -> bool:
    """Whether the machine is a container, whose kernel is its host's."""
    return bool(host.run("systemd-detect-virt --quiet --container").rc == 0)


def numbers(version: str) -> list[int]:
    """`580.65.06` as numbers, to be compared."""
    return [int(part) for part in version.split(".")]


def test_persistence_daemon_is_enabled(host: Host) -> None:
    """Where the NVIDIA persistence daemon is there, a boot starts it: the driver stays loaded."""
    asked = "systemctl show --property=LoadState,UnitFileState,WantedBy,RequiredBy %s"
    lines = host.check_output(asked, "nvidia-persistenced.service").splitlines()
    found = dict(line.split("=", 1) for line in lines)
    # Enabled, generated or static with a link: what counts is that a target wants it.
    wanted = f"{found.get('WantedBy', '')} {found.get('RequiredBy', '')}"
    started = found.get("UnitFileState") == "enabled" or ".target" in wanted
    assert started or found["LoadState"] in ("not-found", "masked")


def test_kernel_is_held(host: Host) -> None:
    """No upgrade replaces the kernel that the driver was built for."""
    command = next(command for tool, command in KERNELS.items() if host.exists(tool))
    lines = host.run(command).stdout.splitlines()
    kernels = {line.split()[0] for line in lines if line.endswith(" installed")}
    assert kernels - held(host) == set()


def held(host: Host) -> set[str]:
    """The packages that no upgrade touches."""
    if host.exists("apt-mark"):
        return set(host.check_output("apt-mark showhold").split())
    lines = host.run("cat /etc/dnf/dnf.conf /etc/yum.conf").stdout.splitlines()
    return {name for line in lines if line.startswith("exclude=") for name in line[8:].split()}


@pytest.mark.accelerator("neuron")
@pytest.mark.parametrize(
    "name",
    ["aws-neuronx-runtime-lib", "aws-neuronx-dkms", "aws-neuronx-collectives", "aws-neuronx-tools"],
)
def test_neuron_stack(host: Host, expect: Expectations, name: str) -> None:
    """The Neuron stack is complete, at the pinned versions, and held (R-NEURON)."""
    package = host.package(name)
    assert package.is_installed
    have = f"{package.version}-{package.release}" if expect.packages == "rpm" else package.version
    pinned = expect.neuron.get(name, have)
    assert have == pinned or have.startswith(f"{pinned}-")
    assert name in held(host)


@pytest.mark.accelerator("neuron")
def test_neuron_module(host: Host) -> None:
    """The Neuron driver is built for the image's kernel; a container has its host's (R-NEURON)."""
    assert contained(host) or host.run("modinfo --set-version=%s neuron", kernel(host)).rc == 0


@pytest.mark.device("neuron")
def test_neuron_devices_are_there(host: Host) -> None:
    """The builder's Neuron devices are there, as their driver makes them (R-INF2)."""
    assert host.check_output("ls /dev").split().count("neuron0") == 1


def test_no_source_of_the_bake_is_left(host: Host) -> None:
    """No source that the bake installed from is left, least of all one that is taken unsigned (R-NEURON)."""
    found = host.check_output("find /etc -maxdepth 3 -name 'bake-n*' -o -maxdepth 3 -name '*.bake-aside'")
    assert found.splitlines() == []


@pytest.mark.accelerator("neuron")
def test_compiled_for_neuron(host: Host, expect: Expectations) -> None:
    """The planned sizes of images are compiled for Neuron, of the planned model, and no others (R-INF2)."""
    made = host.run(f"cat {layout.NEURON_MODELS}/*/compiled.json").stdout
    sizes = re.findall(r'"width": (\d+),\s+"height": (\d+)', made)
    assert {f"{width}x{height}" for width, height in sizes} == set(expect.neuron_sizes)
    assert set(re.findall(r'"revision": "(\w+)"', made)) <= {expect.revision}


@pytest.mark.accelerator("neuron")
def test_worker_finds_what_is_compiled(host: Host, expect: Expectations) -> None:
    """The worker's own command, run as its user, finds all that is compiled and names its sizes (R-INF2)."""
    if expect.neuron_sizes:
        command = [f"{expect.serving_venv}/bin/flux-worker", "check", "--json"]
        done = host.run(shlex.join([*probe.as_worker(expect), *command]))
        # It ends with 78 where the builder has too few devices to draw: what it found is told all the same.
        assert done.rc in (0, 78), done
        shapes = json.loads(done.stdout)["neuron"]["shapes"]
        assert {f"{shape['width']}x{shape['height']}" for shape in shapes} == set(expect.neuron_sizes)


@pytest.mark.accelerator("neuron")
def test_compiler_left_nothing_else(host: Host) -> None:
    """Neuron's compiler left no cache and no half of a model behind (R-DISK)."""
    places = f"/tmp /var/tmp /root {layout.NEURON_MODELS}"  # noqa: S108 - where it would
    found = host.run(f"find {places} -maxdepth 1 \\( -name 'neuron-*' -o -name '.partial-*' \\)").stdout
    assert found.splitlines() == []
