"""What EC2 refuses of single operations, where moto fails or takes anything."""

from __future__ import annotations

import html
import ipaddress
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from moto.ec2.exceptions import EC2ClientError

from bake.localcloud.api import initialization, launch_checks, launch_tags, launch_templates, launched
from bake.localcloud.api.parameters import Tree, invalid, model_of

_MOST, _COUNTS = 1000, ("Count", "Quantity", "Capacity", "Days")
# Documented as names; clients use others of the tags' forms as well.
_TAGS = re.compile(r"tag:.+|tag-key|tag-value")


def check(operation: str, tree: Tree, backend: Any) -> None:
    """Raise EC2ClientError for what EC2 refuses of this operation; its ids are known to be there."""
    _check_filters(operation, tree)
    _check_values(tree)
    specifications = tree.get("TagSpecifications", []) if operation != "RunInstances" else []
    for specification in specifications:
        launch_tags.check_tags(specification.get("Tags", []))
    if more := _MORE.get(operation):
        more(tree, backend)


def _check_filters(operation: str, tree: Tree) -> None:
    """EC2 has the filters that the documentation of an operation names, and no others."""
    given = tree.get("Filters")
    if not isinstance(given, list):
        return
    has: frozenset[str] = _filters(operation)
    for one in given:
        name = one.get("Name") if isinstance(one, dict) else None
        if not name:
            raise EC2ClientError("InvalidParameterValue", "The filter 'null' is invalid")
        if has and name not in has and not _TAGS.fullmatch(name):
            raise EC2ClientError("InvalidParameterValue", f"The filter '{name[:200]}' is invalid")


def _check_values(tree: Tree) -> None:
    """No call makes thousands of anything, though moto would; and addresses are addresses."""
    for name, value in tree.items():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                _check_values(inner)
            elif name in {"PrivateIpAddress", "PrivateIpAddresses"}:
                _check_address(inner)
            elif name.endswith(_COUNTS) and name not in {"MinCount", "MaxCount"}:
                _check_count(name, inner)


def _check_count(name: str, value: str) -> None:
    if re.fullmatch(r"[+-]?[0-9]+", value) and not 0 <= int(value) <= _MOST:
        raise invalid(value, name, f"At most {_MOST} are made at once.")


def _check_address(value: str) -> None:
    try:
        ipaddress.IPv4Address(value)
    except ValueError as error:
        raise invalid(value, "privateIpAddress", "Invalid IPv4 address.") from error


def _peer(tree: Tree, backend: Any) -> None:
    region = tree.get("PeerRegion")
    if region and region not in {one.name for one in backend.describe_regions()}:
        raise invalid(region, "peerRegion", "There is no such region.")


@cache
def _filters(operation: str) -> frozenset[str]:
    """The filters that botocore's documentation of an operation lists."""
    text = model_of(operation).members["Filters"].documentation
    names = re.findall(r"<li> *<p> *<code>([^<]+)</code>", text)
    return frozenset(html.unescape(name) for name in names) - {"tag"}  # which stands for tag:KEY


def _profile(tree: Tree, backend: Any) -> None:
    launch_checks.check_profile(tree.get("IamInstanceProfile") or {}, backend)


def _template(tree: Tree, backend: Any) -> None:
    launch_templates.find(tree, backend)


def _versions(tree: Tree, backend: Any) -> None:
    if tree.get("LaunchTemplateId") or tree.get("LaunchTemplateName"):
        launch_templates.find(tree, backend)
    for name in ("MinVersion", "MaxVersion"):
        if name in tree and not re.fullmatch(r"[0-9]{1,9}", tree[name]):
            raise invalid(tree[name], name, "Expecting a version number.")
    versions: list[str] = tree.get("Versions", [])
    for version in versions:
        if not re.fullmatch(r"[0-9]{1,9}|\$Latest|\$Default", version):
            raise invalid(version, "launchTemplateVersion", "Expecting a number, $Latest or $Default.")


def _one_of(*names: str) -> Callable[[Tree, Any], None]:
    """A check that one of several parameters is there."""

    def check_one(tree: Tree, backend: Any) -> None:
        if not any(tree.get(name) for name in names):
            raise EC2ClientError(
                "MissingParameter", f"The request must contain the parameter {' or '.join(names)}"
            )

    return check_one


