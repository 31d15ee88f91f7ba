"""What EBS takes for a root volume of each type: size, IOPS, throughput, and how they go together.

https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-types.html, as of November 2026.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SOURCE = "https://docs.aws.amazon.com/ebs/latest/userguide/"
GENERAL, PROVISIONED = f"{SOURCE}general-purpose.html", f"{SOURCE}provisioned-iops.html"


@dataclass(frozen=True)
class Limits:
    """Limits of a volume type: GiB, IOPS, MiB/s.

    `included` IOPS come with every volume, however small; more of them need `iops_per_gib`.
    """

    gib: tuple[int, int]
    source: str
    iops: tuple[int, int] | None = None
    iops_per_gib: int = 0
    included: int = 0
    throughput_per_iops: float = 0


LIMITS = {
    "gp3": Limits((1, 65_536), GENERAL, (3_000, 80_000), 500, included=3_000, throughput_per_iops=0.25),
    "gp2": Limits((1, 16_384), GENERAL),
    "io1": Limits((4, 16_384), PROVISIONED, (100, 64_000), 50),
    "io2": Limits((4, 65_536), PROVISIONED, (100, 256_000), 1_000),
}


def refused(kind: str, gib: int, iops: int | None, throughput: int | None) -> Iterator[str]:
    """Say what EC2 would refuse, with the setting, the limit and its source.

    `throughput` has its own limits in the schema: only gp3 has any.
    """
    limits = LIMITS[kind]
    least, most = limits.gib
    if not least <= gib <= most:
        yield f"size_gib: {kind} has {least:,} to {most:,} GiB, not {gib:,} ({limits.source})"
    if iops is not None and limits.iops is not None:
        yield from _iops(kind, gib, iops, limits)
    if throughput is not None and limits.throughput_per_iops:
        have = iops or limits.included
        if throughput > have * limits.throughput_per_iops:
            needed = -(-throughput // limits.throughput_per_iops)
            yield (
                f"throughput: {throughput:,} MiB/s need {needed:,.0f} iops, not {have:,}: {kind} has "
                f"{limits.throughput_per_iops} MiB/s for each ({limits.source})"
            )


def _iops(kind: str, gib: int, iops: int, limits: Limits) -> Iterator[str]:
    least, most = limits.iops or (0, 0)
    if not least <= iops <= most:
        yield f"iops: {kind} has {least:,} to {most:,}, not {iops:,} ({limits.source})"
    elif iops > max(limits.included, gib * limits.iops_per_gib):
        yield (
            f"iops: {iops:,} need {-(-iops // limits.iops_per_gib):,} GiB, not {gib:,}: {kind} has "
            f"{limits.iops_per_gib:,} for each ({limits.source})"
        )
