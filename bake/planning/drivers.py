"""Decide about the accelerator's driver: what the locked torch needs, and what the profile installs."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bake.planning import compiling
from bake.planning.findings import Findings
from bake.planning.hardware import Types, bakes_without
from bake.profile import Profile

# CUDA's major version -> the oldest driver it runs on (CUDA Toolkit release notes, table "minimum required
# driver version for minor version compatibility").
OLDEST_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
# The wheels of a CUDA build of torch; those for CUDA 12 have it in their name, from 13 on in their version.
CUDA = re.compile(r"^nvidia-cuda-runtime(?:-cu(\d+))?==(\d+)", re.MULTILINE)


Backend = Literal["cuda", "neuron", "cpu"]


@dataclass(frozen=True)
class Drivers:
    """What provisioning has to see to. `cuda` is the major version that torch was built for, None for none;
    `minimum` the oldest driver for it. `packages` are those of the Neuron stack that are pinned.
    """

    accelerator: Backend
    cuda: int | None
    minimum: str | None
    driver: str | None
    packages: dict[str, str]
    compiled: tuple[str, ...] = ()
    """The sizes of images that are compiled for Neuron; none where the worker draws on something else."""
    on_builder: bool = False
    """Whether the builder has the accelerator: what can't be checked without one is checked there."""
    on_worker: bool = False
    """Whether what boots from the image has it, and must draw on it."""
    compiles: tuple[str, ...] = ()
    """The sizes of images that the worker's blocks are compiled for on the builder, with its GPU."""
    lacks: str = ""
    """Why nothing is compiled for a GPU on the builder, nor seen of what it opens; empty if that is done."""

    @property
    def backend(self) -> Backend:
        """The worker's backend that the image names (FLUX_BACKEND): it never chooses by what it finds."""
        if self.accelerator == "neuron" and not self.compiled:
            return "cpu"
        return self.accelerator

    @property
    def drawn_on(self) -> Backend:
        """The backend that must draw the first image: the image's, or the CPU where no instance has a device
        for that one.
        """
        return self.backend if self.on_worker else "cpu"

    @property
    def launched_with(self) -> dict[str, str]:
        """What a launch tells the worker where no instance has what the image draws on."""
        return {} if self.drawn_on == self.backend else {"FLUX_BACKEND": self.drawn_on}

    @property
    def told(self) -> str:
        """The backend, what is compiled for it, and what a launch sets where no instance has its device."""
        compiled = f"; compiled on the builder for {', '.join(self.compiles)}" if self.compiles else ""
        return f"{self.backend}{compiled}" + "".join(
            f"; launched with {name}={value}, for no instance here has it"
            for name, value in self.launched_with.items()
        )

    def __str__(self) -> str:
        if self.accelerator == "cpu":
            return "none"
        if self.accelerator == "neuron":
            return "Neuron, pinned:" if self.packages else "Neuron, the base AMI's"
        needs = f"; CUDA {self.cuda} needs {self.minimum}" if self.minimum else ""
        return f"{self.driver or 'of the base AMI'}{needs}"


def decide(profile: Profile, requirements: Path, types: Types, devices: Collection[str]) -> Drivers:
    """What follows from the profile, the worker's lock and the types; `devices` are the accelerators that
    instances have where their type does.
    """
    cuda = cuda_of(requirements)
    there = profile.base.accelerator in devices
    lacks = compiling.lacks(profile, types, there=there)
    return Drivers(
        profile.base.accelerator,
        cuda,
        OLDEST_DRIVER.get(cuda or 0),
        profile.nvidia.driver,
        profile.neuron.pinned,
        profile.neuron.sizes if draws_on_neuron(profile) else (),
        on_builder=there and not bakes_without(profile, types),
        on_worker=there,
        compiles=() if lacks else profile.worker.compile_sizes,
        lacks=lacks,
    )


def draws_on_neuron(profile: Profile) -> bool:
    """Tell whether the image's worker gets the environment for Neuron."""
    return profile.base.accelerator == "neuron" and profile.neuron.python_index is not None


