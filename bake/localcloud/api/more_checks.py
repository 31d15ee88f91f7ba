"""What EC2 refuses of single operations, where moto fails or takes anything."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from moto.ec2.exceptions import EC2ClientError

from bake.localcloud.api import launch_checks, launch_tags, launch_templates, launched
from bake.localcloud.api.parameters import Tree, invalid, model_of

_MOST = 1000
# Documented as names; clients use others of the tags' forms as well.
_TAGS = re.compile(r"tag:.+|tag-key|tag-value")


def check(operation: str, tree: Tree, backend: Any) -> None:
    """Raise EC2ClientError for what EC2 refuses of this operation; its ids are known to be there."""
    _check_filters(operation, tree)
    _check_counts(tree)
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


def _check_counts(tree: Tree) -> None:
    """No call makes thousands of anything: moto would."""
    for name, value in tree.items():
        counts = isinstance(value, str) and name.endswith(("Count", "Quantity", "Capacity"))
        if counts and name not in {"MinCount", "MaxCount"} and not 0 <= int(value or 0) <= _MOST:
            raise invalid(value, name, f"At most {_MOST} are made at once.")
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                _check_counts(inner)


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
    "CreateLaunchTemplateVersion": _template,
    "CreateSubnet": _one_of("CidrBlock"),
    "CreateTags": _created_tags,
    "CreateVpcPeeringConnection": _peer,
    "DeleteLaunchTemplate": _template,
    "DescribeLaunchTemplateVersions": _versions,
    "DisassociateAddress": _one_of("AssociationId", "PublicIp"),
    "ModifyEbsDefaultKmsKeyId": _default_key,
    "ModifyLaunchTemplate": _template,
    "ReleaseAddress": _one_of("AllocationId", "PublicIp"),
    "ReplaceIamInstanceProfileAssociation": _profile,
    "RequestSpotFleet": _legacy,
    "RequestSpotInstances": _legacy,
}
