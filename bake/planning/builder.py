"""Check a builder of another type than the workers': its memory, and what only the boot check can test."""

from __future__ import annotations

from dataclasses import dataclass

from bake.account.instance_types import InstanceType
from bake.planning import estimates, hardware
from bake.planning import memory as memory_of
from bake.planning.drivers import draws_on_neuron
from bake.planning.findings import Findings
from bake.planning.hardware import Types
from bake.planning.weights import WeightFiles
from bake.profile import Profile
from bake.weights import flux
from bake.weights.flux import MIB


@dataclass(frozen=True)
class BuilderMemory:
    """The host memory that a bake needs on a builder's type, and what the type has, in MiB."""

    instance_type: str
    needed: int
    host: int
    why: str

    @property
    def fits(self) -> bool:
        return self.needed <= self.host


def check(
    profile: Profile, types: Types, weights: WeightFiles, findings: Findings
) -> tuple[BuilderMemory, ...]:
    """Check each builder's memory. Empty if the workers have the builder's types: those hold the model."""
    if not profile.worker.types:
        return ()
    found = tuple(estimate(profile, kind, weights) for kind in types.builder)
    for memory in found:
        if not memory.fits:
            findings.problem(
                hardware.setting(profile, memory.instance_type),
                f"{memory.instance_type} has {memory.host:,} MiB of RAM; a bake takes {memory.needed:,} MiB",
                memory.why,
            )
    for kind in types.builder:
        _check_drawing(profile, kind, weights, findings)
    if types.builder and hardware.bakes_without(profile, types):
        _say_what_waits(profile, types, findings)
    return found


def estimate(profile: Profile, kind: InstanceType, weights: WeightFiles) -> BuilderMemory:
    """Estimate the memory of loading the model on the CPU; the compiler for Neuron needs more."""
    precision = profile.weights.precision
    resident = flux.resident_bytes(weights.files, precision) // MIB
    loading = round(flux.LOADING_SHARE * resident) + flux.working_bytes(precision) // MIB
    why = "the checks load the model there, mapped from the disk"
    if precision == "int8" and not hardware.suits(profile, kind):
        why = "int8 draws an image on its CPU, with the weights mapped from the disk"
    if draws_on_neuron(profile):
        name, size = flux.largest_component(weights.files)
        loading = max(loading, size // MIB)
        why = (
            f"the compiler for Neuron reads its {name} of {size / 1e9:.1f} GB; what else it takes is unknown"
        )
    return BuilderMemory(kind.name, memory_of.PROCESS_MIB + loading, kind.memory_mib, why)


def _check_drawing(profile: Profile, kind: InstanceType, weights: WeightFiles, findings: Findings) -> None:
    """Check that int8 fits the builder's own GPU, which may be smaller than the workers'."""
    if profile.weights.precision != "int8" or kind.device is None or not hardware.suits(profile, kind):
        return
    memory = memory_of.estimate(profile, kind, weights, "int8")
    if not memory.fits:
        findings.problem(
            hardware.setting(profile, kind.name),
            f"int8 is drawn once on the builder, and does not fit {kind.name}",
            *memory_of.arithmetic(memory),
        )


def _say_what_waits(profile: Profile, types: Types, findings: Findings) -> None:
    names, workers = (" or ".join(kind.name for kind in kinds) for kinds in (types.builder, types.worker))
    text = (
        f"the builder ({names}) has no {hardware.lacking(profile)}: the bake checks only the driver's "
        f"files there, and the boot check tests the image on {workers}"
    )
    if profile.weights.precision == "int8":
        minutes = estimates.cpu_drawing_seconds(types.builder[0]) / 60
        text += (
            f". The two images that compare int8 with bf16 are drawn on its CPU, about {minutes:.0f} min "
            "beside reading the weights"
        )
    findings.warn(text)
