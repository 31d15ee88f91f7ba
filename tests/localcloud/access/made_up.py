"""Requests and policies by chance, the same for the same seed, to compare two evaluators.

What the two see differently is left out: variables in NotResource and with negated operators, where ours
never allows, values of Arn operators that are no ARNs, and wildcards in place of a resource's type.
"""

from __future__ import annotations

import random
from typing import Any

_KEYS = ("aws:ResourceTag/a", "aws:RequestTag/a", "aws:RequestedRegion", "ec2:CreateAction")
_KEYS += ("kms:GrantIsForAWSResource", "aws:TagKeys")
_ARN_KEYS = ("aws:PrincipalArn", "aws:SourceArn")
_GIVEN = ("a", "b", "ab", "A", "eu-1", "true", "TRUE", "false", "a*", "?", "")
_VARIABLES = ("${aws:RequestedRegion}", "${aws:ResourceTag/a}x", "${aws:ResourceTag/a, 'b'}", "${$}{x}")
_GIVEN_ARNS = (
    "arn:aws:iam::1:role/a",
    "arn:aws:iam::*:role/*",
    "arn:aws:events:eu-1:1:rule/x/y",
    "arn:aws:events:*:1:rule/x*",
    "arn:*:*:*:*:*",
)
_VALUES = ("a", "b", "ab", "A", "eu-1", "true", "false", "TRUE", "a*", "aXb", "arn:aws:iam::1:role/a")
_ARNS = ("arn:aws:iam::1:role/a", "arn:aws:events:eu-1:1:rule/x/y", "arn:aws:iam::2:role/b/a")
_INSTANCE = "arn:aws:ec2:eu-1:1:instance/i-1"
_REQUESTS = (
    ("ec2:StopInstances", _INSTANCE),
    ("s3:GetObject", "arn:aws:s3:::b/a"),
    ("s3:GetObject", "arn:aws:s3:::b/ab/c"),
)
_ACTIONS = ("ec2:StopInstances", "ec2:*", "*", "EC2:stop*", "s3:GetObject", "s3:*", "ec2:St?pInstances")
_RESOURCES = (_INSTANCE, "arn:aws:ec2:*:*:instance/*", "*", "arn:aws:ec2:eu-?:1:*", "arn:aws:s3:::b/*")
_RESOURCES += ("arn:aws:s3:::b", "arn:aws:ec2:eu-1:*:instance/i-?")
_WITH_VARIABLES = ("arn:aws:s3:::b/${aws:ResourceTag/a}", "arn:aws:s3:::b/${aws:ResourceTag/a}/*")
_OPERATORS = ("StringEquals", "StringNotEquals", "StringLike", "StringNotLike", "StringEqualsIgnoreCase")
_OPERATORS += ("StringNotEqualsIgnoreCase", "ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike", "Bool")


class MadeUp:
    """Requests by a seed's choice."""

    def __init__(self, seed: int) -> None:
        self._choice = random.Random(seed)

    def request(self) -> dict[str, Any]:
        """One request with the policies of its caller."""
        action, resource = self._choice.choice(_REQUESTS)
        statements = [self._statement() for _ in range(self._choice.randint(1, 3))]
        policies = [{"Version": "2012-10-17", "Statement": statements}]
        return {"action": action, "resource": resource, "context": self._context(), "policies": policies}

    def _context(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key in (*_KEYS, *_ARN_KEYS):
            values = self._choice.sample(_ARNS if key in _ARN_KEYS else _VALUES, self._choice.randint(1, 3))
            if self._rarely(0.5):
                found[key] = values if key == "aws:TagKeys" else values[0]
        return found

    def _statement(self) -> dict[str, Any]:
        found: dict[str, Any] = {"Effect": self._choice.choice(["Allow", "Allow", "Deny"])}
        found["NotAction" if self._rarely(0.15) else "Action"] = self._some(_ACTIONS)
        if self._rarely(0.15):
            found["NotResource"] = self._some(_RESOURCES)
        else:
            found["Resource"] = self._some((*_RESOURCES, *_WITH_VARIABLES))
        if self._rarely(0.6):
            found["Condition"] = dict(self._condition() for _ in range(self._choice.randint(1, 2)))
        return found

    def _condition(self) -> tuple[str, dict[str, Any]]:
        if self._rarely(0.1):
            return "Null", {self._choice.choice(_KEYS): self._choice.choice(["true", "false"])}
        name = self._choice.choice(_OPERATORS)
        keys, given = (_ARN_KEYS, _GIVEN_ARNS) if name.startswith("Arn") else (_KEYS, _GIVEN)
        given += _VARIABLES if name.startswith("String") and "Not" not in name else ()
        chosen = self._choice.sample(keys, self._choice.randint(1, 2))
        group = self._choice.choice(["", "", "", "ForAllValues:", "ForAnyValue:"])
        end = self._choice.choice(["", "", "IfExists"])
        return f"{group}{name}{end}", {key: self._some(given) for key in chosen}

    def _some(self, values: tuple[str, ...]) -> str | list[str]:
        if self._rarely(0.5):
            return self._choice.choice(values)
        return self._choice.sample(values, self._choice.randint(1, 3))

    def _rarely(self, part: float) -> bool:
        return self._choice.random() < part
