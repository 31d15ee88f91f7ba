"""The ids in an EC2 call: malformed or unknown ones are refused with the codes that EC2 has for each kind.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html lists the codes. moto looks up
some of the ids that it is given, and fails on others or takes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from moto.ec2.exceptions import EC2ClientError

from bake.localcloud.api.parameters import Tree

_SHORT_OR_LONG = r"-(?:[0-9a-f]{8}|[0-9a-f]{17})"


@dataclass(frozen=True)
class Kind:
    """One kind of resource: its prefix, EC2's codes and message, and how a backend knows an id.

    `malformed` is None where EC2 says of a malformed id that it does not exist.
    """

    prefix: str
    malformed: str | None
    unknown: str
    message: str
    known: Callable[[Any, str], bool]

    def check(self, backend: Any, values: list[str]) -> None:
        """Raise EC2ClientError unless all ids are well-formed and known."""
        for value in values:
            if self.malformed and not re.fullmatch(self.prefix + _SHORT_OR_LONG, value):
                expected = f' (expecting "{self.prefix}-...")' if value else ""
                raise EC2ClientError(self.malformed, f'Invalid id: "{value[:200]}"{expected}')
        if unknown := [value for value in values if not self.known(backend, value)]:
            named = ", ".join(unknown)
            many = len(unknown) > 1
            raise EC2ClientError(self.unknown, _plural(self.message, many).format(named))


def _plural(message: str, many: bool) -> str:
    return message.replace(" ID '", " IDs '").replace("does not", "do not") if many else message


def _in(name: str) -> Callable[[Any, str], bool]:
    return lambda backend, value: value in getattr(backend, name)


def _subnet(backend: Any, value: str) -> bool:
    return any(value in zone for zone in list(backend.subnets.values()))


def _group(backend: Any, value: str) -> bool:
    return any(value in of_vpc for of_vpc in list(backend.groups.values()))


def _instance(backend: Any, value: str) -> bool:
    return backend.get_instance_by_id(value) is not None


def _image(backend: Any, value: str) -> bool:
    """Whether it is there; a deregistered one is not, as DescribeImages and launches say of it themselves."""
    return value in backend.amis or value in backend.deleted_amis


INSTANCE = Kind(
    "i", "InvalidInstanceID.Malformed", "InvalidInstanceID.NotFound",
    "The instance ID '{}' does not exist", _instance,
)  # fmt: skip
IMAGE = Kind(
    "ami", "InvalidAMIID.Malformed", "InvalidAMIID.NotFound", "The image id '[{}]' does not exist", _image
)
SNAPSHOT = Kind(
    "snap", "InvalidSnapshotID.Malformed", "InvalidSnapshot.NotFound",
    "The snapshot '{}' does not exist.", _in("snapshots"),
)  # fmt: skip
VOLUME = Kind(
    "vol", "InvalidVolumeID.Malformed", "InvalidVolume.NotFound",
    "The volume '{}' does not exist.", _in("volumes"),
)  # fmt: skip
GROUP = Kind(
    "sg", "InvalidGroupId.Malformed", "InvalidGroup.NotFound",
    "The security group '{}' does not exist", _group,
)  # fmt: skip
SUBNET = Kind("subnet", None, "InvalidSubnetID.NotFound", "The subnet ID '{}' does not exist", _subnet)
VPC = Kind("vpc", None, "InvalidVpcID.NotFound", "The vpc ID '{}' does not exist", _in("vpcs"))
INTERFACE = Kind(
    "eni", "InvalidNetworkInterfaceId.Malformed", "InvalidNetworkInterfaceID.NotFound",
    "The networkInterface ID '{}' does not exist", _in("enis"),
)  # fmt: skip
TEMPLATE = Kind(
    "lt", "InvalidLaunchTemplateId.Malformed", "InvalidLaunchTemplateId.NotFound",
    "The specified launch template, with template ID {}, does not exist.", _in("launch_templates"),
)  # fmt: skip
SPOT = Kind(
    "sir", "InvalidSpotInstanceRequestID.Malformed", "InvalidSpotInstanceRequestID.NotFound",
    "The spot instance request ID '{}' does not exist",
    lambda backend, value: value in backend.local_requests,
)  # fmt: skip
GATEWAY = Kind(
    "igw", None, "InvalidInternetGatewayID.NotFound",
    "The internetGateway ID '{}' does not exist", _in("internet_gateways"),
)  # fmt: skip
ROUTES = Kind(
    "rtb", None, "InvalidRouteTableID.NotFound",
    "The routeTable ID '{}' does not exist", _in("route_tables"),
)  # fmt: skip
ACL = Kind(
    "acl", None, "InvalidNetworkAclID.NotFound",
    "The networkAcl ID '{}' does not exist", _in("network_acls"),
)  # fmt: skip


def _rare(prefix: str, code: str, words: str, attribute: str) -> Kind:
    """A kind whose malformed ids EC2 says not to exist."""
    return Kind(prefix, None, code, f"The {words} ID '{{}}' does not exist", _in(attribute))


TRANSIT = _rare("tgw", "InvalidTransitGatewayID.NotFound", "transitGateway", "transit_gateways")
_MIRRORS = "InvalidTrafficMirror{}Id.NotFound"

# By the name of the parameter, in the singular.
_BY_NAME: Mapping[str, Kind] = {
    "InstanceId": INSTANCE,
    "ImageId": IMAGE,
    "SnapshotId": SNAPSHOT,
    "VolumeId": VOLUME,
    "SecurityGroupId": GROUP,
    "GroupId": GROUP,
    "SourceSecurityGroupId": GROUP,
    "SubnetId": SUBNET,
    "VpcId": VPC,
    "NetworkInterfaceId": INTERFACE,
    "LaunchTemplateId": TEMPLATE,
    "SpotInstanceRequestId": SPOT,
    "InternetGatewayId": GATEWAY,
    "RouteTableId": ROUTES,
    "NetworkAclId": ACL,
    "TransitGatewayId": TRANSIT,
    "PeerTransitGatewayId": TRANSIT,
    "TransitGatewayAttachmentId": _rare(
        "tgw-attach",
        "InvalidTransitGatewayAttachmentID.NotFound",
        "transitGatewayAttachment",
        "transit_gateway_attachments",
    ),
    "TransitGatewayRouteTableId": _rare(
        "tgw-rtb", "InvalidRouteTableID.NotFound", "routeTable", "transit_gateways_route_tables"
    ),
    "NatGatewayId": _rare("nat", "NatGatewayNotFound", "natGateway", "nat_gateways"),
    "PrefixListId": _rare("pl", "InvalidPrefixListID.NotFound", "prefixList", "managed_prefix_lists"),
    "HostId": _rare("h", "InvalidHostID.NotFound", "host", "hosts"),
    "FleetId": _rare("fleet", "InvalidFleetId.NotFound", "fleet", "fleets"),
    "SpotFleetRequestId": _rare(
        "sfr", "InvalidSpotFleetRequestId.NotFound", "spotFleetRequest", "spot_fleet_requests"
    ),
    "TrafficMirrorSessionId": _rare(
        "tms", _MIRRORS.format("Session"), "trafficMirrorSession", "traffic_mirror_sessions"
    ),
    "TrafficMirrorFilterId": _rare(
        "tmf", _MIRRORS.format("Filter"), "trafficMirrorFilter", "traffic_mirror_filters"
    ),
    "TrafficMirrorTargetId": _rare(
        "tmt", _MIRRORS.format("Target"), "trafficMirrorTarget", "traffic_mirror_targets"
    ),
}
# Lists whose name is not the plural of the above, or whose entries can be of any kind.
_LISTS: Mapping[str, Kind] = {"Groups": GROUP}
_BY_PREFIX: Mapping[str, Kind] = {kind.prefix: kind for kind in _BY_NAME.values()}
# A resource of another region, of AWS or of another account, which is not to be found here.
_ELSEWHERE = {"CopyImage", "CopySnapshot", "RegisterImage", "AcceptVpcPeeringConnection"}
_ELSEWHERE |= {"CreateVpcPeeringConnection", "CreateNetworkInterfacePermission"}
# Filters that match nothing are no errors, and a template's data is checked when it is used.
_UNCHECKED = {"Filters", "LaunchTemplateData"}
# The id of a group that is not a security group.
_OTHER_GROUPS = {"DescribePlacementGroups", "DescribeCapacityReservations"}


def check(operation: str, tree: Tree, backend: Any) -> None:
    """Raise EC2ClientError for the first kind of ids in a call that has malformed or unknown ones."""
    if operation in _ELSEWHERE:
        return
    for kind, values in _named(tree):
        if not (kind is GROUP and operation in _OTHER_GROUPS):
            kind.check(backend, values)


def _named(tree: Tree) -> Iterator[tuple[Kind, list[str]]]:
    for name, value in tree.items():
        if name in _UNCHECKED:
            continue
        kind = _BY_NAME.get(name)
        if isinstance(value, str):
            if kind:
                yield kind, [value]
        elif isinstance(value, dict):
            yield from _named(value)
        else:
            yield from _listed(name, value)


def _listed(name: str, values: list[Any]) -> Iterator[tuple[Kind, list[str]]]:
    texts = [value for value in values if isinstance(value, str)]
    kind = _BY_NAME.get(name.removesuffix("s")) or _LISTS.get(name)
    if name == "Resources":  # of CreateTags and DeleteTags
        for value in texts:
            if one := _BY_PREFIX.get(value.partition("-")[0]):
                yield one, [value]
            elif not re.fullmatch(r"[a-z-]+-[0-9a-f]{8,17}", value):
                raise EC2ClientError("InvalidID", f"The ID '{value[:200]}' is not valid")
    elif kind and texts:
        values[:] = dict.fromkeys(texts)  # EC2 takes an id twice for one; moto fails on it
        yield kind, texts
    for value in values:
        if isinstance(value, dict):
            yield from _named(value)
