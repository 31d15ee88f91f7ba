"""The NVIDIA driver's script on real machines without a GPU: stubs of its packages, signed for real.

Where there would be a GPU, or a kernel of the machine's own, a stand-in of the system's command answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bake.steps import provision

from .nvidia_machines import UNIT, VERSION, Driven, driven

if TYPE_CHECKING:
    from tests.conftest import NewMachine
    from tests.outside import Outside

pytestmark = pytest.mark.root
NEWER = "590.44.01"


@pytest.fixture(
    scope="module", params=["g6e-ubuntu", pytest.param("g6e-amazon-linux", marks=pytest.mark.long)]
)
def on(
    request: pytest.FixtureRequest,
    new_machine: NewMachine,
    outside: Outside,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Driven]:
    with new_machine(request.param) as machine:
        provision.upload(machine.session, machine.plan, machine.run)
        with driven(machine, tmp_path_factory.mktemp("cuda"), outside) as found:
            yield found


@pytest.fixture(autouse=True)
def _as_before(on: Driven) -> Iterator[None]:
    """Each case starts without a driver, and leaves the machine's sources as they were."""
    before = on.sources()
    yield
    assert on.sources() == before
    on.clear()


def own_kernel(on: Driven, release: str, driver: str) -> None:
    """A machine that is no container, with a driver's module for one release of its kernel alone."""
    on.stand_in("systemd-detect-virt", "exit 1")
    on.stand_in("grubby", f"echo /boot/vmlinuz-{release}")
    on.stand_in("modinfo", f'[ "$1" = --set-version={release} ] || exit 1', f"echo {driver}")


def test_without_a_driver_torch_for_cuda_is_refused(on: Driven) -> None:
    done = on.run()
    assert done.exit_code == 1
    assert (
        "there is no NVIDIA driver on this machine, and the worker's torch (CUDA 13) needs one" in done.stderr
    )


def test_a_driver_that_is_too_old_is_refused(on: Driven, tmp_path: Path) -> None:
    on.install(tmp_path, "nvidia-open", "535.230.02")
    done = on.run()
    assert done.exit_code == 1
    assert (
        "the NVIDIA driver is 535.230.02; the worker's torch (CUDA 13) needs 580.65.06 or newer"
        in done.stderr
    )


def test_a_driver_that_is_new_enough_is_left_alone(on: Driven, tmp_path: Path) -> None:
    on.install(tmp_path, "nvidia-open", NEWER)
    done = on.run()
    assert done.exit_code == 0, done.stderr
    assert f"note: NVIDIA driver {NEWER}; no GPU on this builder" in done.stdout


def test_a_pinned_driver_is_installed_from_its_signed_repository_and_held(on: Driven) -> None:
    done = on.run_pinned()
    assert done.exit_code == 0, done.stderr
    assert f"signed by the key {on.key.fingerprint}" in done.stdout
    assert f"note: NVIDIA driver {VERSION}" in done.stdout
    assert "nvidia-open" in on.held()
    assert "bake-nvidia" not in on.sources()


def test_a_pinned_driver_takes_the_place_of_another(on: Driven, tmp_path: Path) -> None:
    on.install(tmp_path, "nvidia-open", NEWER)
    done = on.run_pinned()
    assert done.exit_code == 0, done.stderr
    assert f"note: NVIDIA driver {VERSION}; no GPU" in done.stdout


def test_a_pinned_driver_from_an_unknown_key_is_refused(on: Driven) -> None:
    other = f"{'0' * 32}{on.key.fingerprint[-8:]}"
    done = on.run_pinned(NVIDIA_FINGERPRINT=other)
    assert done.exit_code == 1
    assert f"holds the key {on.key.fingerprint}, not the pinned {other}" in done.stderr


def test_the_persistence_daemon_is_enabled_and_the_kernel_held(on: Driven, tmp_path: Path) -> None:
    unit = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
    on.session.run("tee", UNIT, stdin=unit.encode(), sudo=True)
    on.install(tmp_path, on.kernel, "6.8.0.1021.23")
    done = on.run(BAKE_DRIVER_MINIMUM="")
    assert done.exit_code == 0, done.stderr
    assert f"held: {on.kernel}" in done.stdout
    assert on.session.run("systemctl", "is-enabled", "nvidia-persistenced").stdout == "enabled\n"
    assert on.kernel in on.held()


