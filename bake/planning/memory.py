"""Calculate whether the model fits the accelerator's memory, and how much memory its host needs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bake.account.facts import TypeFacts
from bake.account.instance_types import Device, InstanceType
from bake.planning import hardware
from bake.planning.drivers import draws_on_neuron
from bake.planning.findings import Findings
from bake.planning.weights import WeightFiles
from bake.profile import Profile
from bake.weights import flux
from bake.weights.flux import MIB

# Python, torch and the accelerator's libraries on the host: assumed. Loading adds 192 MiB of pinned buffers,
# in bfloat16 as in int8 (flux_worker.inference.streaming).
PROCESS_MIB = 3 * 1024
# Less than this to spare is called tight: the CUDA context and fragmentation take a part of it.
TIGHT_MIB = 1024
# The worker compiles for 8 NeuronCores, two a device, and uses no others (flux_worker.inference).
NEURON_DEVICES = 4


@dataclass(frozen=True)
class Memory:
    """One instance type's memory against the model's need, in MiB.

    `available` is one GPU's memory: a pipeline runs on one. Neuron shards a model, so there it is all the
    devices together, or those that it is compiled for, which hold one of `copies` for each compiled size.
    Without an accelerator it is the host's, and `host_needed` counts the same need.
    """

    instance_type: str
    precision: str
    where: str
    available: int
    weights: int
    working: int
    host: int
    host_needed: int
    host_why: str
    copies: int = 1

    @property
    def needed(self) -> int:
        return self.copies * (self.weights + self.working)

    @property
    def verdict(self) -> str:
        if self.needed > self.available or self.host_needed > self.host:
            return "does not fit"
        return "tight" if self.available - self.needed < TIGHT_MIB else "fits"

    @property
    def fits(self) -> bool:
        return self.verdict != "does not fit"


def estimate(profile: Profile, kind: InstanceType, weights: WeightFiles, precision: str) -> Memory:
    """Calculate the memory for one instance type."""
    resident = flux.resident_bytes(weights.files, precision) // MIB
    working = flux.working_bytes(precision) // MIB
    host, why, copies = PROCESS_MIB, "weights pass through small buffers into the GPU", 1
    if kind.device is None or profile.base.accelerator == "cpu":
        where, available = "host memory", kind.memory_mib
        host, why = PROCESS_MIB + resident + working, "the model runs there"
        available -= PROCESS_MIB
    elif kind.device.kind == "neuron":
        device = kind.device
        if draws_on_neuron(profile):
            copies = len(profile.neuron.sizes)
            device = replace(device, count=min(device.count, NEURON_DEVICES))
        where, available = _all_of(device), device.total_mib
        name, size = flux.largest_component(weights.files)
        # R-INF2: the OOM killer ended it there. What is not sharded on disk passes through the host whole.
        host, why = PROCESS_MIB + size // MIB, f"its {name} of {size / 1e9:.1f} GB passes through it"
    else:
        where, available = _one_of(kind.device), kind.device.memory_mib
    return Memory(
        kind.name, precision, where, available, resident, working, kind.memory_mib, host, why, copies
    )


def _one_of(device: Device) -> str:
    return device.name if device.count == 1 else f"one {device.name} of {device.count}"


def _all_of(device: Device) -> str:
    return device.name if device.count == 1 else f"{device.count} x {device.name}"


def check(
    profile: Profile,
    types: tuple[InstanceType, ...],
    weights: WeightFiles,
    facts: TypeFacts,
    findings: Findings,
) -> tuple[Memory, ...]:
    """Check each type. Report those that the model does not fit, with what would fit."""
    precision = profile.weights.precision
    if precision == "int8" and profile.base.accelerator == "neuron":
        findings.problem("weights.precision", "int8 weights are made for CUDA (torchao); Neuron gets bf16")
        precision = "bf16"
    found = []
    for kind in types:
        if not hardware.suits(profile, kind):
            continue
        memory = estimate(profile, kind, weights, precision)
        found.append(memory)
        if not memory.fits:
            _refuse(profile, kind, memory, weights, facts, findings)
    return tuple(found)


def _refuse(
    profile: Profile,
    kind: InstanceType,
    memory: Memory,
    weights: WeightFiles,
    facts: TypeFacts,
    findings: Findings,
) -> None:
    cuda = profile.base.accelerator == "cuda"
    path = "weights.precision" if cuda else hardware.worker_setting(profile)
    findings.problem(
        path,
        f"FLUX.1-dev in {memory.precision} does not fit {kind.name}",
        *arithmetic(memory),
        *_ways_out(profile, kind, memory, weights, facts),
    )


def _ways_out(
    profile: Profile, kind: InstanceType, memory: Memory, weights: WeightFiles, facts: TypeFacts
) -> list[str]:
    """List what would fit: another precision, or types of the same family. The user chooses."""
    lines, keys = [], []
    if memory.precision == "bf16" and profile.base.accelerator == "cuda":
        smaller = estimate(profile, kind, weights, "int8")
        if smaller.fits:
            tight = "is tight but fits" if smaller.verdict == "tight" else "fits"
            need = f"with weights.precision: int8 it needs {smaller.needed:,} MiB"
            lines.append(f"{need}, which {tight}, with VAE tiling")
            keys.append("weights.precision")
    fitting = [
        other
        for other in hardware.family(kind.name, facts)
        if hardware.suits(profile, other) and estimate(profile, other, weights, memory.precision).fits
    ]
    if fitting:
        lines.append(f"types of its family with enough memory for {memory.precision}:")
        lines += [f"    {other.name:<15} {other.device}; {other.memory_mib:,} MiB RAM" for other in fitting]
        keys.append(hardware.worker_setting(profile))
    if memory.copies > 1:
        lines.append("each of neuron.sizes holds the weights once more: fewer of them need less")
        keys.append("neuron.sizes")
    if not lines:
        return [f"an accelerator with {memory.needed:,} MiB is needed"]
    return [*lines, f"choose in the profile: {' or '.join(keys)}"]


def arithmetic(memory: Memory) -> list[str]:
    """Write the sums down, in MiB."""
    times = f"for {memory.copies} compiled sizes, " if memory.copies > 1 else ""
    host = f"of {memory.host:,} MiB host RAM ({memory.host / 1024:.0f} GiB) to load"
    return [
        f"{memory.weights:7,} MiB  weights      {memory.weights * MIB / 1e9:.1f} GB in {memory.precision}",
        f"{memory.working:7,} MiB  working      activations, VAE at 1024 x 1024; measured on a GPU",
        f"{memory.needed:7,} MiB  {times}of {memory.available:,} MiB ({memory.where}); "
        f"{_spare(memory.available - memory.needed)}",
        f"{memory.host_needed:7,} MiB  {host}; {_spare(memory.host - memory.host_needed)}",
        f"{'':11}  {memory.host_why}",
    ]


def _spare(mib: int) -> str:
    return f"{mib:,} MiB to spare" if mib >= 0 else f"{-mib:,} MiB missing"


def settings(memory: Memory) -> list[str]:
    """Say what the worker must do to make it fit."""
    if memory.precision == "int8":
        return ["VAE tiling and slicing"]
    return []
