"""What was found out about each right and place, for people and for programs."""

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
    """A right, or a place, and how it stands; `grant` is whether a statement that allows it would help."""

    what: str
    on: str
    state: State = "untold"
    why: str = "no call that only reads can tell"
    optional: bool = False
    grant: bool = True


@dataclass
class Report:
    """What one `flux-worker check --aws` found."""

    region: str
    identity: Identity
    findings: list[Finding] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    """Calls that failed in a way that may pass."""
    permissions: dict[str, Permission] = field(default_factory=dict)

    def expect(self, permissions: Iterable[Permission]) -> None:
        """These rights are to be told about."""
        for permission in permissions:
            if permission.action not in self.permissions:
                self.permissions[permission.action] = permission
                self.findings.append(
                    Finding(permission.action, permission.resource, optional=permission.optional)
                )

    def open(self) -> list[Permission]:
        """The rights that nothing is known of yet."""
        return [
            self.permissions[one.what]
            for one in self.findings
            if one.what in self.permissions and _is_open(one)
        ]

    def state(self, action: str) -> State:
        """How a right stands."""
        return next((one.state for one in self.findings if one.what == action), "untold")

    def settle(self, action: str, state: State, why: str, *, grant: bool = True, on: str = "*") -> None:
        """Say how a right stands; what is known already stays, and one nobody asked for is put down."""
        found = next((one for one in self.findings if one.what == action), None)
        if found is None:
            found = Finding(action, on)
            self.findings.append(found)
            grant = grant and on != "*"
        if _is_open(found):
            found.state, found.why, found.grant = state, why, grant

    def say(self, what: str, state: State, why: str, on: str = "") -> None:
        """Say how a place stands, or something else that is no right."""
        self.findings.append(Finding(what, on, state, why, grant=False))

    def ask(self, actions: Iterable[str], call: Callable[[], T], how: str = "asked") -> T | None:
        """What a call answers, and put down that these rights hold; None where it fails, and put down why."""
        try:
            answer = call()
        except AWS_ERRORS as error:
            self.fail(error)
            return None
        for action in actions:
            self.settle(action, "holds", how)
        return answer

    def fail(self, error: Exception) -> None:
        """Put down what a failed call says."""
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
        """What has to be mended; what may be, with `optional`."""
        return [one for one in self.findings if one.state == "missing" and one.optional == optional]

    def statements(self, *, optional: bool = False) -> list[dict[str, Any]]:
        """What to add to the role's policy."""
        by_resource: dict[str, list[str]] = {}
        for one in self.missing(optional=optional):
            if one.grant:
                by_resource.setdefault(one.on, []).append(one.what)
        return [
            {"Effect": "Allow", "Action": actions, "Resource": resource}
            for resource, actions in by_resource.items()
        ]

    @property
    def exit_code(self) -> int:
        """78 where something has to be mended, 1 where AWS can't be reached."""
        if self.missing():
            return EXIT_CONFIG
        return EXIT_FAILED if self.unreachable else 0

    @property
    def facts(self) -> dict[str, Any]:
        """For programs."""
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
        """For people."""
        yield f"{self.identity.arn or 'who this is could not be told'}, region {self.region}"
        groups: dict[tuple[str, str], list[Finding]] = {}
        for one in self.findings:
            state = "optional" if one.state == "missing" and one.optional else str(one.state)
            groups.setdefault((state, one.why), []).append(one)
        for (state, why), several in sorted(groups.items(), key=lambda group: _ORDER.index(group[0][0])):
            lost = {self.permissions[one.what].consequence for one in several if one.what in self.permissions}
            without = f" (without it, {', '.join(sorted(lost))})" if state == "optional" else ""
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
