"""Instance types that plans are tested with, and the zones of eu-north-1 that offer them.

`tests/bake/account/test_instance_types.py` compares them with what EC2 says.
"""

from __future__ import annotations

from typing import Any

from bake.account.instance_types import Device, InstanceType

# MB/s of the network for a while, of types that have more than their baseline.
_PEAKS = {
    "t3.micro": 625.0,
    **dict.fromkeys(("g5.xlarge", "g6.xlarge", "r5.2xlarge", "m5.xlarge"), 1250.0),
    **dict.fromkeys(("g5.2xlarge", "g6.2xlarge", "m5.4xlarge"), 1250.0),
    **dict.fromkeys(("m7i.large", "m7i.xlarge", "m7g.xlarge", "r7i.2xlarge"), 1562.5),
    "inf2.xlarge": 1875.0,
    **dict.fromkeys(("g6e.xlarge", "g6e.2xlarge"), 2500.0),
    **dict.fromkeys(("g4dn.xlarge", "g5.4xlarge", "g6.4xlarge", "inf2.8xlarge"), 3125.0),
}


def _row(
    name: str,
    vcpus: int,
    memory_mib: int,
    device: Device | None,
    store_gb: int,
    ebs: tuple[float, float],
    network: float,
    zones: str,
    **more: Any,
) -> tuple[InstanceType, tuple[str, ...]]:
    """A type, and the zones with these letters. `ebs` and `network` are in MB/s."""
    usual: dict[str, Any] = {"architectures": ("x86_64",), "markets": ("on-demand", "spot"), **more}
    kind = InstanceType(
        name=name,
        vcpus=vcpus,
        memory_mib=memory_mib,
        device=device,
        instance_store_gb=store_gb,
        ebs_baseline=ebs[0],
        ebs_maximum=ebs[1],
        network_baseline=network,
        network_peak=_PEAKS.get(name, network),
        **usual,
    )
    return kind, tuple(f"eu-north-1{letter}" for letter in zones)


