"""One statement of a policy, and policies made of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Condition = Mapping[str, Mapping[str, str | tuple[str, ...]]]

# Characters without white space, which IAM does not count.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
MANAGED = 6144
INLINE = 10_240  # of all inline policies of a role together


@dataclass(frozen=True)
class Statement:
    """What is allowed: `actions` on `resources` (ARNs) under a `condition`.

    `sid` names it in the policy, `why` says what it is for, and `when` which profiles have it, "" for all.
    """

    sid: str
    why: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    condition: Condition | None = None
    when: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The statement as IAM takes it; one resource stands without a list."""
        found: dict[str, Any] = {"Sid": self.sid, "Effect": "Allow", "Action": _one_or_list(self.actions)}
        found["Resource"] = _one_or_list(self.resources)
        if self.condition:
            found["Condition"] = {
                operator: {key: _one_or_list(value) for key, value in keys.items()}
                for operator, keys in self.condition.items()
            }
        return found


def _one_or_list(value: str | tuple[str, ...]) -> str | list[str]:
    if isinstance(value, str):
        return value
    return value[0] if len(value) == 1 else list(value)


@dataclass(frozen=True)
class Trust:
    """Who may take a role: a service, for what `sources` (ARNs) name in `account`; without them for all."""

    service: str
    account: str = ""
    sources: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The role's trust policy."""
        statement: dict[str, Any] = {
            "Effect": "Allow",
            "Principal": {"Service": self.service},
            "Action": "sts:AssumeRole",
        }
        if self.sources:
            statement["Condition"] = {
                "StringEquals": {"aws:SourceAccount": self.account},
                "ArnLike": {"aws:SourceArn": _one_or_list(self.sources)},
            }
        return {"Version": "2012-10-17", "Statement": [statement]}


def document(statements: Iterable[Statement]) -> dict[str, Any]:
    """A policy as IAM takes it."""
    return {"Version": "2012-10-17", "Statement": [one.as_dict() for one in statements]}


def size(policy: Mapping[str, Any]) -> int:
    """Characters of a policy as IAM counts them: without white space."""
    return len("".join(json.dumps(policy, ensure_ascii=False).split()))


def too_large(policy: Mapping[str, Any]) -> str:
    """Say that a policy is larger than IAM takes as a managed one; empty if it fits."""
    found = size(policy)
    if found <= MANAGED:
        return ""
    return (
        f"the policy has {found:,} characters without white space: a managed policy may have {MANAGED:,}, "
        f"a role's inline policies together {INLINE:,}"
    )
