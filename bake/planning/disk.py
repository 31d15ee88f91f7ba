"""Calculate whether everything fits the root volume. Sizes are compared here, never changed (R-DISK)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bake.account.facts import AccountFacts
from bake.account.instance_types import InstanceType
from bake.planning.base_image import BaseImage
from bake.planning.drivers import draws_on_neuron
from bake.planning.findings import Findings
from bake.planning.hardware import builder_setting
from bake.planning.weights import WeightFiles
from bake.profile import Profile
from bake.weights import flux
from bake.weights.flux import GIB

# Bytes on disk of the worker's environment, byte code included. cuda: measured, provision/locks/worker.txt
# (torch 2.13 for CUDA 13) synced by uv, 5.37 GB, and 0.1 GB for a Python that uv brings along. cpu: the same
# less the CUDA libraries and with torch's CPU build. neuron: not measured, taken to be as large as cuda's.
ENVIRONMENT = {"cuda": 5_500_000_000, "cpu": 1_300_000_000, "neuron": 5_500_000_000}
MEASURED = {"cuda": "measured", "cpu": "measured", "neuron": "not measured: as large as CUDA's"}

# ext4's own and reserved blocks, /boot and the EFI partition: the share that no file gets, as checked on the
# machine (bake/checks/test_disk.py). Two GiB stay free for logs and caches of the worker.
FILE_SYSTEM_SHARE = 0.07
KEPT_FREE = 2 * GIB
# Beside the files on an instance store: what a file system of its own takes there.
SCRATCH_SHARE = 0.05


@dataclass(frozen=True)
class Part:
    """Something that takes room: its bytes, and where the number comes from."""

    name: str
    bytes: int
    source: str


@dataclass(frozen=True)
class Disk:
    """The root volume at its fullest. `at_most`: the base AMI's part is an upper bound.

    `removed`: bytes that are taken away again before the snapshot.
    """

    volume_gib: int
    parts: tuple[Part, ...]
    at_most: bool
    removed: int = 0

    @property
    def needed(self) -> int:
        return sum(part.bytes for part in self.parts)

    @property
    def free(self) -> int:
        """Bytes to spare; negative if it does not fit."""
        return self.volume_gib * GIB - self.needed

    @property
    def stored(self) -> int:
        """Bytes that the snapshot holds: the files, without the room around them and what is removed."""
        return sum(part.bytes for part in self.parts if part.name not in (FILE_SYSTEM, SPARE)) - self.removed

    @property
    def needed_beside_base(self) -> int:
        """Bytes that the bake adds to the base AMI, and what stays free."""
        return sum(part.bytes for part in self.parts[1:] if part.name != FILE_SYSTEM)

    @property
    def beside_weights(self) -> int:
        """Bytes that are written after the base and beside the weights, and what stays free."""
        return sum(part.bytes for part in self.parts[1:] if part.name not in (WEIGHTS, FILE_SYSTEM))

    @property
    def verdict(self) -> str:
        if self.free >= 0:
            return "fits"
        return "may not fit" if self.at_most and self.free + self.parts[0].bytes >= 0 else "does not fit"


WEIGHTS, FILE_SYSTEM, SPARE = "weights", "file system", "kept free"


def estimate(profile: Profile, base: BaseImage, weights: WeightFiles) -> Disk:
    """Add up what the root volume must hold."""
    volume = profile.root_volume.size_gib
    accelerator = profile.base.accelerator
    known = base.content_bytes is not None
    less = ", base.remove not yet taken off" if profile.base.remove else ""
    content = base.content_bytes if base.content_bytes is not None else base.root_gib * GIB
    parts = [
        Part(
            "base AMI",
            content,
            f"{base.snapshot}: written blocks{less}" if known else "at most: its volume's size",
        ),
        _weights(profile, weights),
        Part("worker", ENVIRONMENT[accelerator], f"its environment, {MEASURED[accelerator]}"),
        Part(FILE_SYSTEM, round(volume * GIB * FILE_SYSTEM_SHARE), f"{FILE_SYSTEM_SHARE:.0%} of the volume"),
        Part(SPARE, KEPT_FREE, "logs, caches"),
    ]
    if draws_on_neuron(profile):
        sizes = profile.neuron.sizes
        compiled = ENVIRONMENT["neuron"] + len(sizes) * weights.bytes
        parts.insert(
            3, Part("for Neuron", compiled, f"its environment, {' '.join(sizes)} compiled; not measured")
        )
    if profile.weights.precision == "int8":
        extra = flux.checkpoint_bytes(weights.files)
        source = "made of the weights" if profile.weights.scratch else "made beside the weights"
        source += "" if profile.weights.keep_source else ", which are removed then"
        parts.insert(2, Part("int8 copy", extra, source))
    removed = 0 if profile.weights.keep_source or profile.weights.scratch else weights.bytes
    return Disk(volume, tuple(parts), at_most=not known or bool(profile.base.remove), removed=removed)


def _weights(profile: Profile, weights: WeightFiles) -> Part:
    """Size the weights on the root volume, with the source of int8 unless that lies elsewhere."""
    if profile.weights.scratch is None:
        return Part(WEIGHTS, weights.bytes, weights.source)
    return Part(WEIGHTS, 0, f"{weights.bytes / GIB:.1f} GiB in bf16 lie on the instance store meanwhile")


def scratch_needs(weights: WeightFiles) -> int:
    """Bytes of instance store that the source of int8 needs."""
    return round(weights.bytes * (1 + SCRATCH_SHARE))


def check_scratch(
    profile: Profile, types: Sequence[InstanceType], weights: WeightFiles, findings: Findings
) -> None:
    """Check that each of the builder's types has an instance store for the bfloat16 files."""
    if profile.weights.scratch is None:
        return
    needed = scratch_needs(weights) / 1e9
    for kind in types:
        if kind.instance_store_gb >= needed:
            findings.confirm(f"{kind.name} has an instance store of {kind.instance_store_gb} GB for bf16")
            continue
        has = f"its own has {kind.instance_store_gb} GB" if kind.instance_store_gb else "it has none at all"
        findings.problem(
            "weights.scratch",
            f"{kind.name} ({builder_setting(profile)}) has no instance store for {needed:.1f} GB: {has}",
            "without weights.scratch the bfloat16 files lie on the root volume until int8 is made",
        )


