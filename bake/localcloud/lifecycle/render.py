"""The local cloud's status as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from bake.columns import columns
from bake.localcloud.images.hostile import HostileBase
from bake.localcloud.lifecycle.state import ImageStatus, Status


def render(status: Status | None) -> str:
    """Render the status: addresses, instances and AMIs."""
    if status is None:
        return "the local cloud is down"
    lines = [
        f"the local cloud is up since {status.since[:19].replace('T', ' ')} UTC (process {status.pid})",
        f"  AWS API {status.endpoint}   Hub {status.hub}   wheels {status.wheels}",
        "  no delays (--lenient)" if status.lenient else f"  delays of AWS's API: seed {status.seed}",
        "",
        "Instances" if status.instances else "No instances.",
    ]
    lines += columns(
        [
            (
                one.id,
                one.state,
                one.type,
                one.address,
                one.image,
                _disk(one.volume_gib, one.disk_bytes),
                one.name,
            )
            for one in status.instances
        ]
    )
    lines += ["", "AMIs" if status.images else "No AMIs baked yet.", *_images(status.images)]
    return "\n".join([*lines, *_refused(status)])


def _refused(status: Status) -> list[str]:
    """What machines tried to reach although nobody had declared it."""
    if not status.refused:
        return []
    rows = [
        (f"{one.host}:{one.port}" if one.port else one.host, one.protocol, one.address, str(one.packets))
        for one in status.refused
    ]
    return [
        "",
        "Refused, since they were not declared (destination, protocol, address, packets)",
        *columns(rows),
    ]


def image_rows(images: Sequence[ImageStatus]) -> str:
    """Render AMIs, one per line."""
    return "\n".join(_images(images)) if images else "No AMIs baked yet."


def base_rows(bases: Sequence[HostileBase]) -> str:
    """Render hostile bases, one per line."""
    return "\n".join(
        columns(
            [
                (base.id, base.owner, base.name, "stops" if base.hostile.stops else "works", base.hostile.why)
                for base in bases
            ]
        )
    )


def _images(images: Sequence[ImageStatus]) -> list[str]:
    return columns(
        [
            (
                image.id,
                image.created[:16].replace("T", " "),
                _disk(image.volume_gib, image.disk_bytes),
                image.name,
            )
            for image in images
        ]
    )


def _disk(gib: int, used: int) -> str:
    return f"{gib} GiB ({used / (1 << 30):.1f} used)"
