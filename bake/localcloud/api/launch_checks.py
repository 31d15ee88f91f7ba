"""What EC2 refuses of a launch before it begins: RunInstances' parameters against each other and the account.

The codes are those of https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html, and the
messages EC2's where they are known.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES
from moto.iam.models import iam_backends

from bake.localcloud.api import image_marks, launch_tags, volume_limits
from bake.localcloud.api.parameters import Tree, invalid

_ARCHITECTURE = (
    "The architecture '{}' of the specified instance type does not match the architecture '{}' of the "
    "specified AMI. Specify an instance type and an AMI that have matching architectures, and try again. "
    "You can use "
    "'describe-instance-types' or 'describe-images' to discover the architecture of the instance type or AMI."
)
_DEFAULT_TYPE = "m1.small"
_RESERVED = 4  # addresses at a subnet's start


def check(tree: Tree, backend: Any) -> int:
    """Raise EC2ClientError for a launch that EC2 refuses; return how many instances it launches.

    `tree` has its launch template's fields in it. Ids that are malformed or unknown are refused already.
    """
    if not tree.get("ImageId"):
        raise EC2ClientError("MissingParameter", "The request must contain the parameter ImageId")
    low, high = _counts(tree)
    image = image_of(tree["ImageId"], backend)
    kind = tree.get("InstanceType", _DEFAULT_TYPE)
    check_type(kind, image.architecture)
    image_marks.check_type(image, kind)
    _check_cards(tree)
    subnet = _subnet(tree, backend)
    _check_zone(tree, kind, subnet, backend)
    _check_groups(tree, subnet, backend)
    _check_key_pair(tree, backend)
    check_profile(tree.get("IamInstanceProfile") or {}, backend)
    _check_volumes(tree, image)
    _check_cpus(tree, kind)
    _check_price(tree)
    launch_tags.check(tree)
    return _check_addresses(tree, subnet, backend, low, high)


def _counts(tree: Tree) -> tuple[int, int]:
    low, high = int(tree["MinCount"]), int(tree["MaxCount"])
    for name, count in (("minCount", low), ("maxCount", high)):
        if count < 1:
            raise invalid(str(count), name, "Expecting a positive integer.")
    if low > high:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Invalid value '{high}' for InstanceCount.MaxCount; it must be MinCount ({low}) at least",
        )
    return low, high


def image_of(identity: str, backend: Any) -> Any:
    """The AMI of a launch; EC2ClientError unless it can be launched."""
    image = backend.amis.get(identity)
    if image is None:
        raise EC2ClientError("InvalidAMIID.Unavailable", f"The image ID '{identity}' is no longer available")
    if image.state != "available":
        raise EC2ClientError(
            "InvalidAMIID.Unavailable", f"The image ID '{identity}' is not available: it is {image.state}"
        )
    return image


def check_type(kind: str, architecture: str) -> None:
    """Raise EC2ClientError unless there is such an instance type, with the architecture of an AMI."""
    if kind not in INSTANCE_TYPES:
        raise EC2ClientError("InvalidParameterValue", f"Invalid value '{kind[:200]}' for InstanceType.")
    has = INSTANCE_TYPES[kind]["ProcessorInfo"]["SupportedArchitectures"]
    if architecture not in has:
        raise EC2ClientError("InvalidParameterValue", _ARCHITECTURE.format(",".join(has), architecture))


def _check_cards(tree: Tree) -> None:
    """Raise EC2ClientError where network cards and the instance itself are told the same thing twice."""
    cards = tree.get("NetworkInterfaces")
    if not cards:
        return
    for name, words in (
        ("SubnetId", "an instance-level subnet ID"),
        ("SecurityGroupIds", "an instance-level security groups"),
        ("SecurityGroups", "an instance-level security groups"),
        ("PrivateIpAddress", "an instance-level private address"),
    ):
        if tree.get(name):
            raise EC2ClientError(
                "InvalidParameterCombination",
                f"Network interfaces and {words} may not be specified on the same request",
            )
    indexes = [card.get("DeviceIndex", "0") for card in cards]
    if "0" not in indexes or len(set(indexes)) < len(indexes):
        raise invalid(
            ",".join(indexes), "networkInterface.deviceIndex", "Each is given once, and 0 is one of them."
        )
    for card in cards:
        if card.get("NetworkInterfaceId") and (card.get("SubnetId") or card.get("Groups")):
            raise EC2ClientError(
                "InvalidParameterCombination",
                "A network interface that exists may not be given a subnet ID or security groups",
            )


def _card(tree: Tree) -> Tree:
    """The launch's first network card."""
    cards = tree.get("NetworkInterfaces") or [{}]
    first: Tree = next((card for card in cards if card.get("DeviceIndex", "0") == "0"), cards[0])
    return first


