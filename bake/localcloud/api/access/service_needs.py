"""What operations of the services other than EC2 and S3 need, by the Service Authorization Reference.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bake.localcloud.api.access.ec2_needs import pairs, requested
from bake.localcloud.api.access.inventory import Inventory
from bake.localcloud.api.access.needs import Need
from bake.localcloud.api.access.refusals import Refused


@dataclass(frozen=True)
class Call:
    """One call; `content` has its parameters, those in its path and query included."""

    service: str
    operation: str
    region: str
    content: Mapping[str, Any]
    path: str
    inventory: Inventory

    def arn(self, resource: str, service: str = "") -> str:
        """The ARN of a resource of the account in the call's region."""
        return f"arn:aws:{service or self.service}:{self.region}:{self.inventory.account}:{resource}"

    def need(self, resource: str, action: str = "", **tags: Mapping[str, str]) -> Need:
        """The action on a resource: `given` are the tags that the call gives, `has` those that are there."""
        context = requested(tags.get("given", {}), tags.get("has"))
        known = {key: value for key, value in context.items() if not key.startswith("ec2:")}
        return Need(f"{self.service}:{action or self.operation}", resource, known)

    def text(self, *names: str) -> str:
        """The first of these parameters that is a text; "" where there is none."""
        return next((one for name in names if isinstance(one := self.content.get(name), str)), "")

    def tags(self) -> dict[str, str]:
        """The tags that the call gives, in any form that services take them in."""
        for name in ("Tags", "tags"):
            if isinstance(given := self.content.get(name), Mapping):
                return {str(key): str(value) for key, value in given.items()}
            if isinstance(given, Sequence) and not isinstance(given, str):
                listed = [tag for tag in given if isinstance(tag, Mapping)]
                return {str(tag.get("Key")): str(tag.get("Value", "")) for tag in listed}
        flat = {name: str(value) for name, value in self.content.items()}
        return pairs(flat, "Tag") or pairs(flat, "Tags.member")


Needs = Iterator[Need]
Rule = Callable[[Call], Needs | None]


def needs_of(
    service: str,
    operation: str,
    region: str,
    content: Mapping[str, Any],
    path: str,
    inventory: Inventory,
) -> list[Need] | None:
    """What a call needs; None for an operation that nobody but the administrator may call."""
    rule = RULES.get(service)
    found = rule(Call(service, operation, region, content, path, inventory)) if rule else None
    return None if found is None else list(found)


# --- SQS -----------------------------------------------------------------------------------------


def _sqs(call: Call) -> Needs:
    action = call.operation.removesuffix("Batch")
    if action == "ListQueues":
        yield call.need("*")
        return
    tags = call.tags() if action in {"CreateQueue", "TagQueue"} else {}
    yield call.need(_queue(call), action, given=tags)
    if tags and action == "CreateQueue":
        yield call.need(_queue(call), "TagQueue", given=tags)


def _queue(call: Call) -> str:
    """The ARN of the queue that moto finds: by its name, the last part of its URL, or the request's path."""
    parameter = "QueueName" if call.operation in {"CreateQueue", "GetQueueUrl"} else "QueueUrl"
    named = call.content.get(parameter, call.path)
    if not isinstance(named, str):
        raise Refused("request", "a queue's name is a text")
    name = named.rpartition("/")[2]
    return call.arn(name) if name else "*"


# --- EventBridge ---------------------------------------------------------------------------------

_OF_BUSES: Final = {"CreateEventBus", "DeleteEventBus", "DescribeEventBus", "UpdateEventBus"}
_OF_RULES: Final = {"PutRule", "DeleteRule", "DescribeRule", "EnableRule", "DisableRule"}
_OF_TARGETS: Final = {"PutTargets", "RemoveTargets", "ListTargetsByRule"}
_OF_EVENTS: Final = {"ListRules", "ListEventBuses", "ListRuleNamesByTarget", "TestEventPattern"}
_OF_TAGS: Final = {"TagResource", "UntagResource", "ListTagsForResource"}


def _events(call: Call) -> Needs | None:
    if call.operation in _OF_EVENTS:
        return iter([call.need("*")])
    if call.operation == "PutEvents":
        entries = call.content.get("Entries")
        named = [one for one in entries if isinstance(one, Mapping)] if isinstance(entries, list) else []
        return iter([call.need(_bus(call, one.get("EventBusName"))) for one in named or [{}]])
    if call.operation in _OF_BUSES:
        return _tagged(call, _bus(call, call.content.get("Name")))
    if call.operation in _OF_RULES:
        return _tagged(call, _rule(call, "Name"))
    if call.operation in _OF_TARGETS:
        return iter([call.need(_rule(call, "Rule"))])
    if call.operation in _OF_TAGS:
        return iter([call.need(call.text("ResourceARN"), given=call.tags())])
    return None