def _hosts(tree: Tree, backend: Any) -> None:
    _one_of("AvailabilityZone", "AvailabilityZoneId")(tree, backend)
    _one_of("InstanceType", "InstanceFamily")(tree, backend)
    _one_of("Quantity", "AssetIds")(tree, backend)


def _default_key(tree: Tree, backend: Any) -> None:
    if launched.unusable_key(backend, tree["KmsKeyId"]):
        raise invalid(tree["KmsKeyId"], "KmsKeyId", "There is no such key, or it can't be used.")


def _mapped(tree: Tree, backend: Any) -> None:
    has = backend.get_instance(tree["InstanceId"]).block_device_mapping
    for mapping in tree.get("BlockDeviceMappings", []):
        if mapping.get("DeviceName") not in has:
            device = mapping.get("DeviceName")
            raise EC2ClientError(
                "InvalidInstanceAttributeValue", f"No device is currently mapped at {device}"
            )


def _rules(tree: Tree, backend: Any) -> None:
    for one in tree["SecurityGroupRules"]:
        _one_of("SecurityGroupRule")(one, backend)


def _acl_entry(tree: Tree, backend: Any) -> None:
    asked = int(tree["RuleNumber"]), tree["Egress"].lower() == "true"
    has = backend.network_acls[tree["NetworkAclId"]].network_acl_entries
    if asked not in {(int(one.rule_number), str(one.egress).lower() == "true") for one in has}:
        raise EC2ClientError(
            "InvalidNetworkAclEntry.NotFound", f"The network ACL has no rule {tree['RuleNumber'][:10]}"
        )


def _acl_association(tree: Tree, backend: Any) -> None:
    asked = tree["AssociationId"]
    if not any(asked in acl.associations for acl in list(backend.network_acls.values())):
        raise EC2ClientError(
            "InvalidAssociationID.NotFound", f"The association ID '{asked[:60]}' does not exist"
        )


def _group(tree: Tree, backend: Any) -> None:
    if tree.get("GroupId") and tree.get("GroupName"):
        raise EC2ClientError(
            "InvalidParameterCombination", "A security group is named by its ID or its name, not by both"
        )
    name, default = tree.get("GroupName"), backend.groups.get(backend.default_vpc.id, {})
    if name and name not in {one.name for one in list(default.values())}:  # names are the default VPC's
        raise EC2ClientError("InvalidGroup.NotFound", f"The security group '{name[:255]}' does not exist")


def _created_tags(tree: Tree, backend: Any) -> None:
    launch_tags.check_tags(tree.get("Tags", []))


def _legacy(tree: Tree, backend: Any) -> None:
    raise EC2ClientError(
        "UnsupportedOperation",
        "Not in the local cloud: AWS keeps this operation for old clients alone. Launch Spot Instances by "
        "RunInstances with InstanceMarketOptions.",
    )


_MORE: Mapping[str, Callable[[Tree, Any], None]] = {
    "AllocateHosts": _hosts,
    "AssociateIamInstanceProfile": _profile,
    "AssociateVpcCidrBlock": _one_of("CidrBlock", "AmazonProvidedIpv6CidrBlock"),
    "CreateImage": initialization.refuse,
    "CreateLaunchTemplateVersion": _template,
    "CreateSubnet": _one_of("CidrBlock"),
    "CreateTags": _created_tags,
    "CreateVpcPeeringConnection": _peer,
    "DeleteLaunchTemplate": _template,
    "DeleteNetworkAclEntry": _acl_entry,
    "DeleteSecurityGroup": _group,
    "DescribeLaunchTemplateVersions": _versions,
    "DisassociateAddress": _one_of("AssociationId", "PublicIp"),
    "ModifyEbsDefaultKmsKeyId": _default_key,
    "ModifyInstanceAttribute": _mapped,
    "ModifyLaunchTemplate": _template,
    "ModifySecurityGroupRules": _rules,
    "RegisterImage": initialization.refuse,
    "ReleaseAddress": _one_of("AllocationId", "PublicIp"),
    "ReplaceIamInstanceProfileAssociation": _profile,
    "ReplaceNetworkAclAssociation": _acl_association,
    "RequestSpotFleet": _legacy,
    "RequestSpotInstances": _legacy,
}