def _subnet(tree: Tree, backend: Any) -> Any:
    """The subnet of a launch; that of the local cloud where none is named."""
    card = _card(tree)
    if existing := card.get("NetworkInterfaceId"):
        interface = backend.get_network_interface(existing)
        if interface.instance is not None or interface.attachment_id:
            raise EC2ClientError("InvalidNetworkInterface.InUse", f"Interface: [{existing}] in use.")
        return interface.subnet
    identity = tree.get("SubnetId") or card.get("SubnetId") or backend.subnet_default
    return backend.get_subnet(identity) if identity else None


def _check_zone(tree: Tree, kind: str, subnet: Any, backend: Any) -> None:
    asked = (tree.get("Placement") or {}).get("AvailabilityZone")
    region = backend.region_name
    zones = {zone.name for zone in backend.describe_availability_zones()}
    if asked and asked not in zones:
        raise EC2ClientError("InvalidParameterValue", f"Invalid availability zone: [{asked[:60]}]")
    zone = subnet.availability_zone if subnet is not None else asked or f"{region}a"
    if asked and asked != zone:
        raise invalid(asked, "availabilityZone", f"The subnet {subnet.id} is in {zone}.")
    check_offered(kind, zone, region, by_zone=bool(asked))


def check_offered(kind: str, zone: str, region: str, *, by_zone: bool = False) -> None:
    """Raise EC2ClientError unless the zone has the instance type."""
    offered = {
        one["Location"]
        for one in INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, [])
        if one["InstanceType"] == kind
    }
    if not offered:
        raise EC2ClientError(
            "Unsupported",
            "The requested configuration is currently not supported. Please check the documentation for "
            "supported configurations.",
        )
    if zone not in offered:
        unsaid = "not specifying an Availability Zone or " if by_zone else ""
        raise EC2ClientError(
            "Unsupported",
            f"Your requested instance type ({kind}) is not supported in your requested Availability Zone "
            f"({zone}). Please retry your request by {unsaid}choosing {', '.join(sorted(offered))}.",
        )


def _check_groups(tree: Tree, subnet: Any, backend: Any) -> None:
    """The security groups must be of the subnet's VPC; those named by name, of the default VPC's."""
    if names := tree.get("SecurityGroups"):
        if tree.get("SubnetId"):
            raise EC2ClientError(
                "InvalidParameterCombination",
                "The parameter groupName cannot be used with the parameter subnet",
            )
        for name in names:
            if backend.get_security_group_by_name_or_id(name) is None:
                raise EC2ClientError("InvalidGroup.NotFound", f"The security group '{name}' does not exist")
    identities = [*tree.get("SecurityGroupIds", []), *_card(tree).get("Groups", [])]
    for identity in identities:
        group = backend.get_security_group_from_id(identity)
        if subnet is not None and group is not None and group.vpc_id != subnet.vpc_id:
            raise EC2ClientError(
                "InvalidParameter",
                f"Security group {identity} and subnet {subnet.id} belong to different networks.",
            )


def _check_key_pair(tree: Tree, backend: Any) -> None:
    name = tree.get("KeyName")
    if name is not None and name not in backend.key_pairs:
        raise EC2ClientError("InvalidKeyPair.NotFound", f"The key pair '{name[:255]}' does not exist")


def check_profile(named: Tree, backend: Any) -> None:
    """Raise EC2ClientError unless the instance profile is there and has a role."""
    name, arn = named.get("Name"), named.get("Arn")
    if name and arn:
        raise EC2ClientError(
            "InvalidParameterCombination",
            "The parameter 'iamInstanceProfile.name' may not be used in combination with "
            "'iamInstanceProfile.arn'",
        )
    if not name and not arn:
        return
    profiles = iam_backends[backend.account_id][backend.partition].get_instance_profiles()
    found = next((one for one in profiles if one.name == name or one.arn == arn), None)
    if found is None and name:
        raise invalid(name, "iamInstanceProfile.name", "Invalid IAM Instance Profile name")
    if found is None:
        raise invalid(str(arn), "iamInstanceProfile.arn", "Invalid IAM Instance Profile ARN")
    if not found.roles:
        raise invalid(
            found.name, "iamInstanceProfile", "The IAM Instance Profile has no associated IAM Roles"
        )


def _check_volumes(tree: Tree, image: Any) -> None:
    mappings = tree.get("BlockDeviceMappings", [])
    brought = {one["DeviceName"]: one.get("Ebs") for one in image.block_device_mappings}
    seen: set[str] = set()
    for mapping in mappings:
        device = mapping.get("DeviceName")
        if not device:
            raise EC2ClientError("MissingParameter", "The request must contain the parameter deviceName")
        if device in seen:
            raise EC2ClientError(
                "InvalidBlockDeviceMapping",
                f"The device '{device[:60]}' is used in more than one block-device mapping",
            )
        seen.add(device)
        if "Ebs" in mapping and ("NoDevice" in mapping or mapping.get("VirtualName")):
            raise EC2ClientError(
                "InvalidParameterCombination", f"The device '{device[:60]}' is a volume or something else"
            )
        if "Ebs" in mapping:
            _check_volume(mapping["Ebs"], brought.get(device) or {}, boot=device == image.root_device_name)


