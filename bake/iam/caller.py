"""What whoever bakes a profile may do: statements, each only where the profile needs it.

Which actions take which resources and condition keys:
https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bake import hydration
from bake.creation import EXPIRES_TAG
from bake.iam import attesting, publishing, retention
from bake.iam.statement import Statement
from bake.iam.subject import OURS, Subject, place, within
from bake.image import STATE_TAG
from bake.report.places import REPORT_TAG, SHA256_TAG

# What is changed in the tags of something that is there: never whose it is.
MOVING = (EXPIRES_TAG, STATE_TAG, REPORT_TAG, SHA256_TAG, hydration.TAG)
TEMPORARY = "temporary"
_DESCRIBED = (
    *("Images", "Snapshots", "Instances", "InstanceTypes", "InstanceTypeOfferings", "Subnets"),
    *("SecurityGroups", "Volumes", "VolumeStatus", "FastSnapshotRestores", "KeyPairs", "Tags"),
    *("RouteTables", "VpcEndpoints"),
)
# What refers to an AMI, as EC2 knows it: asked before an unproven one goes.
_ALWAYS = ("ec2:DescribeImageReferences",)
# What `bake resume` looks through for what its run left; it says where it may not.
_LEFT = (
    *("ec2:DescribeNetworkInterfaces", "ec2:DescribeSpotInstanceRequests", "sqs:ListQueues"),
    *("events:ListEventBuses", "scheduler:ListScheduleGroups"),
)


def statements(subject: Subject) -> Iterator[Statement]:
    """All statements, in the order in which a bake needs them."""
    yield from _looking(subject)
    yield from _sources(subject)
    yield from _places(subject)
    yield from _launching(subject)
    yield _creating(subject)
    yield from _owning(subject)
    yield from _first_job(subject)
    yield from _reaping(subject)
    yield from attesting.statements(subject)
    yield from publishing.statements(subject)
    yield from retention.of_bake(subject, (*_LEFT, *_ALWAYS))


def _looking(subject: Subject) -> Iterator[Statement]:
    profile = subject.profile
    looks = [*(f"ec2:Describe{what}" for what in _DESCRIBED), *_LEFT, *_ALWAYS]
    looks += ["events:ListRules", "ec2:DescribeSpotPriceHistory"]
    if profile.image.share_with and profile.root_volume.kms_key is None:
        looks += ["ec2:GetEbsEncryptionByDefault", "ec2:GetEbsDefaultKmsKeyId"]
    yield Statement(
        "Look",
        "to plan, to follow what is created, and to find it for `bake resume`; there are no ARNs for these",
        tuple(looks),
        ("*",),
        within(subject.regions),
    )
    yield Statement(
        "LookAnywhere",
        "quotas and prices, and for `bake resume` the run's bucket; what may be missing",
        ("servicequotas:GetServiceQuota", "pricing:GetProducts", "s3:ListAllMyBuckets"),
        ("*",),
    )
    yield Statement(
        "LookAtRoles",
        "the plan looks whether the instance profile is there and has a role, and simulates the policies of "
        "that and of whoever bakes; the simulation may be missing",
        ("iam:GetInstanceProfile", "iam:GetRole", "iam:SimulatePrincipalPolicy"),
        (
            subject.arn("iam", f"instance-profile/{profile.builder.instance_profile}", region=None),
            subject.arn("iam", "role/*", region=None),
        ),
    )


def _sources(subject: Subject) -> Iterator[Statement]:
    """Where values of the profile come from."""
    if (name := subject.profile.base.ssm) is not None:
        public = name.startswith("/aws/service/")  # AWS's own parameters are in no account
        yield Statement(
            "ReadTheBasesId",
            "the parameter that holds the base AMI's id",
            ("ssm:GetParameter",),
            (subject.arn("ssm", f"parameter/{name.lstrip('/')}", account="" if public else None),),
            when="`base.ssm`",
        )
    if subject.secrets:
        yield Statement(
            "ReadTheProfilesSecrets",
            "values that the profile takes from Secrets Manager",
            ("secretsmanager:GetSecretValue",),
            # AWS adds a hyphen and six characters to a secret's name.
            subject.regional("secretsmanager", *(f"secret:{name}-??????" for name in subject.secrets)),
            when="`secretsmanager:…`",
        )


def _places(subject: Subject) -> Iterator[Statement]:
    """What the profile names in SQS, S3 and EventBridge."""
    profile = subject.profile
    kept = tuple(dict.fromkeys((profile.weights.mirror, profile.weights.stream)))
    urls = [url for url in (*kept, profile.reports) if url is not None]
    buckets = [*([profile.worker.bucket] if profile.worker.bucket else []), *(place(url)[0] for url in urls)]
    looks = {
        "sqs:GetQueueAttributes": [subject.queue] if subject.queue else [],
        "s3:ListBucket": [subject.bucket(name) for name in dict.fromkeys(buckets)],
        "events:DescribeEventBus": list(dict.fromkeys(bus for bus in (subject.bus, subject.notices) if bus)),
    }
    there = {action: arns for action, arns in looks.items() if arns}
    if there:
        yield Statement(
            "LookAtPlaces",
            "the plan looks whether queue, buckets and bus are there",
            tuple(there),
            tuple(arn for arns in there.values() for arn in arns),
            when="`worker.queue`, `worker.bucket`, `worker.bus`, `weights.mirror`, `weights.stream`, "
            "`reports`, `notices`",
        )
    if stores := [place(url) for url in kept if url is not None]:
        yield _mirrors(subject, stores)
    if profile.reports is not None:
        bucket, prefix = place(profile.reports)
        yield Statement(
            "KeepReports",
            "a run's report is stored, and read again by `bake report` and `bake images`",
            ("s3:PutObject", "s3:GetObject"),
            (subject.bucket(bucket, f"{prefix}*"),),
            when="`reports`",
        )
    if subject.notices is not None:
        yield Statement(
            "SendNotices",
            "a bus hears that an image was baked, or that a bake failed",
            ("events:PutEvents",),
            (subject.notices,),
            when="`notices`",
        )


def _mirrors(subject: Subject, stores: Sequence[tuple[str, str]]) -> Statement:
    objects = (subject.bucket(bucket, f"{prefix}*") for bucket, prefix in stores)
    return Statement(
        "UseTheMirror",
        "the builder reads and fills it by URLs that whoever bakes has signed; forgotten uploads are ended",
        ("s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListBucketMultipartUploads"),
        tuple(dict.fromkeys((*(subject.bucket(bucket) for bucket, _ in stores), *objects))),
        when="`weights.mirror`, `weights.stream`",
    )


def _launching(subject: Subject) -> Iterator[Statement]:
    builder, base = subject.profile.builder, subject.profile.base
    temporary, spot = builder.security_group == TEMPORARY, builder.market == "spot"
    given = [f"image/{base.ami or '*'}", f"subnet/{builder.subnet}"]
    given += [] if temporary else [f"security-group/{builder.security_group}"]
    # Its tags are checked as those of the rest, by ec2:CreateTags.
    given += ["spot-instances-request"] if spot else []
    given += ["vpc"] if temporary else []
    yield Statement(
        "LaunchFromWhatIsAgreed",
        "the base AMI, or any where the profile names no id, subnet, security group, or the VPC for one",
        ("ec2:RunInstances", *(["ec2:CreateSecurityGroup"] if temporary else [])),
        subject.ec2(*given),
    )
    yield Statement(
        "LaunchWithTags",
        "what a launch creates carries the run's tags",
        ("ec2:RunInstances",),
        subject.ec2("instance", "network-interface", "volume"),
        subject.new,
    )
    yield Statement(
        "PassTheWorkersRole",
        "instances get the worker's role, and no other service does",
        ("iam:PassRole",),
        (subject.role,),
        {"StringEquals": {"iam:PassedToService": subject.ec2_service}},
    )


def _creating(subject: Subject) -> Statement:
    """All that a run creates beside instances; nothing that it creates is without its tags."""
    actions = ["ec2:ImportKeyPair", "ec2:CreateImage", "sqs:CreateQueue", "s3:CreateBucket"]
    actions += ["events:CreateEventBus", "events:PutRule"]
    made = [*subject.ec2("key-pair", "image", "snapshot"), *_queues(subject), subject.bucket(OURS)]
    made += _buses(subject)
    if subject.profile.builder.security_group == TEMPORARY:
        actions.append("ec2:CreateSecurityGroup")
        made += subject.ec2("security-group")
    if subject.profile.builder.reaper_role is not None:
        actions.append("scheduler:CreateScheduleGroup")
        made += _schedule_groups(subject)
    return Statement(
        "CreateWithTags",
        "so does all else that a run creates; queues, bucket, bus and rule are the first job's",
        tuple(actions),
        tuple(made),
        subject.new,
    )


def _queues(subject: Subject) -> tuple[str, ...]:
    return subject.regional("sqs", OURS)


def _buses(subject: Subject) -> tuple[str, ...]:
    """The bus of a first job, and its rule."""
    return subject.regional("events", f"event-bus/{OURS}", f"rule/{OURS}")


def _schedule_groups(subject: Subject) -> tuple[str, ...]:
    return (subject.arn("scheduler", f"schedule-group/{OURS}"),)


def _owning(subject: Subject) -> Iterator[Statement]:
    """What a bake does with what it has created, and only with that."""
    builder = subject.profile.builder
    temporary, spot = builder.security_group == TEMPORARY, builder.market == "spot"
    creating = ["RunInstances", "ImportKeyPair", "CreateImage"]
    creating += ["CreateSecurityGroup"] if temporary else []
    yield Statement(
        "TagWhatIsCreated",
        "tags go with the call that creates",
        ("ec2:CreateTags",),
        subject.all_of_ec2,
        {**subject.new, "StringEquals": {"ec2:CreateAction": tuple(creating)}},
    )
    yield Statement(
        "MarkOurs",
        "the lease's end, an image's state and its report; never whose something is",
        ("ec2:CreateTags", "ec2:DeleteTags"),
        subject.all_of_ec2,
        {
            **subject.ours,
            "ForAllValues:StringEquals": {"aws:TagKeys": (*MOVING, *attesting.tags(subject))},
            "Null": {"aws:TagKeys": "false"},  # a call without keys would delete all tags
        },
    )
    images = ("DescribeImageAttribute", "ModifyImageAttribute", "DeregisterImage", "DeleteSnapshot")
    used = [
        "RunInstances",  # with the run's key pair and security group, and for the boot check from the new AMI
        *("GetConsoleOutput", "ModifyInstanceAttribute", "StartInstances", "StopInstances", "CreateImage"),
        *("TerminateInstances", "DeleteKeyPair", "DeleteVolume", "DeleteNetworkInterface", *images),
    ]
    used += ["CancelSpotInstanceRequests"] if spot else []
    used += ["AuthorizeSecurityGroupIngress", "DeleteSecurityGroup"] if temporary else []
    used += ["ModifySnapshotAttribute"] if subject.profile.image.share_with else []
    yield Statement(
        "UseAndRemoveOurs",
        "builders, images and what belongs to them: only what has the tags of a bake of this profile",
        tuple(f"ec2:{action}" for action in used),
        subject.all_of_ec2,
        subject.ours,
    )
    if subject.profile.root_volume.kms_key is not None:
        yield from _key(subject)


def _key(subject: Subject) -> Iterator[Statement]:
    key, when = subject.kms_key or subject.arn("kms", "key/*"), "`root_volume.kms_key`"
    yield Statement(
        "LookAtTheVolumesKey",
        "the plan looks whether the key is there and enabled",
        ("kms:DescribeKey",),
        (key,),
        when=when,
    )
    yield Statement(
        "UseTheVolumesKey",
        "EC2, and nobody else, encrypts and decrypts with it for whoever bakes",
        ("kms:GenerateDataKeyWithoutPlaintext", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo"),
        (key,),
        {"StringEquals": {"kms:ViaService": f"ec2.{subject.region}.amazonaws.com"}},
        when,
    )
    yield Statement(
        "LendTheVolumesKey",
        "EC2 holds the key for as long as a volume is attached; nobody else is lent it",
        ("kms:CreateGrant",),
        (key,),
        {"Bool": {"kms:GrantIsForAWSResource": "true"}},
        when,
    )


def _first_job(subject: Subject) -> Iterator[Statement]:
    """The boot check's queues, bucket, bus and rule."""
    queues = (
        *("TagQueue", "ListQueueTags", "GetQueueUrl", "GetQueueAttributes", "SetQueueAttributes"),
        *("SendMessage", "ReceiveMessage", "DeleteMessage", "DeleteQueue"),
    )
    bucket = (
        *("TagResource", "GetBucketTagging", "PutBucketTagging", "ListBucket", "GetObject"),
        *("DeleteObject", "DeleteBucket"),
    )
    bus = (
        *("TagResource", "ListTagsForResource", "DescribeEventBus", "PutTargets", "RemoveTargets"),
        *("DeleteRule", "DeleteEventBus"),
    )
    yield Statement(
        "FirstJob",
        "the worker takes a job from a queue, stores an image, and announces it to another queue",
        (
            *(f"sqs:{action}" for action in queues),
            *(f"s3:{action}" for action in bucket),
            *(f"events:{action}" for action in bus),
        ),
        (*_queues(subject), subject.bucket(OURS), subject.bucket(OURS, "*"), *_buses(subject)),
    )


def _reaping(subject: Subject) -> Iterator[Statement]:
    role = subject.profile.builder.reaper_role
    if role is None:
        return
    groups = ("TagResource", "GetScheduleGroup", "ListTagsForResource", "DeleteScheduleGroup")
    schedules = ("CreateSchedule", "UpdateSchedule", "DeleteSchedule")
    yield Statement(
        "Schedules",
        "what ends an instance that hangs, in a group that has the run's tags and goes with the run",
        tuple(f"scheduler:{action}" for action in (*groups, *schedules)),
        (*_schedule_groups(subject), subject.arn("scheduler", f"schedule/{OURS}")),
        when="`builder.reaper`",
    )
    yield Statement(
        "PassTheReapersRole",
        "EventBridge Scheduler gets the reaper's role, and no other service does",
        ("iam:PassRole",),
        (role,),
        {"StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}},
        "`builder.reaper`",
    )