def test_a_static_persistence_daemon_is_started_by_the_boot(on: Driven) -> None:
    """As Ubuntu's packages have it: a unit without [Install], which nothing can enable."""
    on.session.run("tee", UNIT, stdin=b"[Service]\nExecStart=/bin/true\n", sudo=True)
    done = on.run(BAKE_DRIVER_MINIMUM="")
    assert done.exit_code == 0, done.stderr
    wanted = on.session.run("systemctl", "show", "--property=WantedBy", "nvidia-persistenced").stdout
    assert wanted == "WantedBy=multi-user.target\n"


def test_the_module_is_that_of_the_kernel_that_the_image_boots(on: Driven) -> None:
    """With the running kernel's alone, the image would boot without one."""
    own_kernel(on, "6.8.0-1099-aws", NEWER)
    done = on.run()
    assert done.exit_code == 0, done.stderr
    assert f"note: NVIDIA driver {NEWER}; no GPU on this builder" in done.stdout


def test_a_package_whose_module_was_not_built_is_refused(on: Driven, tmp_path: Path) -> None:
    on.install(tmp_path, "nvidia-open", NEWER)
    own_kernel(on, "6.8.0-1099-aws", NEWER)
    on.stand_in("grubby", "echo /boot/vmlinuz-6.8.0-1100-aws")
    on.stand_in("dkms", "echo 'nvidia/590.44.01: added'")
    done = on.run()
    assert done.exit_code == 1
    assert "is installed, but there is no module for the kernel 6.8.0-1100-aws" in done.stderr
    assert "nvidia/590.44.01: added" in done.stderr


def test_a_gpu_of_the_builder_answers(on: Driven, tmp_path: Path) -> None:
    on.install(tmp_path, "nvidia-open", NEWER)
    noise = "echo 'ERROR: ld.so: object /opt/agent.so cannot be preloaded: ignored.' >&2"  # of all programs
    on.stand_in("nvidia-smi", noise, f"echo 'NVIDIA L40S, {NEWER}'", f"echo 'NVIDIA L40S, {NEWER}'")
    done = on.run(BAKE_DEVICE="yes")
    assert done.exit_code == 0, done.stderr
    assert f"note: NVIDIA driver {NEWER}, 2 GPU: NVIDIA L40S\n" in done.stdout


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        pytest.param(["echo 'No devices were found'", "exit 6"], "No devices were found", id="none"),
        pytest.param(["echo 'NVIDIA L40S, 535.230.02'"], "NVIDIA L40S, 535.230.02", id="another version"),
        pytest.param(["exit 0"], f"by the driver {NEWER}: ", id="nothing"),
        pytest.param([], "", id="no program"),
    ],
)
def test_a_gpu_that_does_not_answer_is_refused(
    on: Driven, tmp_path: Path, lines: list[str], said: str
) -> None:
    """The plan's builder has one: what is there, or not, decides nothing."""
    on.install(tmp_path, "nvidia-open", NEWER)
    if lines:
        on.stand_in("nvidia-smi", *lines)
    done = on.run(BAKE_DEVICE="yes")
    assert done.exit_code == 1
    assert f"the GPU of this builder does not answer by the driver {NEWER}: " in done.stderr
    assert said in done.stderr


def test_a_new_driver_is_loaded_before_the_gpu_is_asked(on: Driven) -> None:
    """The module that the base AMI loaded at boot serves the old libraries alone."""
    release = "6.8.0-1099-aws"
    own_kernel(on, release, "")
    on.stand_in("uname", f"echo {release}")
    # DKMS's module comes with the package.
    by_rpm, by_dpkg = "rpm -q --qf '%{VERSION}'", "dpkg-query --show --showformat='${Version}'"
    on.stand_in("modinfo", f"({by_rpm} nvidia-open || {by_dpkg} nvidia-open) 2>/dev/null | sed 's/-.*//'")
    on.stand_in("modprobe", f"[ $1 = --remove ] || echo 'NVIDIA L40S, {VERSION}' >/tmp/loaded")
    on.stand_in("nvidia-smi", "cat /tmp/loaded")
    on.session.run("mkdir", "-p", f"/lib/modules/{release}/build", sudo=True)
    try:
        done = on.run_pinned(BAKE_DEVICE="yes")
    finally:
        on.session.run("rm", "-rf", "/tmp/loaded", f"/lib/modules/{release}", sudo=True)
    assert done.exit_code == 0, done.stderr
    assert f"note: NVIDIA driver {VERSION}, 1 GPU: NVIDIA L40S\n" in done.stdout


def test_other_accelerators_need_none_of_it(on: Driven) -> None:
    done = on.run(BAKE_ACCELERATOR="neuron")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
