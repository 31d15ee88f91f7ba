"""Authorise calls by the policies of their caller's role, and of the queue or bucket that they are about.

The administrator, whose pair `bake local env` shows, may do everything. Of other callers each need is
recorded. Permissions boundaries, session policies and service control policies are not supported.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

from bake.localcloud.api.access.evaluation import Caller, Decision, evaluate
from bake.localcloud.api.access.inventory import Inventory, MotoInventory
from bake.localcloud.api.access.keys import Principal
from bake.localcloud.api.access.needs import Context, Need
from bake.localcloud.api.access.refusals import Refused
from bake.localcloud.settings import ACCOUNT

# Whom a key's policy must name for the account's own policies to count at all.
# https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-default.html
_ACCOUNT = Caller("AWS", frozenset({ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root"}), ACCOUNT)


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


class NeedLog:
    """The needs that callers had, each once, in the order in which they first came; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[tuple[str, Need, bool], None] = {}

    def add(self, principal: Principal, need: Need, allowed: bool) -> None:
        """Record that a caller needed something, and whether it was allowed."""
        with self._lock:
            self._found[principal.arn, need, allowed] = None

    def listed(self) -> list[dict[str, Any]]:
        """The needs in a form for JSON."""
        with self._lock:
            found = list(self._found)
        return [
            {
                "principal": principal,
                "action": need.action,
                "resource": need.resource,
                "context": {key: list(values) for key, values in need.context.items()},
                "allowed": allowed,
            }
            for principal, need, allowed in found
        ]


class Authoriser:
    """Decides whether a caller's policies allow what a call needs."""

    def __init__(
        self,
        policies: Policies = role_documents,
        inventory: Inventory | None = None,
        record: Callable[[Principal, Need, bool], None] = lambda principal, need, allowed: None,
    ) -> None:
        self._policies = policies
        self.inventory: Inventory = inventory or MotoInventory()
        self._record = record

    def authorise(
        self, principal: Principal, needs: Iterable[Need] | None, region: str, call: str = ""
    ) -> None:
        """Raise Refused unless all needs are allowed; the owner may do all.

        No needs at all (None) are those of a `call` that the local cloud has no entry for.
        """
        if principal.is_owner:
            return
        if needs is None:
            text = f"User: {principal.arn} is not authorized to perform: {call} because the local cloud does "
            raise Refused("denied", f"{text}not know what it needs; only its administrator may call it")
        for need in needs:
            decision = self.decide(principal, need, region)
            if not decision.allowed:
                raise Refused("denied", refusal(principal, need, decision))

    def decide(self, principal: Principal, need: Need, region: str) -> Decision:
        """Decide, and record, one need of a caller that is not the owner."""
        role = self.inventory.role(principal.role)
        full = replace(need, context={**need.context, **_of_request(role, need, region)})
        caller = Caller("AWS", frozenset({principal.arn, role}), ACCOUNT)
        of_resource = self.inventory.policies_of(need.resource)
        delegated = not need.action.startswith("kms:") or _delegates(of_resource, full)
        decision = evaluate(self._policies(principal.role) if delegated else [], full, of_resource, caller)
        self._record(principal, full, decision.allowed)
        return decision


def _delegates(of_key: list[str], need: Need) -> bool:
    """Whether a key's policy lets the account's own policies decide; a key that is not there has none."""
    return not of_key or evaluate([], need, of_key, _ACCOUNT).allowed


def _of_request(role: str, need: Need, region: str) -> Context:
    """The condition keys that each request has. The cloud stands for endpoints that have TLS."""
    found: dict[str, tuple[str, ...]] = {
        "aws:PrincipalAccount": (ACCOUNT,),
        "aws:PrincipalArn": (role,),
        "aws:RequestedRegion": (region,),
        "aws:SecureTransport": ("true",),
    }
    more = {"ec2:": ("ec2:Region", region), "kms:": ("kms:CallerAccount", ACCOUNT)}.get(need.action[:4])
    return found | ({more[0]: (more[1],)} if more else {})


def refusal(principal: Principal, need: Need, decision: Decision) -> str:
    """The message of a refusal, as AWS's services write it."""
    why = f"because no identity-based policy allows the {need.action} action"
    if decision.effect == "explicitDeny" and decision.source is not None:
        kind = "a resource-based policy" if decision.source.of_resource else "an identity-based policy"
        why = f"with an explicit deny in {kind}"
    resource = f'"{need.resource}"' if need.action.startswith("s3:") else need.resource
    on = "" if need.resource == "*" else f" on resource: {resource}"
    return f"User: {principal.arn} is not authorized to perform: {need.action}{on} {why}"
