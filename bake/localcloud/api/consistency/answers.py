"""Lists without what the answering replica does not know yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from bake.localcloud.api.faults.calls import Call

# What is hidden of the keys that begin with this, but for these.
Hidden = Callable[[str, Collection[str]], set[str]]


@dataclass(frozen=True)
class _Listed:
    """EC2's list `items`, whose items have their id in the element `named`; ids begin with `prefix`."""

    items: str
    named: str
    prefix: str


_EC2 = {
    "DescribeInstances": _Listed("instancesSet", "instanceId", "i-"),
    "DescribeInstanceStatus": _Listed("instanceStatusSet", "instanceId", "i-"),
    "DescribeImages": _Listed("imagesSet", "imageId", "ami-"),
    "DescribeSnapshots": _Listed("snapshotSet", "snapshotId", "snap-"),
    "DescribeSecurityGroups": _Listed("securityGroupInfo", "groupId", "sg-"),
    "DescribeSpotInstanceRequests": _Listed("spotInstanceRequestSet", "spotInstanceRequestId", "sir-"),
    "DescribeVolumes": _Listed("volumeSet", "volumeId", "vol-"),
    "DescribeLaunchTemplates": _Listed("launchTemplates", "launchTemplateId", "lt-"),
    "DescribeKeyPairs": _Listed("keySet", "keyPairId", "key-"),
}
# Parameters that name what has an id, too.
_BY_NAME = ("KeyName.", "GroupName.", "LaunchTemplateName.")
# (service, operation) -> the list, the member of an item that is its name or None, what created it.
_JSON = {
    ("sqs", "ListQueues"): ("QueueUrls", None, "sqs:CreateQueue "),
    ("events", "ListEventBuses"): ("EventBuses", "Name", "events:CreateEventBus "),
    ("events", "ListRules"): ("Rules", "Name", "events:PutRule "),
}


def lists(call: Call) -> bool:
    """Whether the call's answer is a list that may leave out something."""
    return (call.service, call.action) in _JSON or (call.service == "ec2" and call.action in _EC2)


def without(call: Call, content: bytes, hidden: Hidden) -> bytes:
    """The answer without what is hidden, unless the call names it."""
    if call.protocol == "ec2":
        if any(name.startswith(_BY_NAME) for name in call.parameters):
            return content
        listed = _EC2[call.action]
        asked = {value for name, value in call.parameters.items() if not name.startswith("Filter.")}
        left_out = hidden(listed.prefix, asked)
        return _without_items(content, listed, left_out) if left_out else content
    items, member, created = _JSON[call.service, call.action]
    names = {key.removeprefix(created) for key in hidden(created, ())}
    if not names or call.protocol != "json":
        return content
    answer = json.loads(content)
    if items not in answer:
        return content
    kept = [one for one in answer[items] if _name(one, member) not in names]
    return json.dumps({**answer, items: kept}).encode()


def without_snapshots(content: bytes, early: Callable[[str], bool]) -> bytes:
    """A DescribeImages answer in which pending images tell no snapshot as long as it is `early` for that."""
    if b">pending<" not in content:
        return content
    root = ElementTree.fromstring(content)  # noqa: S314 - our own answer
    space = _space(root)
    for image in root.iterfind(f"{space}imagesSet/{space}item"):
        pending = image.findtext(f"{space}imageState") == "pending"
        if pending and early(image.findtext(f"{space}imageId") or ""):
            for mapping in image.iter(f"{space}ebs"):
                for snapshot in mapping.findall(f"{space}snapshotId"):
                    mapping.remove(snapshot)
    return _written(root, space)


def _without_items(content: bytes, listed: _Listed, hidden: set[str]) -> bytes:
    if not any(one.encode() in content for one in hidden):
        return content
    root = ElementTree.fromstring(content)  # noqa: S314 - our own answer
    space = _space(root)
    for items in root.iter(f"{space}{listed.items}"):
        for item in items.findall(f"{space}item"):
            if item.findtext(f"{space}{listed.named}") in hidden:
                items.remove(item)
    for reservations in root.iter(f"{space}reservationSet"):
        for reservation in reservations.findall(f"{space}item"):
            if not reservation.findall(f"{space}instancesSet/{space}item"):
                reservations.remove(reservation)
    return _written(root, space)


def _name(item: Any, member: str | None) -> str:
    named = item if member is None else item.get(member, "")
    return str(named).rpartition("/")[2]


def _space(root: ElementTree.Element) -> str:
    """The namespace of the answer's elements, in braces; empty without one."""
    return root.tag[: root.tag.index("}") + 1] if root.tag.startswith("{") else ""


def _written(root: ElementTree.Element, space: str) -> bytes:
    namespace = space[1:-1] or None
    written: bytes = ElementTree.tostring(
        root, encoding="utf-8", xml_declaration=True, default_namespace=namespace
    )
    return written
