"""What EC2's operations need: by resource types and condition keys of the Service Authorization Reference.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from bake.localcloud.api.access.inventory import Inventory
from bake.localcloud.api.access.needs import Context, Need

Parameters = Mapping[str, str]

# Operations that look and have no resource types; the others that look are in the table.
_LOOKING: Final = re.compile(r"(Describe|Get|Search|List)\w+")
# Resources whose ARN names no account, since other accounts' can be used, too.
_SHARED: Final = {"image", "snapshot"}
_TYPES: Final[Mapping[str, str]] = {
    "ami": "image",
    "amiur": "image-usage-report",
    "eni": "network-interface",
    "i": "instance",
    "key": "key-pair",
    "lt": "launch-template",
    "sg": "security-group",
    "sgr": "security-group-rule",
    "sir": "spot-instances-request",
    "snap": "snapshot",
    "subnet": "subnet",
    "vol": "volume",
    "vpc": "vpc",
}
EBS_KMS: Final = ("Decrypt", "DescribeKey", "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo")
"""What EBS does with a key of the account's own, on behalf of whoever asks for a volume or a snapshot."""


@dataclass(frozen=True)
class Existing:
    """Resources that a call names: `parameter` is EC2's name of it, or of the list.

    A call that leaves it out needs the action on any resource of the type, unless it is `optional`.
    """

    kind: str
    parameter: str
    optional: bool = False


@dataclass(frozen=True)
class Created:
    """What a call will create, with the tags that it gives it. Evaluated only if tagged, or `always`."""

    kind: str
    always: bool = True


@dataclass(frozen=True)
class Call:
    """One call of EC2, and where its answers come from."""

    operation: str
    region: str
    parameters: Parameters
    inventory: Inventory

    def arn(self, kind: str, name: str) -> str:
        account = "" if kind in _SHARED else self.inventory.account
        return f"arn:aws:ec2:{self.region}:{account}:{kind}/{name}"

    def listed(self, parameter: str) -> list[str]:
        """The values of a parameter: `ImageId`, or `InstanceId.1` and the next ones."""
        pattern = re.compile(rf"{re.escape(parameter)}(\.\d+)?".replace(r"\.N\.", r"\.\d+\."))
        return [value for name, value in self.parameters.items() if pattern.fullmatch(name)]

    def tags(self, kind: str) -> dict[str, str]:
        """The tags that the call gives to what it creates of a type."""
        found: dict[str, str] = {}
        for name, value in self.parameters.items():
            spec = re.fullmatch(r"(TagSpecifications?\.\d+\.)ResourceType", name)
            if spec and value == kind:
                found |= pairs(self.parameters, f"{spec[1]}Tag")
        return found

    def action(self, name: str = "") -> str:
        return f"ec2:{name or self.operation}"


def pairs(parameters: Parameters, prefix: str) -> dict[str, str]:
    """The tags below a prefix of EC2's flat parameters: `Tag.1.Key` and `Tag.1.Value`."""
    found = {}
    for name, key in parameters.items():
        if match := re.fullmatch(rf"({re.escape(prefix)}\.\d+\.)Key", name):
            found[key] = parameters.get(f"{match[1]}Value", "")
    return found


def requested(tags: Mapping[str, str], resource: Mapping[str, str] | None = None) -> Context:
    """The condition keys of tags: those that a call gives, and those that a resource has."""
    found: dict[str, tuple[str, ...]] = {f"aws:RequestTag/{key}": (value,) for key, value in tags.items()}
    if tags:
        found["aws:TagKeys"] = tuple(sorted(tags))
    for key, value in (resource or {}).items():
        found[f"aws:ResourceTag/{key}"] = found[f"ec2:ResourceTag/{key}"] = (value,)
    return found