_ROWS = (
    _row("g4dn.xlarge", 4, 16_384, Device("cuda", "T4", 1, 16_384), 125, (118.75, 437.5), 625.0, "abc"),
    _row("g5.xlarge", 4, 16_384, Device("cuda", "A10G", 1, 22_888), 250, (87.5, 437.5), 312.5, "bc"),
    _row("g5.2xlarge", 8, 32_768, Device("cuda", "A10G", 1, 22_888), 450, (106.25, 437.5), 625.0, "bc"),
    _row("g5.4xlarge", 16, 65_536, Device("cuda", "A10G", 1, 22_888), 600, (593.75, 593.75), 1250.0, "bc"),
    _row("g5.8xlarge", 32, 131_072, Device("cuda", "A10G", 1, 22_888), 900, (2000.0, 2000.0), 3125.0, "bc"),
    _row("g5.12xlarge", 48, 196_608, Device("cuda", "A10G", 4, 22_888), 3800, (2000.0, 2000.0), 5000.0, "bc"),
    _row("g5.16xlarge", 64, 262_144, Device("cuda", "A10G", 1, 22_888), 1900, (2000.0, 2000.0), 3125.0, "bc"),
    _row("g5.24xlarge", 96, 393_216, Device("cuda", "A10G", 4, 22_888), 3800, (2375.0, 2375.0), 6250.0, "bc"),
    _row(
        "g5.48xlarge", 192, 786_432, Device("cuda", "A10G", 8, 22_888), 7600, (2375.0, 2375.0), 12500.0, "bc"
    ),
    _row("g6.xlarge", 4, 16_384, Device("cuda", "L4", 1, 22_888), 250, (125.0, 625.0), 312.5, "ab"),
    _row("g6.2xlarge", 8, 32_768, Device("cuda", "L4", 1, 22_888), 450, (250.0, 625.0), 625.0, "ab"),
    _row("g6.4xlarge", 16, 65_536, Device("cuda", "L4", 1, 22_888), 600, (1000.0, 1000.0), 1250.0, "ab"),
    _row("g6.8xlarge", 32, 131_072, Device("cuda", "L4", 1, 22_888), 900, (2000.0, 2000.0), 3125.0, "ab"),
    _row("g6.12xlarge", 48, 196_608, Device("cuda", "L4", 4, 22_888), 3760, (2500.0, 2500.0), 5000.0, "ab"),
    _row("g6.16xlarge", 64, 262_144, Device("cuda", "L4", 1, 22_888), 1880, (2500.0, 2500.0), 3125.0, "ab"),
    _row("g6.24xlarge", 96, 393_216, Device("cuda", "L4", 4, 22_888), 3760, (3750.0, 3750.0), 6250.0, "ab"),
    _row("g6.48xlarge", 192, 786_432, Device("cuda", "L4", 8, 22_888), 7520, (7500.0, 7500.0), 12500.0, "ab"),
    _row("g6e.xlarge", 4, 32_768, Device("cuda", "L40S", 1, 45_776), 250, (125.0, 625.0), 312.5, "ab"),
    _row("g6e.2xlarge", 8, 65_536, Device("cuda", "L40S", 1, 45_776), 450, (250.0, 625.0), 625.0, "ab"),
    _row("g6e.4xlarge", 16, 131_072, Device("cuda", "L40S", 1, 45_776), 600, (1000.0, 1000.0), 2500.0, "ab"),
    _row("g6e.8xlarge", 32, 262_144, Device("cuda", "L40S", 1, 45_776), 900, (2000.0, 2000.0), 3125.0, "ab"),
    _row(
        "g6e.12xlarge", 48, 393_216, Device("cuda", "L40S", 4, 45_776), 3800, (2500.0, 2500.0), 12500.0, "ab"
    ),
    _row(
        "g6e.16xlarge", 64, 524_288, Device("cuda", "L40S", 1, 45_776), 1900, (2500.0, 2500.0), 4375.0, "ab"
    ),
    _row(
        "g6e.24xlarge", 96, 786_432, Device("cuda", "L40S", 4, 45_776), 3800, (3750.0, 3750.0), 25000.0, "ab"
    ),
    _row(
        "g6e.48xlarge",
        192,
        1_572_864,
        Device("cuda", "L40S", 8, 45_776),
        7600,
        (7500.0, 7500.0),
        50000.0,
        "ab",
    ),
    _row(
        "inf2.xlarge",
        4,
        16_384,
        Device("neuron", "Inferentia2", 1, 32_768),
        0,
        (156.25, 1250.0),
        260.375,
        "ab",
    ),
    _row(
        "inf2.8xlarge",
        32,
        131_072,
        Device("neuron", "Inferentia2", 1, 32_768),
        0,
        (1250.0, 1250.0),
        2083.375,
        "ab",
    ),
    _row(
        "inf2.24xlarge",
        96,
        393_216,
        Device("neuron", "Inferentia2", 6, 32_768),
        0,
        (3750.0, 3750.0),
        6250.0,
        "ab",
    ),
    _row(
        "inf2.48xlarge",
        192,
        786_432,
        Device("neuron", "Inferentia2", 12, 32_768),
        0,
        (7500.0, 7500.0),
        12500.0,
        "ab",
    ),
    _row("m5.xlarge", 4, 16_384, None, 0, (143.75, 593.75), 156.25, "abc"),
    _row("m5.4xlarge", 16, 65_536, None, 0, (593.75, 593.75), 625.0, "abc"),
    _row(
        "m7g.xlarge", 4, 16_384, None, 0, (156.25039999999998, 1250.0), 234.5, "abc", architectures=("arm64",)
    ),
    _row("m7i.large", 2, 8_192, None, 0, (81.25, 1250.0), 97.625, "abc"),
    _row("m7i.xlarge", 4, 16_384, None, 0, (156.25, 1250.0), 195.25, "abc"),
    _row("r5.2xlarge", 8, 65_536, None, 0, (287.5, 593.75), 312.5, "abc"),
    _row("r7i.2xlarge", 8, 65_536, None, 0, (312.5, 1250.0), 390.625, "abc"),
    _row("t3.micro", 2, 1_024, None, 0, (10.875, 260.625), 8.0, "abc"),
    _row(
        "u-6tb1.112xlarge", 448, 6_291_456, None, 0, (4750.0, 4750.0), 12500.0, "ab", markets=("on-demand",)
    ),
)
TYPES = {kind.name: kind for kind, _ in _ROWS}
ZONES = {kind.name: zones for kind, zones in _ROWS}
