"""The NVIDIA driver's script on a real machine without a GPU: stubs of its packages, signed for real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bake.localcloud.settings import Settings
from bake.ssh import CommandResult
from bake.steps import provision

from . import repositories
from .neuron_machines import serving, without_network
from .repositories import Key

if TYPE_CHECKING:
    from tests.conftest import Machine, NewMachine

pytestmark = pytest.mark.root
VERSION = "580.95.05"
PACKAGES = {f"nvidia-driver-pinning-{VERSION}": f"{VERSION}-1ubuntu1", "nvidia-open": f"{VERSION}-0ubuntu1"}
UNIT = "/etc/systemd/system/nvidia-persistenced.service"


@pytest.fixture(scope="module")
def machine(new_machine: NewMachine) -> Iterator[Machine]:
    with new_machine() as machine:
        provision.upload(machine.session, machine.plan, machine.run)
        without_network(machine.session)
        yield machine


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Key]:
    key = Key.make(tmp_path_factory.mktemp("keys") / "nvidia")
    yield key
    key.stop()


@pytest.fixture(scope="module")
def url(key: Key, cloud_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("nvidia")
    repositories.flat(folder / "cuda", PACKAGES, key)
    with serving(folder, cloud_settings.address) as url:
        yield f"{url}/cuda"


@pytest.fixture(autouse=True)
def _without_driver(machine: Machine) -> Iterator[None]:
    yield
    names = " ".join([*PACKAGES, "linux-image-aws"])
    clear = f"apt-mark unhold {names}; dpkg --purge {names}; rm -f {UNIT}"
    machine.session.run("sh", "-c", clear, sudo=True, check=False)


def nvidia(machine: Machine, **settings: str) -> CommandResult:
    """Run the script as the bake does, with these settings."""
    given = {
        "BAKE_ACCELERATOR": "cuda",
        "BAKE_CUDA": "13",
        "BAKE_DRIVER_MINIMUM": "580.65.06",
        "NVIDIA_DRIVER": "",
        "NVIDIA_REPOSITORY": "",
        "NVIDIA_FINGERPRINT": "",
        **settings,
    }
    pairs = [f"{name}={value}" for name, value in given.items()]
    script = f"{provision.REMOTE}/scripts/12-nvidia.sh"
    return machine.session.run("env", *pairs, "bash", script, sudo=True, check=False)


def install(machine: Machine, folder: Path, name: str, version: str) -> None:
    """Put a stub package on the machine, as a base AMI would have the real one."""
    content = repositories.deb(folder, name, version).read_bytes()
    machine.session.run("tee", "/tmp/stub.deb", stdin=content)
    machine.session.run("dpkg", "--install", "/tmp/stub.deb", sudo=True)


def test_without_a_driver_torch_for_cuda_is_refused(machine: Machine) -> None:
    done = nvidia(machine)
    assert done.exit_code == 1
    assert (
        "there is no NVIDIA driver on this machine, and the worker's torch (CUDA 13) needs one" in done.stderr
    )


def test_a_driver_that_is_too_old_is_refused(machine: Machine, tmp_path: Path) -> None:
    install(machine, tmp_path, "nvidia-open", "535.230.02-0ubuntu1")
    done = nvidia(machine)
    assert done.exit_code == 1
    assert (
        "the NVIDIA driver is 535.230.02; the worker's torch (CUDA 13) needs 580.65.06 or newer"
        in done.stderr
    )


def test_a_driver_that_is_new_enough_is_left_alone(machine: Machine, tmp_path: Path) -> None:
    install(machine, tmp_path, "nvidia-open", "590.44.01-1ubuntu1")
    done = nvidia(machine)
    assert done.exit_code == 0, done.stderr
    assert "note: NVIDIA driver 590.44.01; no GPU on this builder" in done.stdout


def test_a_pinned_driver_is_installed_from_its_signed_repository_and_held(
    machine: Machine, url: str, key: Key
) -> None:
    done = nvidia(machine, NVIDIA_DRIVER=VERSION, NVIDIA_REPOSITORY=url, NVIDIA_FINGERPRINT=key.fingerprint)
    assert done.exit_code == 0, done.stderr
    assert f"signed by the key {key.fingerprint}" in done.stdout
    assert f"note: NVIDIA driver {VERSION}" in done.stdout
    assert "nvidia-open" in machine.session.run("apt-mark", "showhold").stdout.split()
    assert "bake-nvidia" not in machine.session.run("ls", "/etc/apt/sources.list.d").stdout


def test_a_pinned_driver_from_an_unknown_key_is_refused(machine: Machine, url: str, key: Key) -> None:
    other = f"{'0' * 32}{key.fingerprint[-8:]}"
    done = nvidia(machine, NVIDIA_DRIVER=VERSION, NVIDIA_REPOSITORY=url, NVIDIA_FINGERPRINT=other)
    assert done.exit_code == 1
    assert f"holds the key {key.fingerprint}, not the pinned {other}" in done.stderr


def test_the_persistence_daemon_is_enabled_and_the_kernel_held(machine: Machine, tmp_path: Path) -> None:
    unit = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
    machine.session.run("tee", UNIT, stdin=unit.encode(), sudo=True)
    install(machine, tmp_path, "linux-image-aws", "6.8.0.1021.23")
    done = nvidia(machine, BAKE_DRIVER_MINIMUM="")
    assert done.exit_code == 0, done.stderr
    assert "held: linux-image-aws" in done.stdout
    assert machine.session.run("systemctl", "is-enabled", "nvidia-persistenced").stdout == "enabled\n"
    machine.session.run("systemctl", "disable", "nvidia-persistenced", sudo=True)
    assert "linux-image-aws" in machine.session.run("apt-mark", "showhold").stdout.split()


def test_other_accelerators_need_none_of_it(machine: Machine) -> None:
    done = nvidia(machine, BAKE_ACCELERATOR="neuron")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