def check(profile: Profile, base: BaseImage, disk: Disk, findings: Findings) -> None:
    """Report a volume that is too small; warn of one that is too small only if the base AMI is full."""
    volume = profile.root_volume.size_gib
    if volume < base.root_gib:
        findings.problem(
            "root_volume.size_gib",
            f"{volume} GiB is less than the base AMI's own {base.root_gib} GiB",
            "a volume can't be smaller than its snapshot; nothing is resized for you",
            f"name a base AMI whose root volume has {volume} GiB at most, or agree to {base.root_gib} GiB",
        )
    if disk.verdict == "does not fit":
        findings.problem(
            "root_volume.size_gib",
            f"{volume} GiB is too small: {disk.needed / GIB:.1f} GiB are needed; nothing is resized for you",
            *arithmetic(disk),
        )
    elif disk.verdict == "may not fit":
        room = (disk.free + disk.parts[0].bytes) / GIB
        findings.warn(
            f"root_volume.size_gib: {volume} GiB leave {room:.1f} GiB for what the base AMI holds. EC2 does "
            f"not say how much that is; its volume has {base.root_gib} GiB"
            if base.content_bytes is None
            else f"root_volume.size_gib: {volume} GiB leave {room:.1f} GiB for what the base AMI holds, "
            f"{base.content_bytes / GIB:.1f} GiB less what base.remove gives"
        )
    _say_what_connect_tells(profile, base, findings)


def _say_what_connect_tells(profile: Profile, base: BaseImage, findings: Findings) -> None:
    """Note what is known only once the builder runs."""
    when = "measured on the builder before a byte is fetched; if it does not fit, the bake stops there"
    if base.content_bytes is None:
        findings.not_checked(f"what the base AMI holds of its {base.root_gib} GiB", when)
    if profile.base.remove:
        names = ", ".join(profile.base.remove)
        findings.not_checked(
            f"whether the base AMI has {names} (base.remove), and how much room that gives", when
        )


def check_key(profile: Profile, facts: AccountFacts, findings: Findings) -> None:
    """Check that the volume's KMS key exists and is enabled."""
    if profile.root_volume.kms_key is None:
        return
    key = findings.required("root_volume.kms_key", f"such KMS key in {facts.region}", facts.keys.volume)
    if key is None:
        return
    if key.enabled:
        findings.confirm("the KMS key exists and is enabled")
    else:
        findings.problem("root_volume.kms_key", "the KMS key is disabled")


def arithmetic(disk: Disk) -> list[str]:
    """Write the sum down, in GiB."""
    lines = [f"{part.bytes / GIB:7.1f} GiB  {part.name:<12} {part.source}" for part in disk.parts]
    verb = "to spare" if disk.free >= 0 else "missing"
    total = f"{disk.needed / GIB:7.1f} GiB  of {disk.volume_gib} GiB; {abs(disk.free) / GIB:.1f} GiB {verb}"
    return [*lines, total]