def _tagged(call: Call, resource: str) -> Needs:
    """What creates with tags needs the right to tag, too."""
    tags = call.tags()
    yield call.need(resource, given=tags)
    if tags:
        yield call.need(resource, "TagResource", given=tags)


def _bus(call: Call, named: Any) -> str:
    """The ARN of the bus that moto finds: by the last part of what names it."""
    return call.arn(f"event-bus/{str(named or 'default').rpartition('/')[2]}")


def _rule(call: Call, parameter: str) -> str:
    bus = call.text("EventBusName").rpartition("/")[2]
    on = f"{bus}/" if bus not in {"", "default"} else ""
    return call.arn(f"rule/{on}{call.text(parameter)}")


# --- EventBridge Scheduler -----------------------------------------------------------------------


def _scheduler(call: Call) -> Needs | None:
    name = call.text("Name")
    if call.operation in {"ListSchedules", "ListScheduleGroups"}:
        return iter([call.need("*")])
    if call.operation == "CreateScheduleGroup":
        return _tagged(call, call.arn(f"schedule-group/{name}"))
    if call.operation in {"GetScheduleGroup", "DeleteScheduleGroup"}:
        has = call.inventory.group_tags(call.region, name)
        return iter([call.need(call.arn(f"schedule-group/{name}"), has=has)])
    if call.operation in _OF_TAGS:
        arn = call.text("ResourceArn")
        has = call.inventory.group_tags(call.region, arn.rpartition("/")[2])
        return iter([call.need(arn, given=call.tags(), has=has)])
    return _schedule(call, name) if call.operation.endswith("Schedule") else None


def _schedule(call: Call, name: str) -> Needs:
    """A schedule has no tags of its own; whoever makes one hands a role over."""
    group = call.text("GroupName", "groupName") or "default"
    yield call.need(call.arn(f"schedule/{group}/{name}"), has=call.inventory.group_tags(call.region, group))
    target = call.content.get("Target")
    if isinstance(target, Mapping):
        service = {"iam:PassedToService": ("scheduler.amazonaws.com",)}
        yield Need("iam:PassRole", str(target.get("RoleArn", "*")), service)


# --- what is looked up ---------------------------------------------------------------------------


def _secretsmanager(call: Call) -> Needs | None:
    if call.operation in {"ListSecrets", "BatchGetSecretValue", "GetRandomPassword"}:
        return iter([call.need("*")])
    if not (named := call.text("SecretId")):
        return None
    arn, tags = call.inventory.secret(call.region, named)
    return iter([call.need(arn, has=tags)])


_PARAMETERS: Final = {"GetParameter", "GetParameters", "GetParametersByPath", "GetParameterHistory"}
_PARAMETERS_CHANGED: Final = {"DeleteParameter", "DeleteParameters", "LabelParameterVersion"}


def _ssm(call: Call) -> Needs | None:
    if call.operation == "DescribeParameters":
        return iter([call.need("*")])
    if call.operation == "PutParameter":
        return _put_parameter(call)
    if call.operation in {"AddTagsToResource", "RemoveTagsFromResource", "ListTagsForResource"}:
        return iter([_of_parameter(call, call.text("ResourceId"))])
    if call.operation not in _PARAMETERS | _PARAMETERS_CHANGED:
        return None
    listed = call.content.get("Names")
    names = [str(one) for one in listed] if isinstance(listed, list) else [call.text("Name", "Path")]
    return (_of_parameter(call, name) for name in names)


def _put_parameter(call: Call) -> Needs:
    """An AMI in a parameter is looked up for whoever writes it, and tags are given with the right to tag.

    https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-ec2-aliases.html
    """
    arn, tags = _parameter(call, call.text("Name")), call.tags()
    need = call.need(arn, given=tags)
    overwrite = {"ssm:Overwrite": (str(call.content.get("Overwrite") is True).lower(),)}
    yield Need(need.action, arn, {**need.context, **overwrite})
    if tags:
        yield call.need(arn, "AddTagsToResource", given=tags)
    if call.content.get("DataType") == "aws:ec2:image":
        yield Need("ec2:DescribeImages", "*")


