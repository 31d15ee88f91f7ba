"""Estimate how long the bake takes, what it costs, and how fast an instance of the image starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

from bake.account.instance_types import InstanceType
from bake.planning import compiling
from bake.planning.disk import Disk
from bake.planning.findings import Findings
from bake.planning.hardware import Types, bakes_without
from bake.planning.prices import Prices
from bake.planning.weights import WeightFiles
from bake.profile import Profile
from bake.profile.schema import RootVolume
from bake.weights import flux
from bake.weights.flux import GIB

# Steps of the image that is drawn in bfloat16 and in int8 to compare them. In bfloat16 each step reads the
# transformer anew: where int8 is wanted, neither the GPU nor the host's memory holds it.
COMPARED_STEPS = 2
# Seconds that hardly depend on the weights, all assumed: both boots with cloud-init; installing the worker
# (beside the download); checks and seal; the boot check's drawing and clean-up.
BOOT, INSTALL, CHECKS, DRAWING = 90, 300, 120, 90
MIB_PER_S = 1.048576  # MB/s
# MB/s at which a volume made from a snapshot is read first, by a mapping of files as the worker does it: each
# block is fetched from S3 then. The source is shown with the figure.
HYDRATION = 77.0
HYDRATION_SOURCE = (
    "first reads of a volume made from a snapshot fetch its blocks from S3: 77 MB/s with the read-ahead of "
    "2,560 KiB that the image sets, 20 MB/s with Linux's 128 KiB (measured on a simulated disk)"
)
# MiB/s of the fastest VolumeInitializationRate that a launch template can ask for.
# https://docs.aws.amazon.com/ebs/latest/userguide/initalize-volume.html
INITIALIZATION = 300
# Both images of the comparison, where the builder's CPU draws them: two operations a parameter and token, of
# the transformer (11.9 B; 256 patches of the image, 512 tokens) at each step, of T5 (4.8 B) once.
DRAWING_OPERATIONS = 2 * (COMPARED_STEPS * 2 * 11.9e9 * (256 + 512) + 2 * 4.8e9 * 512)
# A vCPU's operations a second. Measured: 47e9 in float32, 233e9 where AVX-512 knows bfloat16; many do not.
VCPU = 50e9
# MB/s through an internet gateway of a type with fewer vCPUs; one with as many has half of its bandwidth. One
# connection has 5 Gbit/s at most, too.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-network-bandwidth.html
GATEWAY, GATEWAY_VCPUS = 625.0, 32
GATEWAY_SOURCE = (
    "the download at {:.0f} MB/s: through an internet gateway EC2 lets 5 Gbit/s below 32 vCPUs, half of the "
    "type's bandwidth from there on, and 5 Gbit/s a connection"
)
# The shortest lease: an estimate of minutes knows nothing of a slow region.
SHORTEST_LEASE = timedelta(hours=2)


@dataclass(frozen=True)
class Estimates:
    """Seconds, GB-months and dollars; speeds are MB/s. None where a price is not known.

    `volume` is the root volume's throughput, `instance` what the builder's type gives to EBS steadily.
    `download_note` says what limits the download, where the internet gateway does.
    `moved_bytes` go through the builder; the boot check moves `cold_start_bytes`, in `cold_start_seconds`
    from a volume that is filled. One that is still empty takes `hydration_seconds` more, at `hydration_rate`;
    filled by the fastest VolumeInitializationRate it has the bytes after `initialized_seconds`.
    """

    builder_seconds: float
    boot_check_seconds: float
    moved_bytes: int
    volume: float
    instance: float
    cold_start_seconds: float
    cold_start_bytes: int
    hydration_seconds: float
    hydration_rate: float
    hydration_source: str
    initialized_seconds: float
    snapshot_gb: float
    at_most: bool
    prices: Prices
    download_note: str = ""

    @property
    def limit(self) -> str:
        """What limits the speed."""
        return "the instance type's EBS limit" if 0 < self.instance < self.volume else "the volume's limit"

    @property
    def speed(self) -> float:
        """MB/s at which weights are written and read: the lower of both limits."""
        return min(self.volume, self.instance) if self.instance else self.volume

    @property
    def seconds(self) -> float:
        """Builder and boot check, one after the other; without the time of the snapshot."""
        return self.builder_seconds + self.boot_check_seconds

    @property
    def builder_dollars(self) -> float | None:
        price = self.prices.builder_hour
        return None if price is None else price * self.builder_seconds / 3600

    @property
    def boot_check_dollars(self) -> float | None:
        price = self.prices.worker_hour
        return None if price is None else price * self.boot_check_seconds / 3600

    @property
    def bake_dollars(self) -> float | None:
        builder, check = self.builder_dollars, self.boot_check_dollars
        return None if builder is None or check is None else builder + check

    @property
    def month_dollars(self) -> float | None:
        price = self.prices.snapshot_month
        return None if price is None else price * self.snapshot_gb


def estimate(profile: Profile, types: Types, weights: WeightFiles, disk: Disk, prices: Prices) -> Estimates:
    """The weights move three times: from the Hub, through the checks, and into the booted image's memory.

    int8 is made of them and hashed with them, and both are drawn with.
    """
    kind = types.builder[0]
    volume, instance = throughput(profile.root_volume), kind.ebs_baseline
    speed, workers = (_speed(profile.root_volume, one) for one in (kind, types.worker[0]))
    fastest = min(speed, kind.network_baseline) if kind.network_baseline else speed
    network = fastest if profile.weights.mirror else min(fastest, gateway(kind))
    cold = flux.resident_bytes(weights.files, profile.weights.precision)
    int8 = profile.weights.precision == "int8"
    quantizing = _quantizing_bytes(weights) if int8 else 0
    download, quantize, check, start = (
        _seconds(size, rate)
        for size, rate in ((weights.bytes, network), (quantizing, speed), (cold, speed), (cold, workers))
    )
    quantize += cpu_drawing_seconds(kind) if int8 and bakes_without(profile, types) else 0
    # Where the builder has the GPU, a start of the whole worker is recorded; else its imports, in seconds.
    trace = check if profile.base.accelerator == "cuda" and not bakes_without(profile, types) else 0
    compile_ = compiling.seconds(profile, types, check)
    hydration = max(0.0, _seconds(cold, HYDRATION) - start)
    return Estimates(
        builder_seconds=BOOT + max(INSTALL, download) + quantize + compile_ + check + trace + CHECKS,
        boot_check_seconds=BOOT + start + hydration + DRAWING,
        moved_bytes=weights.bytes + quantizing + (2 * cold if trace else cold),
        volume=volume,
        instance=instance,
        cold_start_seconds=start,
        cold_start_bytes=cold,
        hydration_seconds=hydration,
        hydration_rate=HYDRATION,
        hydration_source=HYDRATION_SOURCE,
        initialized_seconds=_seconds(cold, INITIALIZATION * MIB_PER_S),
        snapshot_gb=disk.stored / GIB,
        at_most=disk.at_most,
        prices=prices,
        download_note=GATEWAY_SOURCE.format(network) if network < fastest else "",
    )


def cold_start(profile: Profile, weights: WeightFiles, kind: InstanceType) -> float:
    """Seconds from a launch to a loaded model, on a volume that is still empty; the boot's are assumed."""
    size = flux.resident_bytes(weights.files, profile.weights.precision)
    return BOOT + max(_seconds(size, HYDRATION), _seconds(size, _speed(profile.root_volume, kind)))


