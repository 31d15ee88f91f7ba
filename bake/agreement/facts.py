"""The facts that need the user's agreement, and how a plan differs from what was agreed (R-AGREE)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bake.columns import table
from bake.errors import NotAgreed

FactValue = str | int | list[str] | None

# Every guarded fact and what its value looks like. Only `bake approve` records them.
GUARDED: dict[str, type | tuple[type, ...]] = {
    "region": str,
    "instance_types": list,
    "worker_instance_types": (list, type(None)),
    "market": str,
    "os": str,
    "base_ami": str,
    "base_follow": (str, type(None)),
    "root_volume.size_gib": int,
    "root_volume.type": str,
    "root_volume.iops": (int, type(None)),
    "root_volume.throughput": (int, type(None)),
    "root_volume.kms_key": (str, type(None)),
    "vpc": str,
    "subnet": str,
    "security_group": str,
    "sharing": list,
    "base.remove": list,
    "reaper_role": (str, type(None)),
    "address": str,
    "proxy_command": (str, type(None)),
    "publish.regions": list,
    "publish.kms_keys": list,
    "publish.parameter": (str, type(None)),
    "publish.launch_template": (str, type(None)),
    "publish.watermark": (str, type(None)),
    "channels": list,
    "base_updates": str,
    "weights.stream": (str, type(None)),
    "volume_initialization_rate": (int, type(None)),
    "worker.compile_sizes": list,
    "worker.remove_unused_libraries": str,
    **dict.fromkeys(("fleet.instance_types", "fleet.subnets", "fleet.security_groups"), list),
    **dict.fromkeys(("fleet.max_size", "fleet.messages_per_instance", "fleet.idle_minutes"), int),
    "fleet.keep_days": (int, type(None)),
    "fleet.alarm_topics": list,
    "fleet.jobs_region": str,
    "fleet.uses": list,
}
# Those that a profile with a fleet alone has.
OF_FLEET = tuple(name for name in GUARDED if name.startswith("fleet."))
# Facts that were added later, each with the value that means "not used": an older lock file does not have the
# fact, and needs no new agreement as long as nobody uses it.
OFF: dict[str, FactValue] = {
    "base_follow": None,
    "worker_instance_types": None,
    "base.remove": [],
    "reaper_role": None,
    "address": "auto",
    "proxy_command": None,
    "publish.regions": [],
    "publish.kms_keys": [],
    "publish.parameter": None,
    "publish.launch_template": None,
    "publish.watermark": None,
    "channels": [],
    "base_updates": "none",
    "weights.stream": None,
    "volume_initialization_rate": None,
    "worker.compile_sizes": [],
    "worker.remove_unused_libraries": "no",
}
# Lists whose order says nothing; instance types are tried in theirs.
_UNORDERED = (
    *("sharing", "base.remove", "publish.regions", "publish.kms_keys", "channels", "worker.compile_sizes"),
    *("fleet.instance_types", "fleet.subnets", "fleet.security_groups", "fleet.alarm_topics", "fleet.uses"),
)
# Other inputs of the image, which the agreement pins as well. The weights have a lock of their own
# (bake/weights/lock.py).
PINNED: dict[str, type | tuple[type, ...]] = {"worker.lock": str}
NAMES = (*GUARDED, *PINNED)


@dataclass(frozen=True)
class Fact:
    """One guarded fact of a plan: its present value, and where it comes from."""

    name: str
    value: FactValue
    origin: str


@dataclass(frozen=True)
class Entry:
    """One entry of an agreement's history; `changed` maps a fact to its old and its new value."""

    when: str
    who: str
    why: str
    changed: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Agreement:
    """The agreement in a lock file. A fact that is missing from `agreed` has not been agreed to yet."""

    file: Path
    agreed: Mapping[str, FactValue] = field(default_factory=dict)
    history: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Difference:
    """A fact that differs from the agreement; `new` if no value of it has been agreed to."""

    name: str
    agreed: FactValue
    now: FactValue
    origin: str
    new: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The difference for JSON."""
        agreed = None if self.new else self.agreed
        return {
            "fact": self.name,
            "agreed": agreed,
            "now": self.now,
            "origin": self.origin,
            "new": self.new,
        }


@dataclass(frozen=True)
class Guarded:
    """Everything about a plan that needs the user's agreement: its facts and its pinned inputs."""

    facts: tuple[Fact, ...]
    pins: Mapping[str, tuple[FactValue, str]]

    def rows(self) -> list[tuple[str, FactValue, str]]:
        """Name, value, origin of all of them, facts first."""
        return [
            *((fact.name, fact.value, fact.origin) for fact in self.facts),
            *((name, value, origin) for name, (value, origin) in self.pins.items()),
        ]