def cuda_of(requirements: Path) -> int | None:
    """Return the CUDA version that the locked torch was built for, such as 13; None if for none."""
    found = CUDA.search(requirements.read_text(encoding="utf-8"))
    return int(found[1] or found[2]) if found else None


def check(profile: Profile, types: Types, drivers: Drivers, sdk_lock: Path, findings: Findings) -> None:
    """A pinned driver that is too old is a problem; what nobody verifies, or runs yet, a warning.

    `sdk_lock` is the lock of the worker's environment for Neuron.
    """
    compiling.check(profile, types, drivers.lacks, findings)
    wrong = {"cuda": "neuron", "neuron": "nvidia"}.get(profile.base.accelerator)
    pinned = {"neuron": bool(profile.neuron.pinned), "nvidia": profile.nvidia.driver is not None}
    if wrong and pinned[wrong]:
        findings.problem(
            wrong, f"nothing of it is installed for accelerator: {profile.base.accelerator}", "take it out"
        )
    if drivers.driver and drivers.minimum and _numbers(drivers.driver) < _numbers(drivers.minimum):
        findings.problem(
            "nvidia.driver",
            f"{drivers.driver} is too old: the locked torch (CUDA {drivers.cuda}) needs {drivers.minimum}",
        )
    if drivers.accelerator == "neuron":
        _warn_of_neuron(profile, sdk_lock, findings)


def _warn_of_neuron(profile: Profile, sdk_lock: Path, findings: Findings) -> None:
    if profile.neuron.nogpgcheck and profile.neuron.pinned:
        findings.warn(
            f"neuron.nogpgcheck: where the signature of {profile.neuron.repository} can't be verified, "
            f"{', '.join(profile.neuron.pinned)} are installed without"
        )
    if profile.neuron.python_index is None:
        findings.warn(
            "accelerator: neuron is experimental: without neuron.python_index, where the Neuron SDK's Python "
            "packages come from, the worker of this image draws on the CPU"
        )
        return
    findings.warn(
        "accelerator: neuron is experimental: the worker's backend for it has not run on hardware yet. The "
        f"image draws {', '.join(profile.neuron.sizes)} and no other size; compiling each takes hours, which "
        "the estimates leave out"
    )
    if not sdk_lock.exists():
        findings.problem(
            "neuron.python_index",
            f"the Neuron SDK's Python packages are not locked: there is no {sdk_lock.name}",
            f"make lock NEURON_PYTHON_INDEX={profile.neuron.python_index}",
        )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def settings(profile: Profile, drivers: Drivers) -> dict[str, str]:
    """Return the settings that the driver scripts read from `settings.env`."""
    nvidia, neuron = profile.nvidia, profile.neuron
    return {
        "BAKE_ACCELERATOR": drivers.accelerator,
        "BAKE_DEVICE": "yes" if drivers.on_builder else "no",
        "WORKER_BACKEND": drivers.backend,
        "BAKE_CUDA": str(drivers.cuda or ""),
        "BAKE_DRIVER_MINIMUM": drivers.minimum or "",
        "NVIDIA_DRIVER": nvidia.driver or "",
        "NVIDIA_REPOSITORY": (nvidia.repository or "").rstrip("/"),
        "NVIDIA_FINGERPRINT": nvidia.fingerprint or "",
        "NEURON_PACKAGES": " ".join(f"{name}={version}" for name, version in drivers.packages.items()),
        "NEURON_REPOSITORY": (neuron.repository or "").rstrip("/"),
        "NEURON_FINGERPRINT": neuron.fingerprint or "",
        "NEURON_NOGPGCHECK": "yes" if neuron.nogpgcheck else "no",
        "NEURON_PYTHON_INDEX": neuron.python_index or "" if drivers.accelerator == "neuron" else "",
        "NEURON_SIZES": " ".join(drivers.compiled),
        # What worker.env says of compiled blocks: their sizes, or why there are none.
        "COMPILED_SIZES": ", ".join(drivers.compiles),
        "NOT_COMPILED": drivers.lacks if profile.worker.compile_sizes else "",
    }