def _check_volume(asked: Tree, brought: Tree, *, boot: bool) -> None:
    """One EBS volume of a launch; `brought` is what the image maps to its device."""
    gib = asked.get("VolumeSize") or brought.get("VolumeSize")
    if gib is None and not asked.get("SnapshotId"):
        raise EC2ClientError("MissingParameter", "The request must contain the parameter size or snapshotId")
    if (
        asked.get("KmsKeyId")
        and asked.get("Encrypted", "").lower() != "true"
        and not brought.get("Encrypted")
    ):
        raise EC2ClientError(
            "InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set."
        )
    kind = asked.get("VolumeType") or brought.get("VolumeType") or "gp2"
    same = kind == brought.get("VolumeType")
    iops = asked.get("Iops") or (brought.get("Iops") if same else None)
    throughput = asked.get("Throughput") or (brought.get("Throughput") if same else None)
    volume_limits.check(kind, int(gib or 1), _int(iops), _int(throughput), boot=boot)


def _int(value: Any) -> int | None:
    return None if value is None else int(value)


def _check_cpus(tree: Tree, kind: str) -> None:
    options = tree.get("CpuOptions") or {}
    has = INSTANCE_TYPES[kind]["VCpuInfo"]
    for name, valid, default in (
        ("CoreCount", "ValidCores", "DefaultCores"),
        ("ThreadsPerCore", "ValidThreadsPerCore", "DefaultThreadsPerCore"),
    ):
        if name in options and int(options[name]) not in (has.get(valid) or [has.get(default)]):
            raise invalid(options[name], f"cpuOptions.{name}", f"It is not valid for the type {kind}.")


def _check_price(tree: Tree) -> None:
    """The price offered for a Spot Instance."""
    options = (tree.get("InstanceMarketOptions") or {}).get("SpotOptions") or {}
    price = options.get("MaxPrice")
    if price is not None and (not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", price) or not float(price)):
        raise invalid(price, "price", '"price" must be a positive number.')


def _check_addresses(tree: Tree, subnet: Any, backend: Any, low: int, high: int) -> int:
    """The private addresses that are asked for, and how many instances the subnet has addresses for."""
    asked = list(_addresses(tree))
    if asked and high > 1:
        raise EC2ClientError(
            "InvalidParameterCombination", "A private address can be given to one instance alone"
        )
    if subnet is None:
        return high
    taken = _taken(subnet, backend)
    for address in asked:
        _check_address(address, subnet, taken)
    free = subnet.cidr.num_addresses - _RESERVED - 1 - len(taken)
    if free < low:
        raise EC2ClientError(
            "InsufficientFreeAddressesInSubnet",
            f"There are not enough free addresses in subnet '{subnet.id}' to satisfy the requested number of "
            "instances.",
        )
    return min(high, int(free))


def _addresses(tree: Tree) -> Iterator[str]:
    if address := tree.get("PrivateIpAddress"):
        yield address
    for card in tree.get("NetworkInterfaces", []):
        if address := card.get("PrivateIpAddress"):
            yield address
        yield from (one["PrivateIpAddress"] for one in card.get("PrivateIpAddresses", []))


def _taken(subnet: Any, backend: Any) -> set[str]:
    """The addresses that instances and network cards have, and those that the local cloud keeps."""
    first = int(subnet.cidr.network_address)
    reserved = {str(ipaddress.IPv4Address(first + number)) for number in range(_RESERVED)}
    cards = {one.private_ip_address for one in list(backend.enis.values()) if one.subnet.id == subnet.id}
    return (set(subnet._subnet_ips) | cards) - reserved


def _check_address(address: str, subnet: Any, taken: set[str]) -> None:
    try:
        found = ipaddress.IPv4Address(address)
    except ValueError as error:
        raise invalid(address, "privateIpAddress", "Invalid IPv4 address.") from error
    if found not in subnet.cidr:
        raise EC2ClientError(
            "InvalidParameterValue", f"Address {address} does not fall within the subnet's address range"
        )
    place = int(found) - int(subnet.cidr.network_address)
    if place < _RESERVED or found == subnet.cidr.broadcast_address:
        raise EC2ClientError(
            "InvalidParameterValue", f"Address {address} is in subnet's reserved address range"
        )
    if address in taken:
        raise EC2ClientError("InvalidIPAddress.InUse", f"Address {address} is in use.")
