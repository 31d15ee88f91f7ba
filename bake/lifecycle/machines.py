"""What bakes have in EC2: how to list it, look at one of it again, and remove it.

Each function lists what concerns bakes, or only the thing with the id `one`. Filters instead of ids: a thing
that is gone is then an empty answer instead of an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from bake.aws import Aws, ClientError
from bake.creation import RUN_TAG, time_of, unless_absent
from bake.image import describe_image, lift_protection, remove_by_hand
from bake.instance import delete_group, once_free, terminate, terminate_by_hand
from bake.lifecycle.holding import Holding, concerns, tags_of
from bake.lifecycle.kinds import Kind
from bake.retries import error_code

AT_ONCE = 100  # values of one filter; EC2 takes 200
LIVE = ["open", "active", "disabled"]  # spot requests that may launch something
USES_AMI = ["pending", "running", "stopping", "stopped"]


def _named(raw: Mapping[str, Any], key: str = "Tags") -> tuple[str, dict[str, str]]:
    tags = tags_of(raw.get(key))
    return tags.get("Name", ""), tags


def _only(field: str, one: str | None, *more: tuple[str, Sequence[str]]) -> Any:
    chosen = [(field, [one])] if one is not None else []
    return [{"Name": name, "Values": list(values)} for name, values in (*chosen, *more)]


def _pages(pages: Iterable[Any], key: str) -> Iterator[Any]:
    for page in pages:
        yield from page.get(key, [])


def spot_requests(aws: Aws, one: str | None = None) -> list[Holding]:
    """Spot requests that may still launch something."""
    filters = _only("spot-instance-request-id", one, ("state", LIVE))
    pages = aws.ec2.get_paginator("describe_spot_instance_requests").paginate(Filters=filters)
    found = []
    for raw in _pages(pages, "SpotInstanceRequests"):
        name, tags = _named(raw)
        if concerns(name, tags):
            request = raw["SpotInstanceRequestId"]
            cancel = aws.command(
                "ec2", "cancel-spot-instance-requests", "--spot-instance-request-ids", request
            )
            kept = {"status": raw.get("State", ""), "created": raw.get("CreateTime")}
            found.append(Holding("spot request", request, name, aws.region, tags, cancel, **kept))
    return found


def _cancel(aws: Aws, held: Holding) -> None:
    unless_absent(lambda: aws.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[held.id]))


def instances(aws: Aws, one: str | None = None) -> list[Holding]:
    """Instances that are not terminated; in use by a spot request that would launch them again."""
    filters = _only("instance-id", one, ("instance-state-name", [*USES_AMI, "shutting-down"]))
    pages = aws.ec2.get_paginator("describe_instances").paginate(Filters=filters)
    listed = [raw for group in _pages(pages, "Reservations") for raw in group["Instances"]]
    ours = [raw for raw in listed if concerns(*_named(raw))]
    requests = (raw["SpotInstanceRequestId"] for raw in ours if raw.get("SpotInstanceRequestId"))
    users = _users(requests, lambda some: _live_requests(aws, some))
    return [_instance(aws, raw, users.get(raw.get("SpotInstanceRequestId", ""), ())) for raw in ours]


def _live_requests(aws: Aws, some: list[str]) -> Iterator[tuple[str, str]]:
    filters = _only("", None, ("spot-instance-request-id", some), ("state", LIVE))
    pages = aws.ec2.get_paginator("describe_spot_instance_requests").paginate(Filters=filters)
    for raw in _pages(pages, "SpotInstanceRequests"):
        yield raw["SpotInstanceRequestId"], raw["SpotInstanceRequestId"]


def _instance(aws: Aws, raw: Any, used_by: tuple[str, ...]) -> Holding:
    name, tags = _named(raw)
    return Holding(
        "instance",
        raw["InstanceId"],
        name,
        aws.region,
        tags,
        terminate_by_hand(aws, "", raw["InstanceId"], spot=False),
        status=raw["State"]["Name"],
        created=raw.get("LaunchTime"),
        used_by=used_by,
        type=raw.get("InstanceType", ""),
    )


def interfaces(aws: Aws, one: str | None = None) -> list[Holding]:
    """Network interfaces; those that are attached are in use."""
    filters = _only("network-interface-id", one)
    pages = aws.ec2.get_paginator("describe_network_interfaces").paginate(Filters=filters)
    found = []
    for raw in _pages(pages, "NetworkInterfaces"):
        name, tags = _named(raw, "TagSet")
        if concerns(name, tags):
            interface = raw["NetworkInterfaceId"]
            by_hand = aws.command("ec2", "delete-network-interface", "--network-interface-id", interface)
            kept = {"status": raw.get("Status", ""), "used_by": _attached(raw)}
            found.append(Holding("network interface", interface, name, aws.region, tags, by_hand, **kept))
    return found


def _attached(raw: Any) -> tuple[str, ...]:
    """What a network interface is attached to: an instance, or a service of AWS."""
    held = raw.get("Attachment") or {}
    user = held.get("InstanceId") or held.get("InstanceOwnerId") or held.get("AttachmentId")
    return (user,) if user else ()


def _delete_interface(aws: Aws, held: Holding) -> None:
    once_free(aws, held.id, lambda: aws.ec2.delete_network_interface(NetworkInterfaceId=held.id))


def volumes(aws: Aws, one: str | None = None) -> list[Holding]:
    """Volumes; those that are attached are in use."""
    pages = aws.ec2.get_paginator("describe_volumes").paginate(Filters=_only("volume-id", one))
    found = []
    for raw in _pages(pages, "Volumes"):
        name, tags = _named(raw)
        if concerns(name, tags) and raw["State"] not in ("deleting", "deleted"):
            found.append(_volume(aws, raw, name, tags))
    return found


def _volume(aws: Aws, raw: Any, name: str, tags: Mapping[str, str]) -> Holding:
    return Holding(
        "volume",
        raw["VolumeId"],
        name,
        aws.region,
        tags,
        aws.command("ec2", "delete-volume", "--volume-id", raw["VolumeId"]),
        status=raw["State"],
        created=raw.get("CreateTime"),
        used_by=tuple(item["InstanceId"] for item in raw.get("Attachments", []) if item.get("InstanceId")),
        size=raw.get("Size"),
        type=raw.get("VolumeType", ""),
    )


def _delete_volume(aws: Aws, held: Holding) -> None:
    once_free(aws, held.id, lambda: aws.ec2.delete_volume(VolumeId=held.id))


def images(aws: Aws, one: str | None = None) -> list[Holding]:
    """The account's AMIs, also disabled ones; in use by instances that run or may be started again."""
    pages = aws.ec2.get_paginator("describe_images").paginate(
        Owners=["self"], IncludeDisabled=True, Filters=_only("image-id", one)
    )
    found: dict[str, Any] = {}
    for raw in _pages(pages, "Images"):
        name = raw.get("Name", "")
        tags = tags_of(raw.get("Tags"))
        if concerns(name, tags) and raw["State"] != "deregistered":
            found[raw["ImageId"]] = (raw, name, tags)
    users = _users(found, lambda some: _instances_of(aws, some))
    return [
        Holding(
            "AMI",
            image,
            name,
            aws.region,
            tags,
            remove_by_hand(aws, image),
            status=raw["State"],
            created=time_of(raw.get("CreationDate", "")),
            used_by=users.get(image, ()),
            size=sum(disk.get("VolumeSize", 0) for disk in _disks(raw)) or None,
            snapshots=tuple(disk["SnapshotId"] for disk in _disks(raw) if disk.get("SnapshotId")),
            protection=_protection(raw),
        )
        for image, (raw, name, tags) in found.items()
    ]


