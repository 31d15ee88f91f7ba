"""Evaluate the policies of an instance's role as IAM does, in a subset.

The subset: actions with wildcards, and as resources queues, buckets, objects and event buses. For other
operations Resource is ignored: a statement applies to all of them. Conditions are not evaluated: an Allow
with conditions allows nothing, a Deny with conditions always denies. Resource policies, permissions
boundaries and session policies are not supported.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Protocol

from bake.localcloud.api.access.keys import Principal
from bake.localcloud.api.access.refusals import Refused
from bake.localcloud.settings import ACCOUNT

Needs = Iterable[tuple[str, str | None]]
# On AWS these need no permission and can't be denied.
FREE = {"sts:GetCallerIdentity"}


class Policies(Protocol):
    """Returns the documents of a role's policies, inline and attached."""

    def __call__(self, role: str) -> list[str]: ...


def role_documents(role: str) -> list[str]:
    """The policies of a role in moto, as JSON; none for an unknown role."""
    from moto.iam.exceptions import NotFoundException
    from moto.iam.models import iam_backends

    try:
        found = iam_backends[ACCOUNT]["aws"].get_role(role)
    except NotFoundException:
        return []
    documents = [str(document) for document in found.policies.values()]
    for policy in found.managed_policies.values():
        documents += [version.document for version in policy.versions if version.is_default_version]
    return documents


def authorise(principal: Principal, needs: Needs, policies: Policies) -> None:
    """Raise Refused unless the role's policies allow all actions that a call needs; the owner may do all.

    `needs` are actions, each with the ARN that it is needed on, or None where the resource is ignored.
    """
    if principal.is_owner:
        return
    statements = [statement for document in policies(principal.role) for statement in _statements(document)]
    for action, resource in needs:
        if action in FREE:
            continue
        effects = {one["Effect"] for one in statements if _concerns(one, action, resource)}
        if effects != {"Allow"}:
            why = (
                "with an explicit deny in an identity-based policy"
                if "Deny" in effects
                else f"because no identity-based policy allows the {action} action"
            )
            on = f" on resource: {resource}" if resource else ""
            text = f"User: {principal.arn} is not authorized to perform: {action}{on} {why}"
            raise Refused("denied", text)


def _statements(document: str) -> list[Mapping[str, Any]]:
    """The statements of a policy; an unreadable policy denies everything."""
    try:
        found = json.loads(document)["Statement"]
        found = found if isinstance(found, list) else [found]
        if all(isinstance(one, dict) and one.get("Effect") in {"Allow", "Deny"} for one in found):
            return found
    except (ValueError, KeyError, TypeError):
        pass
    return [{"Effect": "Deny", "Action": "*", "Resource": "*"}]


def _concerns(statement: Mapping[str, Any], action: str, resource: str | None) -> bool:
    if statement["Effect"] == "Allow" and "Condition" in statement:
        return False
    if not _fits(statement, "Action", action.lower(), str.lower):
        return False
    if resource is None:
        return True
    return _fits(statement, "Resource", resource, str)


def _fits(statement: Mapping[str, Any], element: str, value: str, prepare: Any) -> bool:
    """Whether an element, or its negation (NotAction, NotResource), includes a value."""
    opposite = f"Not{element}"
    if opposite in statement:
        return not any(_pattern(prepare(one)).fullmatch(value) for one in _texts(statement[opposite]))
    return any(_pattern(prepare(one)).fullmatch(value) for one in _texts(statement.get(element, [])))


def _texts(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


@lru_cache(1000)
def _pattern(text: str) -> re.Pattern[str]:
    """`*` stands for any text, `?` for one character."""
    return re.compile(fnmatch.translate(text.replace("[", "[[]")))
