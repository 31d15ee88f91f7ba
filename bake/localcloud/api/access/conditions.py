"""Evaluate the Condition block of a statement of a policy.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html and
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-logic-multiple-context-keys-or-values.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bake.localcloud.api.access.needs import Need
from bake.localcloud.api.access.patterns import Lookup, covers, matches, tokens

# The keys that the local cloud knows the values of: absent from a need, they have none. A need may have more.
KEYS: Final = frozenset(
    one.lower()
    for one in (
        "aws:TagKeys",
        "aws:SourceArn",
        "aws:SourceAccount",
        "aws:PrincipalArn",
        "aws:PrincipalAccount",
        "aws:RequestedRegion",
        "aws:SecureTransport",
        "ec2:CreateAction",
        "ec2:LaunchTemplate",
        "ec2:Region",
        "iam:PassedToService",
        "kms:CallerAccount",
        "kms:GrantIsForAWSResource",
        "kms:ViaService",
    )
)
_TAGS: Final = ("aws:requesttag/", "aws:resourcetag/", "ec2:resourcetag/")
# Keys with a list of values, which a condition without a set operator never matches.
_LISTS: Final = frozenset({"aws:tagkeys"})
_OPERATOR: Final = re.compile(r"(?:(forallvalues|foranyvalue):)?([a-z]+?)(ifexists)?")


def values_of(given: Any) -> list[str]:
    """What a policy gives as one value or a list of them, as texts."""
    listed = given if isinstance(given, list) else [given]
    return [str(one).lower() if isinstance(one, bool) else str(one) for one in listed]


# Each compares a value of the request with one of the policy; None where they can't be compared.
Comparison = Callable[[str, str, Lookup | None], bool | None]


def _equal(value: str, given: str, lookup: Lookup | None) -> bool | None:
    pattern = tokens(given, lookup, wild=False)
    return None if pattern is None else matches(pattern, value)


def _equal_in_any_case(value: str, given: str, lookup: Lookup | None) -> bool | None:
    pattern = tokens(given, lookup, wild=False)
    return None if pattern is None else matches([str(one).lower() for one in pattern], value.lower())


def _like(value: str, given: str, lookup: Lookup | None) -> bool | None:
    return covers(given, value, lookup)


def _arn(value: str, given: str, lookup: Lookup | None) -> bool | None:
    """Each of an ARN's six parts by itself; ArnEquals and ArnLike are the same."""
    parts, wanted = value.split(":", 5), given.split(":", 5)
    if lookup is not None and "${" in given:  # a variable may have colons of its own, and a name with one
        return _like(value, given, lookup)
    if len(parts) != 6 or len(wanted) != 6:
        return None
    compared = [_like(part, pattern, lookup) for part, pattern in zip(parts, wanted, strict=True)]
    return all(compared)


def _true_or_false(value: str, given: str, lookup: Lookup | None) -> bool | None:
    equal = _equal_in_any_case(value, given, lookup)
    return equal if equal is None else equal and value.lower() in {"true", "false"}


_COMPARISONS: Final[Mapping[str, tuple[Comparison, bool]]] = {
    "stringequals": (_equal, True),
    "stringnotequals": (_equal, False),
    "stringequalsignorecase": (_equal_in_any_case, True),
    "stringnotequalsignorecase": (_equal_in_any_case, False),
    "stringlike": (_like, True),
    "stringnotlike": (_like, False),
    "arnequals": (_arn, True),
    "arnlike": (_arn, True),
    "arnnotequals": (_arn, False),
    "arnnotlike": (_arn, False),
    "bool": (_true_or_false, True),
}


@dataclass(frozen=True)
class Operator:
    """An operator of conditions: `group` is "", "forallvalues" or "foranyvalue"."""

    group: str
    name: str
    if_exists: bool

    @classmethod
    def named(cls, text: str) -> Operator | None:
        """The operator with this name, which has no case; None for one that is not supported."""
        found = _OPERATOR.fullmatch(text.lower())
        if found is None or (found[2] not in _COMPARISONS and found[2] != "null"):
            return None
        if found[2] == "null" and (found[1] or found[3]):
            return None
        return cls(found[1] or "", found[2], bool(found[3]))


@dataclass(frozen=True)
class Scope:
    """What a condition is evaluated against: a need, by a policy with variables (`lookup`) or without.

    `otherwise` is what counts for a condition that can't be evaluated: it never lets an Allow through, and
    never keeps a Deny from denying.
    """

    need: Need
    lookup: Lookup | None
    otherwise: bool


def hold(block: Any, scope: Scope) -> bool:
    """Whether all conditions of a statement hold: all operators, and all keys of each."""
    if not isinstance(block, Mapping):
        return scope.otherwise
    return all(
        _holds(operator, key, values_of(given), scope)
        for operator, keys in block.items()
        for key, given in (keys.items() if isinstance(keys, Mapping) and keys else [("", [])])
    )


def supported(key: str) -> bool:
    """Whether the local cloud knows when this condition key has a value."""
    return key.lower() in KEYS or key.lower().startswith(_TAGS)


def _holds(name: str, key: str, given: list[str], scope: Scope) -> bool:
    operator, values = Operator.named(name), scope.need.value(key)
    if operator is None or not (values or supported(key)):
        return scope.otherwise
    if operator.name == "null":
        return str(not values).lower() in [one.lower() for one in given]
    _, positive = _COMPARISONS[operator.name]
    if not values:
        if operator.group:
            return operator.group == "forallvalues"
        return operator.if_exists or not positive
    return _compared(operator, key, values, given, scope)


def _compared(operator: Operator, key: str, values: Sequence[str], given: list[str], scope: Scope) -> bool:
    if operator.group == "forallvalues":
        return all(_matches(operator, value, given, scope) for value in values)
    if operator.group == "foranyvalue":
        return any(_matches(operator, value, given, scope) for value in values)
    if key.lower() in _LISTS or len(values) > 1:
        return False
    return _matches(operator, values[0], given, scope)


def _matches(operator: Operator, value: str, given: list[str], scope: Scope) -> bool:
    """One of the policy's values matches; with a negated operator none of them does."""
    compare, positive = _COMPARISONS[operator.name]
    found = [compare(value, one, scope.lookup) for one in given]
    if positive:
        return True in found
    if None in found and True not in found:
        return scope.otherwise
    return True not in found
