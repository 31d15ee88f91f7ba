"""Eventual consistency: what was created a moment ago can be reported as not found for a while, as on AWS.

https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
"""

from __future__ import annotations

import fnmatch
import re
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from bake.localcloud.api.faults.calls import Call
from bake.localcloud.api.faults.errors import AwsError

_ID = re.compile(r"(?<![\w-])([a-z]+)-[0-9a-f]{8,17}(?![\w-])")
_CREATING = re.compile(r"(Run|Create|Import|Register|Copy|Request|Allocate)[A-Z]")
# EC2's codes by the prefix of the id. Other ids are never reported as not found.
_IDS = {
    "ami": ("InvalidAMIID.NotFound", "The image id '{}' does not exist"),
    "eni": ("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '{}' does not exist"),
    "i": ("InvalidInstanceID.NotFound", "The instance ID '{}' does not exist"),
    "key": ("InvalidKeyPair.NotFound", "The key pair ID '{}' does not exist"),
    "lt": ("InvalidLaunchTemplateId.NotFound", "The launch template ID '{}' does not exist"),
    "sg": ("InvalidGroup.NotFound", "The security group '{}' does not exist"),
    "sir": ("InvalidSpotInstanceRequestID.NotFound", "The spot instance request ID '{}' does not exist"),
    "snap": ("InvalidSnapshot.NotFound", "The snapshot '{}' does not exist."),
    "subnet": ("InvalidSubnetID.NotFound", "The subnet ID '{}' does not exist"),
    "vol": ("InvalidVolume.NotFound", "The volume '{}' does not exist."),
    "vpc": ("InvalidVpcID.NotFound", "The vpc ID '{}' does not exist"),
}
# RunInstances answers with ids of everything that an instance uses, and creates only these kinds.
_MADE = {"RunInstances": {"i", "sir"}, "CreateLaunchTemplateVersion": set[str]()}
# Created along with another resource; a later answer about that resource is the first to contain their ids.
_BESIDE = {"snap", "vol"}


@dataclass(frozen=True)
class _Named:
    """A resource with a name that its creator chooses: `parameter` of the operation `created`.

    Later calls name it in one of `by`: patterns of operation and parameter, separated by a space. A URL or an
    ARN names it by its last part.
    """

    created: str
    parameter: str
    by: tuple[str, ...]
    code: str
    message: str
    status: int = 400


_KEY = "InvalidKeyPair.NotFound", "The key pair '{}' does not exist"
_GROUP = "InvalidGroup.NotFound", "The security group '{}' does not exist"
_TEMPLATE = (
    "InvalidLaunchTemplateName.NotFoundException",
    "At least one of the launch templates specified in the request does not exist.",
)
_QUEUE = "AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist."
_BUCKET = "NoSuchBucket", "The specified bucket does not exist", 404
_BUS = "ResourceNotFoundException", "Event bus {} does not exist."
_RULE = "ResourceNotFoundException", "Rule {} does not exist."
_SCHEDULES = "ResourceNotFoundException", "Schedule group {} does not exist.", 404
_ROLE = "NoSuchEntity", "The role with name {} cannot be found.", 404
_PROFILE = "NoSuchEntity", "Instance Profile {} cannot be found.", 404
# RunInstances reports a profile that it does not see yet as an invalid parameter.
_PROFILE_NAME = (
    "InvalidParameterValue",
    "Value ({}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name",
)
_SECRET = "ResourceNotFoundException", "Secrets Manager can't find the specified secret."
_BY_BUS = "events:*EventBus Name", "events:* EventBusName", "events:* Entries.*.EventBusName"
_BY_GROUP = "scheduler:* GroupName", "scheduler:* groupName", "scheduler:*ScheduleGroup Name"
_BY_PROFILE = "ec2:* IamInstanceProfile.Name", "ec2:* IamInstanceProfile.Arn"
_NAMED = (
    _Named("ec2:CreateKeyPair", "KeyName", ("ec2:* KeyName*",), *_KEY),
    _Named("ec2:ImportKeyPair", "KeyName", ("ec2:* KeyName*",), *_KEY),
    _Named("ec2:CreateSecurityGroup", "GroupName", ("ec2:* GroupName*", "ec2:* SecurityGroup.*"), *_GROUP),
    _Named("ec2:CreateLaunchTemplate", "LaunchTemplateName", ("ec2:* *LaunchTemplateName*",), *_TEMPLATE),
    _Named("sqs:CreateQueue", "QueueName", ("sqs:* QueueName", "sqs:* QueueUrl"), *_QUEUE),
    _Named("s3:CreateBucket", "Bucket", ("s3:* Bucket",), *_BUCKET),
    _Named("events:CreateEventBus", "Name", _BY_BUS, *_BUS),
    _Named("events:PutRule", "Name", ("events:* Rule", "events:*Rule Name"), *_RULE),
    _Named("scheduler:CreateScheduleGroup", "Name", _BY_GROUP, *_SCHEDULES),
    _Named("iam:CreateRole", "RoleName", ("iam:* RoleName",), *_ROLE),
    _Named("iam:CreateInstanceProfile", "InstanceProfileName", ("iam:* InstanceProfileName",), *_PROFILE),
    _Named("iam:CreateInstanceProfile", "InstanceProfileName", _BY_PROFILE, *_PROFILE_NAME),
    _Named("secretsmanager:CreateSecret", "Name", ("secretsmanager:* SecretId",), *_SECRET),
)


