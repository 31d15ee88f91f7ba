"""What an instance's role may do: its policies, as IAM would judge them.

Looked at are actions, wildcards in them, and resources: queues, buckets, objects and event buses. For all
other operations the Resource is not looked at: a statement counts for all of them. Conditions are not
evaluated either: a statement that has some allows nothing, and denies what it denies. There are no policies
of resources, boundaries or sessions.
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
# On AWS nobody needs leave for these, and nobody can be denied them.
FREE = {"sts:GetCallerIdentity"}


class Policies(Protocol):
    """Tells the documents of a role's policies, inline and attached."""

    def __call__(self, role: str) -> list[str]: ...


def role_documents(role: str) -> list[str]:
    """The policies of a role in moto, as JSON; none for a role that is not there."""
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
    """Refused unless a role's policies allow all that a call needs; the owner may do everything.

    `needs` are actions, each with the ARN that it is needed on; None where the resource is not looked at.
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
    """The statements of a policy; one that can't be read denies everything."""
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
    """Whether an element, or its opposite (NotAction, NotResource), takes a value in."""
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
