"""The drivers of accelerators that a profile pins: NVIDIA's, and the Neuron stack."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from bake.profile import values
from bake.profile.section import Section, variable
from bake.profile.types import DriverVersion, Fingerprint, PackageVersion, Repository, Size

# The Neuron stack: field of a profile -> package of the operating system.
NEURON_PACKAGES = {
    "runtime_lib": "aws-neuronx-runtime-lib",
    "dkms": "aws-neuronx-dkms",
    "collectives": "aws-neuronx-collectives",
    "tools": "aws-neuronx-tools",
}


class Nvidia(Section):
    """The NVIDIA driver. Without a version the base AMI's own is checked and left alone."""

    driver: DriverVersion | None = None
    """The driver's version, such as 580.95.05; installed where the base AMI has another."""
    repository: Repository | None = Field(
        default=None, json_schema_extra=variable("NVIDIA_REPOSITORY", optional=True)
    )
    """The package repository that has it: its URL."""
    fingerprint: Fingerprint | None = None
    """The fingerprint of the repository's signing key; nothing else it is signed with is accepted."""

    def conflicts(self) -> Iterator[str]:
        """A driver comes from a repository, and a repository is known by its key."""
        if self.driver is not None and self.repository is None:
            yield "driver needs repository: where it comes from"
        if self.repository is not None and self.fingerprint is None:
            yield "repository needs fingerprint: the key that it is signed with"


class Neuron(Section):
    """The Neuron stack (R-NEURON). What has no version here is left as the base AMI has it."""

    repository: Repository | None = Field(
        default=None, json_schema_extra=variable("NEURON_REPOSITORY", optional=True)
    )
    """The package repository of the stack: its URL."""
    fingerprint: Fingerprint | None = None
    """The fingerprint of the repository's signing key."""
    nogpgcheck: bool = False
    """Whether the stack is installed although its repository's signature can't be verified."""
    runtime_lib: PackageVersion | None = None
    """The version of aws-neuronx-runtime-lib, mandatory for torch-neuronx."""
    dkms: PackageVersion | None = None
    """The version of aws-neuronx-dkms, the driver."""
    collectives: PackageVersion | None = None
    """The version of aws-neuronx-collectives."""
    tools: PackageVersion | None = None
    """The version of aws-neuronx-tools."""
    python_index: Repository | None = Field(
        default=None, json_schema_extra=variable("NEURON_PYTHON_INDEX", optional=True)
    )
    """The index of the Neuron SDK's Python packages: with it the worker draws on Neuron, else on the CPU."""
    sizes: tuple[Size, ...] = ("1024x1024",)
    """The sizes of images, in pixels, that are compiled for Neuron: no others are drawn."""

    @property
    def pinned(self) -> dict[str, str]:
        """Package -> version, of those that the profile pins."""
        versions = {name: getattr(self, field) for field, name in NEURON_PACKAGES.items()}
        return {name: version for name, version in versions.items() if version is not None}

    def conflicts(self) -> Iterator[str]:
        """Pinned packages come from a repository, whose key is known unless nobody is to look at it."""
        if any(getattr(self, field) is not None for field in NEURON_PACKAGES) and self.repository is None:
            yield f"{', '.join(NEURON_PACKAGES)} need repository: where they come from"
        if self.repository is not None and self.fingerprint is None and not self.nogpgcheck:
            yield "repository needs fingerprint, the key that it is signed with, or nogpgcheck: true"
        if not self.sizes:
            yield "sizes needs one at least"
        if wrong := values.wrong_sides(self.sizes):
            yield f"sizes are multiples of 16 from 256 to 1440, not {wrong}"
