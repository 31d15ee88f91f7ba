"""Ask IAM's simulation which of a profile's rights whoever bakes, and the worker, do not have.

It knows the policies of a role or user, and neither those of resources nor those of sessions.
https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bake import iam
from bake.account.answers import Unanswered, ask
from bake.aws import Aws
from bake.background import start
from bake.iam import Audience, Statement, Subject
from bake.profile import Profile

# RunInstances is asked by DryRuns; what reads may be missing, and lifecycle hooks are not everybody's.
NOT_ASKED = re.compile(
    r"ec2:(RunInstances|Describe\w+|Get\w+)|autoscaling:\w+|pricing:\w+|servicequotas:\w+"
    r"|iam:(Get|Simulate)\w+|\w+:List\w+"
)
EXAMPLE = "preflight"
# What an action of EC2 is about, by its name, as its ARNs name it; others are about instances.
_KINDS = {
    "Image": "image",
    "Snapshot": "snapshot",
    "Volume": "volume",
    "NetworkInterface": "network-interface",
    "KeyPair": "key-pair",
    "SecurityGroup": "security-group",
    "SpotInstanceRequests": "spot-instances-request",
}
_ASSUMED = re.compile(r"arn:([a-z-]+):sts::([0-9]{12}):assumed-role/([^/]+)/.*")
_ENTITY = re.compile(r"arn:[a-z-]+:iam::[0-9]{12}:(role|user)/.+")


@dataclass(frozen=True)
class Question:
    """One call of the simulation: the actions that go with a resource and a context."""

    actions: tuple[str, ...]
    resource: str
    context: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Rights:
    """What a principal (ARN) may not do, of `asked` actions."""

    principal: str
    asked: int
    denied: tuple[str, ...] = ()


@dataclass(frozen=True)
class BothRights:
    """Those of whoever bakes, and of the worker; None where there is no such principal."""

    caller: Rights | Unanswered | None = None
    worker: Rights | Unanswered | None = None


def ask_rights(profile: Profile, aws: Aws, role: Callable[[], str | Unanswered | None]) -> BothRights:
    """Ask for both. `role` waits for the ARN of the worker's role."""
    caller = start(lambda: _of_caller(profile, aws, role()))
    worker = start(lambda: _of_worker(profile, aws, role()))
    return BothRights(caller.result(), worker.result())


def _of_caller(profile: Profile, aws: Aws, role: str | Unanswered | None) -> Rights | Unanswered:
    principal = ask(lambda: _principal(aws))
    if isinstance(principal, Unanswered):
        return principal
    if not _ENTITY.fullmatch(principal):
        return Unanswered(f"only roles and users can be simulated, not {principal}")
    return _simulated("caller", _subject(profile, aws, principal, role), principal, aws)


def _of_worker(profile: Profile, aws: Aws, role: str | Unanswered | None) -> Rights | Unanswered | None:
    if role is None or isinstance(role, Unanswered):
        return role
    return _simulated("worker", _subject(profile, aws, role, role), role, aws)


def _subject(profile: Profile, aws: Aws, principal: str, role: str | Unanswered | None) -> Subject:
    known = role if isinstance(role, str) else f"{principal.rpartition(':')[0]}:role/{EXAMPLE}"
    return Subject.of(profile, principal.split(":")[4], partition=aws.partition, role=known)


def _principal(aws: Aws) -> str:
    """The ARN of the role or user that calls. That of a session lacks the role's path."""
    caller = str(aws.sts.get_caller_identity()["Arn"])
    session = _ASSUMED.fullmatch(caller)
    if session is None:
        return caller
    partition, account, name = session.groups()
    found = ask(lambda: str(aws.iam.get_role(RoleName=name)["Role"]["Arn"]))
    return f"arn:{partition}:iam::{account}:role/{name}" if isinstance(found, Unanswered) else found


def _simulated(audience: Audience, subject: Subject, principal: str, aws: Aws) -> Rights | Unanswered:
    """Ask the first question, then all others side by side; without an answer to one there is none."""
    first, *others = questions = list(questions_of(iam.statements(audience, subject)))
    denied = ask(lambda: _denied(first, principal, aws))
    if isinstance(denied, Unanswered):
        return denied
    asked = [start(lambda one=one: ask(lambda: _denied(one, principal, aws))) for one in others]  # type: ignore[misc]
    for answer in (one.result() for one in asked):
        if isinstance(answer, Unanswered):
            return answer
        denied += answer
    actions = {action for one in questions for action in one.actions}
    return Rights(principal, len(actions), tuple(sorted(dict.fromkeys(denied))))


def questions_of(statements: Sequence[Statement]) -> Iterator[Question]:
    """The questions about what these statements allow, each with a resource and a context as theirs."""
    found: dict[tuple[str, tuple[tuple[str, tuple[str, ...]], ...]], dict[str, None]] = {}
    for statement in statements:
        context = tuple(_context(statement.condition or {}))
        for action in statement.actions:
            if not NOT_ASKED.fullmatch(action):
                where = (_resource(action, statement.resources), context)
                found.setdefault(where, {})[action] = None
    for (resource, context), actions in found.items():
        yield Question(tuple(actions), resource, context)


def _context(
    condition: Mapping[str, Mapping[str, str | tuple[str, ...]]],
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """An example that meets a condition; of several values the first."""
    for operator, keys in condition.items():
        for key, value in keys.items():
            if operator != "Null":
                first = value if isinstance(value, str) else value[0]
                yield key, (first.replace("?*", EXAMPLE).replace("*", EXAMPLE),)


def _resource(action: str, resources: Sequence[str]) -> str:
    """An example of what a statement allows an action on."""
    service, _, name = action.partition(":")
    own = [one for one in resources if one.split(":")[2:3] == [service]] or [resources[0]]
    if service == "s3":
        objects = name.endswith("Object")
        own = [one for one in own if ("/" in one) == objects] or own
    chosen = own[0]
    if service == "events":
        rules = name.endswith(("Rule", "Targets"))
        chosen = next((one for one in own if (":rule/" in one) == rules), chosen)
    if service == "ec2":
        kind = next((kind for part, kind in _KINDS.items() if part in name), "instance")
        without = kind in ("image", "snapshot")  # whose ARNs name no account
        anyway = [one for one in own if one.endswith(":*/*") and ("::*/*" in one) == without]
        chosen = next((one for one in own if f":{kind}/" in one), (anyway or own)[0])
        chosen = chosen.replace(":*/*", f":{kind}/*")
    return chosen.replace("??????", EXAMPLE).replace("*", EXAMPLE) if chosen != "*" else chosen


def _denied(question: Question, principal: str, aws: Aws) -> list[str]:
    """The actions that are not allowed. One that hangs on a key that only a real call has is not told."""
    entries: Any = [
        {"ContextKeyName": key, "ContextKeyValues": list(values), "ContextKeyType": _type(values)}
        for key, values in question.context
    ]
    pages = aws.iam.get_paginator("simulate_principal_policy").paginate(
        PolicySourceArn=principal,
        ActionNames=list(question.actions),
        ResourceArns=[question.resource],
        ContextEntries=entries,
    )
    return [
        f"{one['EvalActionName']} on {question.resource}"
        for page in pages
        for one in page["EvaluationResults"]
        if one["EvalDecision"] != "allowed" and not one.get("MissingContextValues")
    ]


def _type(values: Sequence[str]) -> str:
    return "boolean" if values[0] in ("true", "false") else "string"