def _disks(raw: Any) -> list[Any]:
    """What an AMI says of its disks; a pending one may say nothing yet."""
    return [mapping["Ebs"] for mapping in raw.get("BlockDeviceMappings", []) if mapping.get("Ebs")]


def _protection(raw: Any) -> str:
    """How an AMI is protected from deregistration: enabled-with-cooldown, …; empty where it is not."""
    found = str(raw.get("DeregistrationProtection") or "")
    return found if found.startswith("enabled") else ""


def _users(
    ids: Iterable[str], ask: Callable[[list[str]], Iterable[tuple[str, str]]]
) -> dict[str, tuple[str, ...]]:
    """Who uses each of these, from pairs of the used and its user."""
    users: dict[str, tuple[str, ...]] = {}
    listed = list(ids)
    for first in range(0, len(listed), AT_ONCE):
        for used, user in ask(listed[first : first + AT_ONCE]):
            users[used] = (*users.get(used, ()), user)
    return users


def _instances_of(aws: Aws, some: list[str]) -> Iterator[tuple[str, str]]:
    filters: Any = _only("", None, ("image-id", some), ("instance-state-name", USES_AMI))
    for group in _pages(
        aws.ec2.get_paginator("describe_instances").paginate(Filters=filters), "Reservations"
    ):
        yield from ((raw["ImageId"], raw["InstanceId"]) for raw in group["Instances"])


def _deregister(aws: Aws, held: Holding) -> None:
    """Deregister it; its snapshots are things of their own, and go by their own tags."""
    try:
        if (facts := describe_image(aws, held.id, disabled=True)) is not None:
            lift_protection(aws, facts)
        unless_absent(lambda: aws.ec2.deregister_image(ImageId=held.id))
    except ClientError as error:
        if error_code(error) != "InvalidAMIID.Unavailable":  # gone meanwhile
            raise