_INSTANCES: Final = (Existing("instance", "InstanceId"),)
_IMAGE: Final = (Existing("image", "ImageId"),)
_SNAPSHOT: Final = (Existing("snapshot", "SnapshotId"),)
_GROUP: Final = (Existing("security-group", "GroupId"),)
_RULES: Final = (*_GROUP, Created("security-group-rule", always=False))
_VOLUME: Final = (Existing("volume", "VolumeId"),)
_TEMPLATE: Final = (Existing("launch-template", "LaunchTemplateId"),)

# By operation: the resources that its action is needed on. `RunInstances` and tags have functions below.
TABLE: Final[Mapping[str, tuple[Existing | Created, ...]]] = {
    "AttachImageWatermark": _IMAGE,
    "AttachVolume": (*_INSTANCES, *_VOLUME),
    "AuthorizeSecurityGroupEgress": _RULES,
    "AuthorizeSecurityGroupIngress": _RULES,
    "CancelSpotInstanceRequests": (Existing("spot-instances-request", "SpotInstanceRequestId"),),
    "CopyImage": (Created("image"), Created("snapshot")),
    "CopySnapshot": (Created("snapshot"),),
    "CreateImage": (*_INSTANCES, Created("image"), Created("snapshot")),
    "CreateImageUsageReport": (*_IMAGE, Created("image-usage-report")),
    "CreateKeyPair": (Created("key-pair"),),
    "CreateLaunchTemplate": (Created("launch-template"),),
    "CreateLaunchTemplateVersion": _TEMPLATE,
    "CreateSecurityGroup": (Created("security-group"), Existing("vpc", "VpcId")),
    "CreateSnapshot": (Created("snapshot"), *_VOLUME),
    "CreateVolume": (Created("volume"), Existing("snapshot", "SnapshotId", optional=True)),
    "DeleteImageUsageReport": (Existing("image-usage-report", "ReportId"),),
    "DeleteKeyPair": (Existing("key-pair", "KeyName"),),
    "DeleteLaunchTemplate": _TEMPLATE,
    "DeleteLaunchTemplateVersions": _TEMPLATE,
    "DeleteNetworkInterface": (Existing("network-interface", "NetworkInterfaceId"),),
    "DeleteSecurityGroup": _GROUP,
    "DeleteSnapshot": _SNAPSHOT,
    "DeleteVolume": _VOLUME,
    "DeregisterImage": _IMAGE,
    "DescribeImageAttribute": _IMAGE,
    "DescribeInstanceAttribute": _INSTANCES,
    "DescribeSnapshotAttribute": _SNAPSHOT,
    "DetachImageWatermark": _IMAGE,
    "DetachVolume": (*_VOLUME, Existing("instance", "InstanceId", optional=True)),
    "DisableImage": _IMAGE,
    "DisableImageDeprecation": _IMAGE,
    "DisableImageDeregistrationProtection": _IMAGE,
    "EnableImage": _IMAGE,
    "EnableImageDeprecation": _IMAGE,
    "EnableImageDeregistrationProtection": _IMAGE,
    "GetConsoleOutput": _INSTANCES,
    "GetImageAncestry": _IMAGE,
    "ImportKeyPair": (Created("key-pair"),),
    "ModifyImageAttribute": _IMAGE,
    "ModifyInstanceAttribute": _INSTANCES,
    "ModifyInstanceMetadataOptions": _INSTANCES,
    "ModifyLaunchTemplate": _TEMPLATE,
    "ModifySnapshotAttribute": _SNAPSHOT,
    "ModifyVolume": _VOLUME,
    "MonitorInstances": _INSTANCES,
    "RebootInstances": _INSTANCES,
    "RegisterImage": (Created("image"), Existing("snapshot", "BlockDeviceMapping.N.Ebs.SnapshotId")),
    "ReplaceImageInstanceTypeSpecification": _IMAGE,
    "ResetImageAttribute": _IMAGE,
    "RevokeSecurityGroupEgress": _GROUP,
    "RevokeSecurityGroupIngress": _GROUP,
    "StartInstances": _INSTANCES,
    "StopInstances": _INSTANCES,
    "TerminateInstances": _INSTANCES,
}
# Other names of the resources that operations take instead: the parameter, and the type in whose place it is.
_OTHERWISE: Final[Mapping[str, str]] = {
    "KeyName": "KeyPairId",
    "GroupId": "GroupName",
    "LaunchTemplateId": "LaunchTemplateName",
}


