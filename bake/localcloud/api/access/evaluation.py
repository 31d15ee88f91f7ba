"""Evaluate policies as IAM does for requests within one account; pure, and without moto.

The order is AWS's: an explicit deny ends it, then an allow by the caller's policies or by the resource's, and
what nobody allowed is denied implicitly. What the evaluator does not know, an element, an operator or a
condition key, never allows: an Allow with it does not count, a Deny with it does.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-denyallow.html
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from bake.localcloud.api.access import conditions
from bake.localcloud.api.access.conditions import Scope, values_of
from bake.localcloud.api.access.needs import Need
from bake.localcloud.api.access.patterns import Lookup, covers

Document = str | Mapping[str, Any]
Effect = Literal["allowed", "explicitDeny", "implicitDeny"]

# The version of policies with variables; the other one, of 2008, is also what a policy without a version has.
WITH_VARIABLES: Final = "2012-10-17"
_ELEMENTS: Final = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}
_UNREADABLE: Final = {"Effect": "Deny", "Action": "*", "Resource": "*", "Principal": "*"}


@dataclass(frozen=True)
class Source:
    """The statement that decided: the number of its document and of itself, from 0, and its Sid."""

    document: int
    statement: int
    sid: str = ""
    of_resource: bool = False


@dataclass(frozen=True)
class Decision:
    """`effect` as iam:SimulatePrincipalPolicy names it; `source` is None for an implicit deny."""

    effect: Effect
    source: Source | None = None

    @property
    def allowed(self) -> bool:
        """Whether the request may be made."""
        return self.effect == "allowed"


@dataclass(frozen=True)
class Caller:
    """Who a resource's policy may name: `kind` is "AWS" or "Service".

    `names` are the names of the caller itself, `account` that of its account, if it belongs to it: an Allow
    to the whole account leaves the decision to the account's own policies, a Deny to it counts.
    """

    kind: Literal["AWS", "Service"]
    names: frozenset[str]
    account: str = ""


def evaluate(
    documents: Iterable[Document],
    need: Need,
    of_resource: Iterable[Document] = (),
    caller: Caller | None = None,
) -> Decision:
    """Decide whether the caller's policies (`documents`), or those of the resource, allow a need.

    The resource's policies count for `caller` only; without one there are none.
    """
    allowed: Source | None = None
    for source, statement, version in _all(documents, of_resource if caller else ()):
        if not _applies(statement, version, need, caller if source.of_resource else None):
            continue
        if statement["Effect"] == "Deny":
            return Decision("explicitDeny", source)
        allowed = allowed or source
    return Decision("allowed", allowed) if allowed else Decision("implicitDeny")


def _all(
    documents: Iterable[Document], of_resource: Iterable[Document]
) -> Iterator[tuple[Source, Mapping[str, Any], str]]:
    for is_resource, some in ((False, documents), (True, of_resource)):
        for index, document in enumerate(some):
            version, statements = _read(document)
            for number, statement in enumerate(statements):
                sid = str(statement.get("Sid", ""))
                yield Source(index, number, sid, is_resource), statement, version


def _read(document: Document) -> tuple[str, tuple[Mapping[str, Any], ...]]:
    return _parsed(document) if isinstance(document, str) else _statements(document)


@lru_cache(500)
def _parsed(document: str) -> tuple[str, tuple[Mapping[str, Any], ...]]:
    try:
        return _statements(json.loads(document))
    except (ValueError, RecursionError):
        return _statements(None)


def _statements(document: Any) -> tuple[str, tuple[Mapping[str, Any], ...]]:
    """The version and the statements of a policy; an unreadable policy denies everything."""
    found = document.get("Statement") if isinstance(document, Mapping) else None
    found = found if isinstance(found, list) else [found]
    if not all(isinstance(one, Mapping) and one.get("Effect") in {"Allow", "Deny"} for one in found):
        found = [_UNREADABLE]
    version = document.get("Version", "") if isinstance(document, Mapping) else ""
    return str(version), tuple(found)


def _applies(statement: Mapping[str, Any], version: str, need: Need, caller: Caller | None) -> bool:
    denies = statement["Effect"] == "Deny"
    known = _ELEMENTS | ({"Principal", "NotPrincipal"} if caller else set())
    if not denies and statement.keys() - known:
        return False
    if caller is not None and not _concerns(statement, caller, denies):
        return False
    lookup: Lookup | None = need.value if version == WITH_VARIABLES else None
    scope = Scope(need, lookup, otherwise=denies)
    return (
        _is_action(statement, need.action)
        and _is_resource(statement, need.resource, lookup, denies)
        and ("Condition" not in statement or conditions.hold(statement["Condition"], scope))
    )


def _is_action(statement: Mapping[str, Any], action: str) -> bool:
    """Whether a statement is about an action; actions have no case."""
    if "NotAction" in statement:
        return not _names_action(statement["NotAction"], action)
    return "Action" in statement and _names_action(statement["Action"], action)


def _names_action(given: Any, action: str) -> bool:
    return any(covers(one.lower(), action.lower(), None) for one in values_of(given))


def _is_resource(statement: Mapping[str, Any], resource: str, lookup: Lookup | None, denies: bool) -> bool:
    """Whether a statement is about a resource. ARNs have their case."""
    if "NotResource" not in statement:
        return True in [_names(one, resource, lookup) for one in values_of(statement.get("Resource", []))]
    found = [_names(one, resource, lookup) for one in values_of(statement["NotResource"])]
    return True not in found and (denies or None not in found)


def _names(given: str, resource: str, lookup: Lookup | None) -> bool | None:
    """None where a variable has no value, or stands before an ARN's last part, where none may stand."""
    if lookup is not None and "${" in ":".join(given.split(":", 5)[:5]):
        return None
    return covers(given, resource, lookup, arn=True)


def _concerns(statement: Mapping[str, Any], caller: Caller, denies: bool) -> bool:
    """Whether a statement of a resource's policy is about a caller."""
    if "NotPrincipal" in statement:
        return denies
    given = statement.get("Principal", {})
    if given == "*":
        return True
    named = values_of(given.get(caller.kind, [])) if isinstance(given, Mapping) else []
    mine = caller.names | ({caller.account, f"arn:aws:iam::{caller.account}:root"} if denies else frozenset())
    return any(one == "*" or one in mine for one in named)