def compare(guarded: Guarded, agreement: Agreement | None) -> list[Difference]:
    """The facts that differ from the agreement; without one, all of them."""
    agreed = agreement.agreed if agreement else {}
    found = []
    for name, now, origin in guarded.rows():
        if name == "base_ami" and _is_followed(guarded, agreed):
            continue
        if name not in agreed and agreement and name in OFF and now == OFF[name]:
            continue
        if name not in agreed:
            found.append(Difference(name, None, now, origin, new=True))
        elif not _same(name, agreed[name], now):
            found.append(Difference(name, agreed[name], now, origin))
    return found


def _is_followed(guarded: Guarded, agreed: Mapping[str, FactValue]) -> bool:
    """Whether the user agreed to whichever AMI is the newest of its family, and an AMI was agreed to once."""
    follows = next((fact.value for fact in guarded.facts if fact.name == "base_follow"), None)
    return follows is not None and agreed.get("base_follow") == follows and "base_ami" in agreed


def _same(name: str, agreed: FactValue, now: FactValue) -> bool:
    if name in _UNORDERED and isinstance(agreed, list) and isinstance(now, list):
        return sorted(agreed) == sorted(now)
    return agreed == now


def shown(value: FactValue, name: str = "") -> str:
    """A value for people."""
    if value is None:
        return "the builder's" if name == "worker_instance_types" else "not set"
    if name == "sharing" and value == []:
        return "nobody"
    if value == []:
        return "nothing" if name == "base.remove" else "none"
    if isinstance(value, list):
        return ", ".join(value)
    if name == "worker.lock":
        return str(value)[:19]
    return str(value)


# EC2's defaults for a gp3 volume. An AMI may show them or leave them out.
# https://docs.aws.amazon.com/ebs/latest/userguide/general-purpose.html
GP3 = {"root_volume.iops": 3000, "root_volume.throughput": 125}
_EBS = {
    "root_volume.size_gib": "VolumeSize",
    "root_volume.type": "VolumeType",
    "root_volume.iops": "Iops",
    "root_volume.throughput": "Throughput",
}


def check_image(
    facts: Iterable[Fact], image_block_devices: Sequence[Mapping[str, Any]], root_device: str | None = None
) -> None:
    """Compare an AMI's block device mapping with the facts; NotAgreed shows what differs.

    `image_block_devices` are DescribeImages' BlockDeviceMappings; without `root_device` the first with EBS
    is the root. An account may encrypt all by default, so encryption that nobody asked for is no difference.
    """
    disks = [mapping for mapping in image_block_devices if "Ebs" in mapping]
    root = next((disk for disk in disks if root_device in (None, disk.get("DeviceName"))), {})
    agreed = {fact.name: fact.value for fact in facts}
    where = f"the AMI's {root.get('DeviceName') or root_device or 'root device'}"
    rows = [(*row, where) for row in _disk_rows(agreed, root.get("Ebs", {}))]
    for disk in disks:
        if disk is not root:
            size = f"{disk['Ebs'].get('VolumeSize', '?')} GiB"
            rows.append(("another volume", "none", size, f"the AMI's {disk.get('DeviceName')}"))
    if rows:
        raise NotAgreed(
            "the finished AMI's disks are not what was agreed:\n\n"
            + table(("fact", "agreed", "now", "where it comes from"), rows),
            hint="look at the base AMI's own disks and at the account's EBS defaults",
        )


def _disk_rows(agreed: Mapping[str, FactValue], ebs: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Fact, agreed and present value of what differs; leave out what is not set and has no known default."""
    defaults = GP3 if agreed["root_volume.type"] == "gp3" else {}
    rows = []
    for name, key in _EBS.items():
        default = defaults.get(name)
        expected = agreed[name] if agreed.get(name) is not None else default
        now = ebs.get(key, default)
        if expected is not None and now != expected:
            rows.append((name, shown(expected), shown(now)))
    if agreed.get("root_volume.kms_key") is not None and not ebs.get("Encrypted"):
        rows.append(("root_volume.kms_key", "encrypted", "not encrypted"))
    return rows