def needs_of(operation: str, region: str, parameters: Parameters, inventory: Inventory) -> list[Need] | None:
    """What a call of EC2 needs; None for an operation that is not in the table."""
    call = Call(operation, region, parameters, inventory)
    if operation == "RunInstances":
        found = [*_by_template(call, _launch(call)), *_tagging(call)]
    elif operation in {"CreateTags", "DeleteTags"}:
        found = list(_tags(call))
    elif operation in TABLE:
        found = [need for part in TABLE[operation] for need in _part(call, part)]
        found += _tagging(call)
    elif operation == "DescribeImageReferences":
        found = [Need(call.action(), "*"), *_referring(call)]
    elif _LOOKING.fullmatch(operation):
        found = [Need(call.action(), "*")]
    else:
        return None
    return found + [need for key in _keys(call) for need in _of_key(key)]


def _part(call: Call, part: Existing | Created) -> Iterator[Need]:
    if isinstance(part, Created):
        tags = call.tags(part.kind)
        if tags or part.always:
            yield Need(call.action(), call.arn(part.kind, "*"), requested(tags))
        return
    names = call.listed(part.parameter) or call.listed(_OTHERWISE.get(part.parameter, part.parameter))
    if names or not part.optional:
        yield from (_existing(call, part.kind, name) for name in names or ["*"])


def _existing(
    call: Call, kind: str, name: str, action: str = "", tags: Mapping[str, str] | None = None
) -> Need:
    known = call.inventory.ec2_name(call.region, kind, name)
    context = requested(tags or {}, call.inventory.ec2_tags(call.region, kind, name))
    return Need(call.action(action), call.arn(kind, known), context)


def _tagging(call: Call) -> Iterator[Need]:
    """ec2:CreateTags for each type of resource that a call tags while it creates it."""
    for kind in dict.fromkeys(call.listed("TagSpecification.N.ResourceType")):
        if tags := call.tags(kind):
            context = {**requested(tags), "ec2:CreateAction": (call.operation,)}
            yield Need(call.action("CreateTags"), call.arn(kind, "*"), context)


def _tags(call: Call) -> Iterator[Need]:
    """Tags of resources that there are: for DeleteTags a tag without a value counts, too."""
    tags = pairs(call.parameters, "Tag")
    for identity in call.listed("ResourceId"):
        kind = _TYPES.get(identity.partition("-")[0], "*")
        yield _existing(call, kind, identity, tags=tags)


def _referring(call: Call) -> Iterator[Need]:
    """What EC2 looks up for whoever asks what points at an image.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-ami-references.html
    """
    asked = set(call.listed("ResourceType.N.ResourceType"))
    every = call.parameters.get("IncludeAllResourceTypes", "").lower() == "true"
    for kind, operations in _REFERRING.items():
        if every or kind in asked:
            yield from (Need(call.action(operation), "*") for operation in operations)
    if every or "ssm:Parameter" in asked:
        yield Need("ssm:DescribeParameters", "*")
        arn = f"arn:aws:ssm:{call.region}:{call.inventory.account}:parameter/*"
        yield Need("ssm:GetParameters", arn)


_REFERRING: Final[Mapping[str, tuple[str, ...]]] = {
    "ec2:Instance": ("DescribeInstances",),
    "ec2:LaunchTemplate": ("DescribeLaunchTemplates", "DescribeLaunchTemplateVersions"),
}