def snapshots(aws: Aws, one: str | None = None) -> list[Holding]:
    """The account's snapshots with a run's tag; in use by the AMIs that are registered, also disabled."""
    filters = _only("snapshot-id", one) if one else _only("", None, ("tag-key", [RUN_TAG]))
    found = {}
    pages = aws.ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=filters)
    for raw in _pages(pages, "Snapshots"):
        name, tags = _named(raw)
        if concerns(name, tags):
            found[raw["SnapshotId"]] = (raw, name, tags)
    users = images_by_snapshot(aws) if found else {}
    return [
        Holding(
            "snapshot",
            snapshot,
            name,
            aws.region,
            tags,
            aws.command("ec2", "delete-snapshot", "--snapshot-id", snapshot),
            status=raw["State"],
            created=raw.get("StartTime"),
            used_by=users.get(snapshot, ()),
            size=raw.get("VolumeSize"),
        )
        for snapshot, (raw, name, tags) in found.items()
    ]


def images_by_snapshot(aws: Aws) -> dict[str, tuple[str, ...]]:
    """The AMIs of the account that each snapshot is of."""
    users: dict[str, tuple[str, ...]] = {}
    pages = aws.ec2.get_paginator("describe_images").paginate(Owners=["self"], IncludeDisabled=True)
    for raw in _pages(pages, "Images"):
        for disk in _disks(raw):
            if snapshot := disk.get("SnapshotId"):
                users[snapshot] = (*users.get(snapshot, ()), raw["ImageId"])
    return users


def _delete_snapshot(aws: Aws, held: Holding) -> None:
    unless_absent(lambda: aws.ec2.delete_snapshot(SnapshotId=held.id))


def groups(aws: Aws, one: str | None = None) -> list[Holding]:
    """Security groups; in use by network interfaces, and by the rules of other groups that name them."""
    found = {}
    pages = aws.ec2.get_paginator("describe_security_groups").paginate(Filters=_only("group-id", one))
    for raw in _pages(pages, "SecurityGroups"):
        tags = tags_of(raw.get("Tags"))
        if concerns(raw["GroupName"], tags):
            found[raw["GroupId"]] = (raw["GroupName"], tags)
    users = _users(found, lambda some: [*_interfaces_of(aws, some), *_groups_naming(aws, some)])
    return [
        Holding(
            "security group",
            group,
            name,
            aws.region,
            tags,
            aws.command("ec2", "delete-security-group", "--group-id", group),
            used_by=users.get(group, ()),
        )
        for group, (name, tags) in found.items()
    ]


def _interfaces_of(aws: Aws, some: list[str]) -> Iterator[tuple[str, str]]:
    """Each interface's groups, with its instance as their user, or itself where it has none."""
    filters: Any = _only("", None, ("group-id", some))
    pages = aws.ec2.get_paginator("describe_network_interfaces").paginate(Filters=filters)
    for raw in _pages(pages, "NetworkInterfaces"):
        user = (raw.get("Attachment") or {}).get("InstanceId") or raw["NetworkInterfaceId"]
        yield from ((group["GroupId"], user) for group in raw.get("Groups", []))


def _groups_naming(aws: Aws, some: list[str]) -> Iterator[tuple[str, str]]:
    """Each group and another whose rules name it: EC2 deletes it only after those rules."""
    for rules, field in (("IpPermissions", "ip-permission"), ("IpPermissionsEgress", "egress.ip-permission")):
        filters: Any = _only("", None, (f"{field}.group-id", some))
        pages = aws.ec2.get_paginator("describe_security_groups").paginate(Filters=filters)
        for raw in _pages(pages, "SecurityGroups"):
            named = {pair.get("GroupId") for rule in raw.get(rules, []) for pair in rule["UserIdGroupPairs"]}
            yield from ((one, raw["GroupId"]) for one in named & {*some} if one != raw["GroupId"])


def key_pairs(aws: Aws, one: str | None = None) -> list[Holding]:
    """Key pairs; an instance needs its key pair only for its launch, so none is ever in use."""
    found = []
    for raw in aws.ec2.describe_key_pairs(Filters=_only("key-name", one))["KeyPairs"]:
        name, tags = raw["KeyName"], tags_of(raw.get("Tags"))
        if concerns(name, tags):
            by_hand = aws.command("ec2", "delete-key-pair", "--key-name", name)
            since = raw.get("CreateTime")
            found.append(Holding("key pair", name, name, aws.region, tags, by_hand, created=since))
    return found


def _delete_key(aws: Aws, held: Holding) -> None:
    unless_absent(lambda: aws.ec2.delete_key_pair(KeyName=held.id))


AMIS = Kind("AMI", "AMIs", images, _deregister)
# In the order of their removal.
KINDS = (
    Kind("spot request", "spot requests", spot_requests, _cancel),
    Kind("instance", "instances", instances, lambda aws, held: terminate(aws, held.id)),
    Kind("network interface", "network interfaces", interfaces, _delete_interface),
    Kind("volume", "volumes", volumes, _delete_volume),
    Kind("security group", "security groups", groups, lambda aws, held: delete_group(aws, held.id)),
    AMIS,
    Kind("snapshot", "snapshots", snapshots, _delete_snapshot),
    Kind("key pair", "key pairs", key_pairs, _delete_key),
)
# What a copy of an AMI is made of, in another region than the builder's.
COPIED = tuple(kind for kind in KINDS if kind.name in ("AMI", "snapshot"))
