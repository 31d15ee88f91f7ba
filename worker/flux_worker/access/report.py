"""Collect findings about permissions and resources, and show them as text or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from ..aws.errors import (
    NO_CREDENTIALS,
    UNKNOWN_CREDENTIALS,
    denied_action,
    denied_resource,
    describe,
    error_code,
    failed_call,
)
from ..aws.retryable import is_transient
from ..errors import EXIT_CONFIG, EXIT_FAILED
from ..jobs.queue import AWS_ERRORS
from .permissions import Identity, Permission

State = Literal["holds", "missing", "untold", "note"]
T = TypeVar("T")
_ORDER = ("missing", "optional", "untold", "note", "holds")


@dataclass
class Finding:
    """A permission or resource and its state; `grant`: a statement that allows it would help."""

    what: str
    on: str
    state: State = "untold"
    why: str = "no read-only call can tell"
    optional: bool = False
    grant: bool = True


@dataclass
class Report:
    """The findings of one `flux-worker check --aws`."""

    region: str
    identity: Identity
    findings: list[Finding] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    """Calls that failed with a transient error."""
    permissions: dict[str, Permission] = field(default_factory=dict)

    def expect(self, permissions: Iterable[Permission]) -> None:
        """Add these permissions, with unknown state."""
        for permission in permissions:
            if permission.action not in self.permissions:
                self.permissions[permission.action] = permission
                self.findings.append(
                    Finding(permission.action, permission.resource, optional=permission.optional)
                )

    def open(self) -> list[Permission]:
        """The permissions whose state is unknown."""
        return [
            self.permissions[one.what]
            for one in self.findings
            if one.what in self.permissions and _is_open(one)
        ]

    def state(self, action: str) -> State:
        """The state of a permission."""
        return next((one.state for one in self.findings if one.what == action), "untold")

    def settle(self, action: str, state: State, why: str, *, grant: bool = True, on: str = "*") -> None:
        """Set the state of a permission unless it is known; adds a permission that was not expected."""
        found = next((one for one in self.findings if one.what == action), None)
        if found is None:
            found = Finding(action, on)
            self.findings.append(found)
            grant = grant and on != "*"
        if _is_open(found):
            found.state, found.why, found.grant = state, why, grant

    def say(self, what: str, state: State, why: str, on: str = "") -> None:
        """Add a finding about a resource, or anything else that is not a permission."""
        self.findings.append(Finding(what, on, state, why, grant=False))

    def ask(self, actions: Iterable[str], call: Callable[[], T], how: str = "asked") -> T | None:
        """Make a call that proves these permissions; returns None if it fails, with a finding why."""
        try:
            answer = call()
        except AWS_ERRORS as error:
            self.fail(error)
            return None
        for action in actions:
            self.settle(action, "holds", how)
        return answer

    def fail(self, error: Exception) -> None:
        """Add the finding of a failed call."""
        text = describe(error)
        if action := denied_action(error):
            grant = "explicit deny" not in text
            self.settle(action, "missing", text, grant=grant, on=denied_resource(error) or "*")
        elif isinstance(error, NO_CREDENTIALS) or error_code(error) in UNKNOWN_CREDENTIALS:
            self._say_once("credentials", text)
        elif is_transient(error):
            self.unreachable.append(text)
        else:
            self._say_once(failed_call(error).place or failed_call(error).action, text)

    def _say_once(self, what: str, why: str) -> None:
        if not any(one.what == what for one in self.findings):
            self.say(what, "missing", why)

    def missing(self, *, optional: bool = False) -> list[Finding]:
        """The missing permissions and resources; with `optional`, only the optional ones."""
        return [one for one in self.findings if one.state == "missing" and one.optional == optional]

    def statements(self, *, optional: bool = False) -> list[dict[str, Any]]:
        """The statements to add to the role's policy."""
        by_place: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
        for one in self.missing(optional=optional):
            if one.grant:
                known = self.permissions.get(one.what)
                by_place.setdefault((one.on, known.context if known else ()), []).append(one.what)
        return [
            {"Effect": "Allow", "Action": actions, "Resource": resource}
            | ({"Condition": {"StringEquals": dict(context)}} if context else {})
            for (resource, context), actions in by_place.items()
        ]

    @property
    def exit_code(self) -> int:
        """78 if something required is missing, 1 if AWS is not reachable."""
        if self.missing():
            return EXIT_CONFIG
        return EXIT_FAILED if self.unreachable else 0

    @property
    def facts(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "identity": self.identity.arn,
            "region": self.region,
            "ok": self.exit_code == 0,
            "findings": [asdict(one) for one in self.findings],
            "unreachable": self.unreachable,
            "statements": self.statements(),
            "optional_statements": self.statements(optional=True),
        }

    def lines(self) -> Iterator[str]:
        """The report as text."""
        yield f"{self.identity.arn or 'unknown identity'}, region {self.region}"
        groups: dict[tuple[str, str], list[Finding]] = {}
        for one in self.findings:
            state = "optional" if one.state == "missing" and one.optional else str(one.state)
            groups.setdefault((state, one.why), []).append(one)
        for (state, why), several in sorted(groups.items(), key=lambda group: _ORDER.index(group[0][0])):
            lost = {self.permissions[one.what].consequence for one in several if one.what in self.permissions}
            without = f" (without it, {', '.join(sorted(lost))})" if state == "optional" and any(lost) else ""
            yield f"{state:<8} {_named(several)}: {why}{without}"
        yield from (f"failed   {text}" for text in self.unreachable)
        for statements, what in (
            (self.statements(), "Add to the role's policy:"),
            (self.statements(optional=True), "May be added to the role's policy:"),
        ):
            if statements:
                yield what
                yield ",\n".join(json.dumps(one, indent=2) for one in statements)


def _is_open(finding: Finding) -> bool:
    return finding.state == "untold"


def _named(findings: list[Finding]) -> str:
    places: dict[str, list[str]] = {}
    for one in findings:
        places.setdefault(one.on, []).append(one.what)
    return "; ".join(", ".join(what) + (f" on {on}" if on else "") for on, what in places.items())