def _launch(call: Call) -> Iterator[Need]:
    spot = call.parameters.get("InstanceMarketOptions.MarketType") == "spot"
    parts: list[Existing | Created] = [Created("instance"), Created("volume")]
    if not call.listed("NetworkInterface.N.NetworkInterfaceId"):
        parts.append(Created("network-interface"))
    parts += [Created("spot-instances-request", always=False)] if spot else []
    parts += [
        Existing("network-interface", "NetworkInterface.N.NetworkInterfaceId", optional=True),
        Existing("launch-template", "LaunchTemplate.LaunchTemplateId", optional=True),
        Existing("launch-template", "LaunchTemplate.LaunchTemplateName", optional=True),
        Existing("key-pair", "KeyName", optional=True),
        Existing("snapshot", "BlockDeviceMapping.N.Ebs.SnapshotId", optional=True),
    ]
    for part in parts:
        yield from _part(call, part)
    yield from _named(call, "image", ("ImageId",))
    yield from _named(call, "subnet", ("SubnetId", "NetworkInterface.N.SubnetId"))
    yield from _named(call, "security-group", _GROUPS)
    profiles = call.listed("IamInstanceProfile.Name") + call.listed("IamInstanceProfile.Arn")
    for role in filter(None, map(call.inventory.role_of_profile, profiles)):
        yield Need("iam:PassRole", role, {"iam:PassedToService": ("ec2.amazonaws.com",)})


def _by_template(call: Call, needs: Iterator[Need]) -> Iterator[Need]:
    """The same needs with the template that a launch goes by, for conditions on it."""
    names = [
        *call.listed("LaunchTemplate.LaunchTemplateId"),
        *call.listed("LaunchTemplate.LaunchTemplateName"),
    ]
    kind = "launch-template"
    by = tuple(call.arn(kind, call.inventory.ec2_name(call.region, kind, one)) for one in names[:1])
    for need in needs:
        told = by and need.action == "ec2:RunInstances"
        yield replace(need, context={**need.context, "ec2:LaunchTemplate": by}) if told else need


_GROUPS: Final = ("SecurityGroupId", "SecurityGroup", "NetworkInterface.N.SecurityGroupId")


def _named(call: Call, kind: str, parameters: tuple[str, ...]) -> Iterator[Need]:
    """What a launch uses, whichever parameter names it; any of the type where EC2 takes its default."""
    names = [name for parameter in parameters for name in call.listed(parameter)]
    for name in dict.fromkeys(names or ["*"]):
        yield _existing(call, kind, name)


def _keys(call: Call) -> list[str]:
    """The ARNs of the keys of the account's own with which a call encrypts, or decrypts, disks.

    aws/ebs is AWS's own key: whoever may use EBS may use it.
    """
    operation, listed, inventory = call.operation, call.listed, call.inventory
    if operation in {"RunInstances", "RegisterImage", "CreateVolume", "CopyImage", "CopySnapshot"}:
        named = [*listed("BlockDeviceMapping.N.Ebs.KmsKeyId"), *listed("KmsKeyId")]
        found = [inventory.own_key(call.region, name) for name in named]
        found += [inventory.disk_key(call.region, one) for one in (*listed("ImageId"), *listed("SnapshotId"))]
        source = call.parameters.get("SourceRegion") or call.region
        copied = (*listed("SourceImageId"), *listed("SourceSnapshotId"))
        found += [inventory.disk_key(source, one) for one in copied]
    elif operation in {"CreateImage", "StartInstances", "CreateSnapshot", "AttachVolume"}:
        found = [inventory.disk_key(call.region, one) for one in (*listed("InstanceId"), *listed("VolumeId"))]
    else:
        return []
    return list(dict.fromkeys(key for key in found if key))


def _of_key(key: str) -> Iterator[Need]:
    """What is needed on a key; EBS uses it in the key's region, from which a copy may be made into another.

    https://docs.aws.amazon.com/ebs/latest/userguide/ebs-encryption-requirements.html
    """
    via = {"kms:ViaService": (f"ec2.{key.split(':')[3]}.amazonaws.com",)}
    yield Need("kms:CreateGrant", key, {**via, "kms:GrantIsForAWSResource": ("true",)})
    for action in EBS_KMS:
        yield Need(f"kms:{action}", key, via)