def _of_parameter(call: Call, name: str) -> Need:
    arn = _parameter(call, name)
    has = call.inventory.parameter_tags(call.region, arn.partition(":parameter/")[2])
    return call.need(arn, given=call.tags(), has=has)


def parameter_needs(name: str, region: str, inventory: Inventory) -> list[Need]:
    """What EC2 reads for whoever launches an AMI that a parameter names."""
    call = Call("ssm", "GetParameters", region, {}, "/", inventory)
    return [_of_parameter(call, name)]


def _parameter(call: Call, name: str) -> str:
    """The ARN of a parameter, without a version or label; AWS's own belong to no account."""
    if name.startswith("arn:"):
        return re.sub(r"(:parameter/[^:]*):[^/]*$", r"\1", name)
    path = re.sub(r":[^/]*$", "", name).lstrip("/")
    arn = call.arn(f"parameter/{path}")
    return arn.replace(f":{call.inventory.account}:", "::") if path.startswith("aws/") else arn


def _kms(call: Call) -> Needs | None:
    if call.operation in {"ListKeys", "ListAliases", "GenerateRandom"}:
        return iter([call.need("*")])
    if not (named := call.text("KeyId")):
        return None
    return iter([call.need(call.inventory.own_key(call.region, named) or call.arn(f"key/{named}"))])


# --- EBS direct APIs -----------------------------------------------------------------------------


def _ebs(call: Call) -> Needs:
    """The action on the snapshot, whose ARN is EC2's; and what is encrypted is decrypted for the caller."""
    snapshots = [
        one for name in ("snapshotId", "firstSnapshotId", "secondSnapshotId") if (one := call.text(name))
    ]
    for name in snapshots or ["*"]:
        has = call.inventory.ec2_tags(call.region, "snapshot", name)
        yield call.need(f"arn:aws:ec2:{call.region}::snapshot/{name}", has=has)
    if call.operation == "GetSnapshotBlock":
        via = {"kms:ViaService": (f"ec2.{call.region}.amazonaws.com",)}
        keys = {key for name in snapshots if (key := call.inventory.disk_key(call.region, name))}
        yield from (Need("kms:Decrypt", key, via) for key in sorted(keys))


def _quotas(call: Call) -> Needs:
    quota = f"{call.text('ServiceCode')}/{call.text('QuotaCode')}"
    yield call.need(call.arn(quota) if call.operation == "GetServiceQuota" else "*")


def _pricing(call: Call) -> Needs:
    yield call.need("*")


def _auto_scaling(call: Call) -> Needs | None:
    """Whoever makes a group launches instances, which no entry of one call tells; looking needs no more.

    What a refresh needs of EC2, `bake.localcloud.api.access.needed` adds.
    """
    refreshes = {"StartInstanceRefresh", "CancelInstanceRefresh", "RollbackInstanceRefresh"}
    if call.operation in refreshes | {"CompleteLifecycleAction"}:
        group = call.inventory.scaling_group(call.region, call.text("AutoScalingGroupName"))
        return iter([call.need(call.arn(group.resource), has=group.tags)])
    return iter([call.need("*")]) if call.operation.startswith("Describe") else None


# --- IAM -----------------------------------------------------------------------------------------


def _iam(call: Call) -> Needs | None:
    account = call.inventory.account
    if call.operation == "SimulatePrincipalPolicy":
        return iter([call.need(call.text("PolicySourceArn"))])
    if call.operation == "SimulateCustomPolicy":
        return iter([call.need("*")])
    if call.operation == "GetInstanceProfile":
        return iter(
            [call.need(f"arn:aws:iam::{account}:instance-profile/{call.text('InstanceProfileName')}")]
        )
    if re.fullmatch(r"(Get|List)\w*Role(Polic\w+)?", call.operation) and (role := call.text("RoleName")):
        return iter([call.need(call.inventory.role(role))])
    if re.fullmatch(r"List(Roles|Policies|InstanceProfiles|Users|AccountAliases)", call.operation):
        return iter([call.need("*")])
    return None


RULES: Final[Mapping[str, Rule]] = {
    "autoscaling": _auto_scaling,
    "ebs": _ebs,
    "events": _events,
    "iam": _iam,
    "kms": _kms,
    "pricing": _pricing,
    "scheduler": _scheduler,
    "secretsmanager": _secretsmanager,
    "servicequotas": _quotas,
    "sqs": _sqs,
    "ssm": _ssm,
    "sts": lambda call: iter(()) if call.operation == "GetCallerIdentity" else None,
}
