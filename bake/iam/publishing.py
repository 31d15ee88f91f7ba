"""What publishing needs beside the bake: each only where the profile's section `publish` asks for it."""

from __future__ import annotations

from collections.abc import Iterator

from bake.creation import EXPIRES_TAG
from bake.iam.statement import Statement
from bake.iam.subject import Subject, within
from bake.image import STATE_TAG

_USED_BY_EC2 = ("GenerateDataKeyWithoutPlaintext", "Decrypt", "ReEncryptFrom", "ReEncryptTo")


def statements(subject: Subject) -> Iterator[Statement]:
    """The statements, in the order in which publishing needs them."""
    asked = subject.profile.publish
    if asked.regions:
        yield from _copies(subject)
        yield from _keys(subject)
    yield from _marks(subject)
    if asked.parameter is not None:
        yield Statement(
            "PublishTheParameter",
            "the AMI's id goes to it, after a look at who wrote what it holds",
            tuple(
                f"ssm:{action}"
                for action in ("GetParameter", "GetParameterHistory", "PutParameter", "AddTagsToResource")
            ),
            tuple(
                subject.arn("ssm", f"parameter{asked.parameter}", region=region)
                for region in (subject.region, *asked.regions)
            ),
            when="`publish.parameter`",
        )
    if asked.launch_template is not None:
        yield from _template(subject, asked.launch_template)


def _copied(subject: Subject, *kinds: str) -> tuple[str, ...]:
    """The ARNs of images and snapshots in the regions of the copies."""
    regions = subject.profile.publish.regions
    return tuple(subject.arn("ec2", f"{kind}/*", region=one, account="") for one in regions for kind in kinds)


def _copies(subject: Subject) -> Iterator[Statement]:
    when, both = "`publish.regions`", ("image", "snapshot")
    shared = subject.profile.image.share_with
    looks = ["Regions", "Images", "Snapshots", "Instances"]
    asks = ["GetEbsEncryptionByDefault", "GetEbsDefaultKmsKeyId"] if shared else []
    yield Statement(
        "LookAtCopies",
        "the plan looks whether the regions are enabled; copies are followed, and found again by their tags",
        (*(f"ec2:Describe{what}" for what in looks), *(f"ec2:{action}" for action in asks)),
        ("*",),
        within((subject.region, *subject.profile.publish.regions)),
        when,
    )
    yield Statement(
        "CopyWithTags",
        "copies carry the tags of the bake that made the AMI",
        ("ec2:CopyImage",),
        _copied(subject, *both),
        subject.new,
        when,
    )
    yield Statement(
        "TagCopies",
        "tags go with the call that copies",
        ("ec2:CreateTags",),
        _copied(subject, *both),
        {**subject.new, "StringEquals": {"ec2:CreateAction": "CopyImage"}},
        when,
    )
    yield Statement(
        "MarkCopies",
        "a copy's state; never whose it is",
        ("ec2:CreateTags", "ec2:DeleteTags"),
        _copied(subject, *both),
        {
            **subject.ours,
            "ForAllValues:StringEquals": {"aws:TagKeys": (EXPIRES_TAG, STATE_TAG)},
            "Null": {"aws:TagKeys": "false"},
        },
        when,
    )
    used = ["ModifyImageAttribute", *(["ModifySnapshotAttribute"] if shared else [])]
    yield Statement(
        "UseAndRemoveCopies",
        "copies of this profile's AMIs need IMDSv2 and are shared, and go with the AMI",
        tuple(f"ec2:{action}" for action in (*used, "DeregisterImage", "DeleteSnapshot")),
        _copied(subject, *both),
        subject.ours,
        when,
    )


def _keys(subject: Subject) -> Iterator[Statement]:
    """The keys of the copies; a key that is named by an alias is any of its region."""
    asked = subject.profile.publish
    if not asked.keys:
        return
    found = {
        region: key if ":key/" in key else subject.arn("kms", "key/*", region=region)
        for region, key in asked.keys.items()
    }
    keys, when = tuple(found.values()), "`publish.kms_keys`"
    via = tuple(f"ec2.{region}.amazonaws.com" for region in found)
    yield Statement(
        "LookAtTheCopiesKeys",
        "the plan looks whether they are there and enabled",
        ("kms:DescribeKey",),
        keys,
        when=when,
    )
    yield Statement(
        "UseTheCopiesKeys",
        "EC2, and nobody else, encrypts copies with them for whoever bakes",
        tuple(f"kms:{action}" for action in _USED_BY_EC2),
        keys,
        {"StringEquals": {"kms:ViaService": via}},
        when,
    )
    yield Statement(
        "LendTheCopiesKeys",
        "EC2 holds a key while it copies; nobody else is lent it",
        ("kms:CreateGrant",),
        keys,
        {"Bool": {"kms:GrantIsForAWSResource": "true"}},
        when,
    )


def _marks(subject: Subject) -> Iterator[Statement]:
    """What an AMI says and enforces; on the AMI and on its copies."""
    asked = subject.profile.publish
    actions = ["EnableImageDeprecation"] if asked.deprecate_after is not None else []
    if asked.protect:
        actions += ["EnableImageDeregistrationProtection", "DisableImageDeregistrationProtection"]
    if asked.watermark is not None:
        actions += ["AttachImageWatermark", "DetachImageWatermark"]
    if asked.enforce_instance_types:
        actions += ["ReplaceImageInstanceTypeSpecification"]
    if actions:
        yield Statement(
            "MarkImages",
            "what AMIs of this profile say and enforce",
            tuple(f"ec2:{action}" for action in actions),
            (*subject.ec2("image"), *_copied(subject, "image")),
            subject.ours,
            "`publish.deprecate_after`, `protect`, `watermark`, `enforce_instance_types`",
        )


def _template(subject: Subject, template: str) -> Iterator[Statement]:
    when = "`publish.launch_template`"
    yield Statement(
        "LookAtTheTemplate",
        "its versions; there is no ARN for this",
        ("ec2:DescribeLaunchTemplateVersions",),
        ("*",),
        within(subject.image_regions),
        when,
    )
    yield Statement(
        "MakeTheTemplatesVersion",
        "a new version with the AMI's id; its default stays",
        ("ec2:CreateLaunchTemplateVersion",),
        subject.ec2(f"launch-template/{template}"),
        when=when,
    )