class EventualConsistency:
    """What was created while somebody was watching, and when. Thread-safe.

    A key is an id, or `service:Operation name` of what has a name; a kind is an id's prefix, or
    `service:Operation`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._created: dict[str, float] = {}

    def clear(self) -> None:
        """Forget everything that was created."""
        with self._lock:
            self._created.clear()

    def forget(self, key: str) -> None:
        """Forget what was deleted."""
        with self._lock:
            self._created.pop(key, None)

    def learn(self, call: Call, answer: str) -> list[tuple[str, str]]:
        """Remember what a successful call created; return the keys that are new, and their kinds."""
        now = time.monotonic()
        with self._lock:
            made = [(identity, identity.partition("-")[0]) for identity in self._made(call, answer)]
            for named in _NAMED:
                if named.created == f"{call.service}:{call.action}" and named.parameter in call.parameters:
                    made.append((f"{named.created} {call.parameters[named.parameter]}", named.created))
            new = [(key, kind) for key, kind in dict.fromkeys(made) if key not in self._created]
            self._created.update(dict.fromkeys((key for key, _ in new), now))
            return new

    def missing(self, call: Call, seconds: float) -> AwsError | None:
        """The error for a resource that the call names and that is younger than `seconds`, or None."""
        since = time.monotonic() - seconds
        for key, error in self.named(call):
            if self._created.get(key, since) > since:
                return error
        return None

    def named(self, call: Call, among: Collection[str] | None = None) -> list[tuple[str, AwsError]]:
        """The keys of the resources that a call names, `among` these, with the not-found error of each."""
        with self._lock:
            return list(self._named(call, self._created if among is None else among))

    def _made(self, call: Call, answer: str) -> Iterator[str]:
        """The ids that this answer is the first to contain."""
        if call.service != "ec2":
            return
        asked = set(call.parameters.values())
        kinds = _MADE.get(call.action, set(_IDS))
        if not _CREATING.match(call.action):
            kinds = _BESIDE if any(one in self._created for one in asked) else set()
        if not kinds:
            return
        for match in _ID.finditer(answer):
            if match[1] in kinds and match[0] not in asked:
                yield match[0]

    def _named(self, call: Call, among: Collection[str]) -> Iterator[tuple[str, AwsError]]:
        for parameter, value in call.parameters.items():
            # A filter that matches nothing is no error: its answer is empty.
            if call.service == "ec2" and value in among and not parameter.startswith("Filter."):
                code, message = _IDS[value.partition("-")[0]]
                yield value, AwsError(code, message.format(_listed(value)))
        for key in among:
            created, _, name = key.partition(" ")
            for named in _NAMED if name else ():
                if named.created == created and _names(call, named, name):
                    yield key, AwsError(named.code, named.message.format(name), named.status)


def _names(call: Call, named: _Named, name: str) -> bool:
    """Whether a call names the resource and is not the call that creates it."""
    operation = f"{call.service}:{call.action}"
    return operation != named.created and any(
        fnmatch.fnmatchcase(f"{operation} {parameter}", pattern)
        for pattern in named.by
        for parameter, value in call.parameters.items()
        if name in (value, value.rpartition("/")[2])
    )


def _listed(identity: str) -> str:
    """EC2 puts the ids of images in brackets."""
    return f"[{identity}]" if identity.startswith("ami-") else identity