def gateway(kind: InstanceType) -> float:
    """MB/s that an internet gateway lets through to and from an instance of a type; infinite if unknown."""
    if kind.vcpus < GATEWAY_VCPUS:
        return GATEWAY
    return kind.network_baseline / 2 or math.inf


def check(profile: Profile, types: tuple[InstanceType, ...], findings: Findings) -> None:
    """Warn of a volume that is faster than the instance type's EBS limit: it costs more and gains nothing."""
    volume = throughput(profile.root_volume)
    for kind in types:
        if profile.root_volume.throughput and 0 < kind.ebs_maximum < volume:
            findings.warn(
                f"root_volume.throughput: {volume:.0f} MB/s is more than {kind.name} ever gets from EBS: "
                f"{kind.ebs_baseline:.0f} MB/s steadily, {kind.ebs_maximum:.0f} MB/s for a while"
            )


def _quantizing_bytes(weights: WeightFiles) -> int:
    """Bytes moved while int8 is made, hashed and compared with bfloat16, which is read once for each step."""
    source, made = weights.bytes, flux.checkpoint_bytes(weights.files)
    transformer = sum(f.bytes for path, f in weights.files.items() if flux.component(path) == "transformer")
    return 2 * (source + made) + source + (COMPARED_STEPS - 1) * transformer + made


def cpu_drawing_seconds(kind: InstanceType) -> float:
    """Seconds that a CPU takes for both images of the comparison with int8, without reading the weights."""
    return DRAWING_OPERATIONS / (VCPU * max(kind.vcpus, 1))


def _speed(volume: RootVolume, kind: InstanceType) -> float:
    """MB/s between the volume and an instance of this type: the lower of both limits."""
    return min(throughput(volume), kind.ebs_baseline or throughput(volume))


def _seconds(size: int, rate: float) -> float:
    return size / (rate * 1e6)


def lease(seconds: float) -> timedelta:
    """The lease of a bake that is estimated to take so many seconds, unless the profile sets another."""
    return max(3 * timedelta(seconds=seconds), SHORTEST_LEASE)


def throughput(volume: RootVolume) -> float:
    """MB/s of a volume. https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-types.html"""
    iops = volume.iops or 0
    mib = {
        "gp3": volume.throughput or 125,
        # Up to 170 GiB; larger ones reach 250 MiB/s, below 334 GiB while their burst credits last.
        "gp2": 128 if volume.size_gib <= 170 else 250,
        # 256 KiB an operation up to 500 MiB/s, beyond 32,000 IOPS 16 KiB an operation up to 1,000 MiB/s.
        "io1": min(iops / 4, 500) if iops <= 32_000 else min(iops / 64, 1000),
        "io2": min(iops / 4, 4000),
    }[volume.type]
    return mib * MIB_PER_S
