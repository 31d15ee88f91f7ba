"""Eventual consistency: what was created a moment ago can be reported as not found for a while, as on AWS.

https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
"""

from __future__ import annotations

import fnmatch
import re
import threading
import time
from collections.abc import Iterator
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
_MADE = {"RunInstances": {"i", "sir"}}
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
_QUEUE = "AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist."
_BUCKET = "NoSuchBucket", "The specified bucket does not exist", 404
_BUS = "ResourceNotFoundException", "Event bus {} does not exist."
_RULE = "ResourceNotFoundException", "Rule {} does not exist."
_ROLE = "NoSuchEntity", "The role with name {} cannot be found.", 404
_PROFILE = "NoSuchEntity", "Instance Profile {} cannot be found.", 404
# RunInstances reports a profile that it does not see yet as an invalid parameter.
_PROFILE_NAME = (
    "InvalidParameterValue",
    "Value ({}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name",
)
_SECRET = "ResourceNotFoundException", "Secrets Manager can't find the specified secret."
_BY_BUS = "events:*EventBus Name", "events:* EventBusName", "events:* Entries.*.EventBusName"
_BY_PROFILE = "ec2:* IamInstanceProfile.Name", "ec2:* IamInstanceProfile.Arn"
_NAMED = (
    _Named("ec2:CreateKeyPair", "KeyName", ("ec2:* KeyName*",), *_KEY),
    _Named("ec2:ImportKeyPair", "KeyName", ("ec2:* KeyName*",), *_KEY),
    _Named("ec2:CreateSecurityGroup", "GroupName", ("ec2:* GroupName*", "ec2:* SecurityGroup.*"), *_GROUP),
    _Named("sqs:CreateQueue", "QueueName", ("sqs:* QueueName", "sqs:* QueueUrl"), *_QUEUE),
    _Named("s3:CreateBucket", "Bucket", ("s3:* Bucket",), *_BUCKET),
    _Named("events:CreateEventBus", "Name", _BY_BUS, *_BUS),
    _Named("events:PutRule", "Name", ("events:* Rule", "events:*Rule Name"), *_RULE),
    _Named("iam:CreateRole", "RoleName", ("iam:* RoleName",), *_ROLE),
    _Named("iam:CreateInstanceProfile", "InstanceProfileName", ("iam:* InstanceProfileName",), *_PROFILE),
    _Named("iam:CreateInstanceProfile", "InstanceProfileName", _BY_PROFILE, *_PROFILE_NAME),
    _Named("secretsmanager:CreateSecret", "Name", ("secretsmanager:* SecretId",), *_SECRET),
)


class EventualConsistency:
    """What was created while faults were watching, and when. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: dict[str, float] = {}
        self._names: dict[tuple[_Named, str], float] = {}

    def clear(self) -> None:
        """Forget everything that was created."""
        with self._lock:
            self._ids.clear()
            self._names.clear()

    def learn(self, call: Call, answer: str) -> None:
        """Remember what a successful call created."""
        now = time.monotonic()
        with self._lock:
            for identity in self._made(call, answer):
                self._ids.setdefault(identity, now)
            for named in _NAMED:
                if named.created == f"{call.service}:{call.action}" and named.parameter in call.parameters:
                    self._names.setdefault((named, call.parameters[named.parameter]), now)

    def missing(self, call: Call, seconds: float) -> AwsError | None:
        """The error for a resource that the call names and that is younger than `seconds`, or None."""
        since = time.monotonic() - seconds
        with self._lock:
            for error, created in self._named(call):
                if created > since:
                    return error
        return None

    def _made(self, call: Call, answer: str) -> Iterator[str]:
        """The ids that this answer is the first to contain."""
        if call.service != "ec2":
            return
        asked = set(call.parameters.values())
        kinds = _MADE.get(call.action, set(_IDS))
        if not _CREATING.match(call.action):
            kinds = _BESIDE if asked & self._ids.keys() else set()
        for match in _ID.finditer(answer):
            if match[1] in kinds and match[0] not in asked:
                yield match[0]

    def _named(self, call: Call) -> Iterator[tuple[AwsError, float]]:
        """The resources that the call names: the not-found error of each, and when it was created."""
        for parameter, value in call.parameters.items():
            # A filter that matches nothing is no error: its answer is empty.
            if call.service == "ec2" and value in self._ids and not parameter.startswith("Filter."):
                code, message = _IDS[value.partition("-")[0]]
                yield AwsError(code, message.format(_listed(value))), self._ids[value]
        for (named, name), created in self._names.items():
            if _names(call, named, name):
                yield AwsError(named.code, named.message.format(name), named.status), created


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
