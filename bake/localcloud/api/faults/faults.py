"""Faults of AWS calls on request: refused, throttled, failed, timed out, lost, not found.

Faults live in the process that answers the calls, and end with it. The middleware `Faulty` applies them in
front of any WSGI application that answers AWS calls.
"""

from __future__ import annotations

import fnmatch
import random
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bake.errors import UsageError
from bake.localcloud.api.faults import operations
from bake.localcloud.api.faults.calls import Call
from bake.localcloud.api.faults.errors import AwsError, status_of, usual
from bake.localcloud.api.faults.eventual_consistency import EventualConsistency

Kind = Literal["refuse", "throttle", "error", "timeout", "lost", "expired", "capacity", "not-found"]

# Default seconds: how long a time-out is held, and how long a new id stays unknown.
_SECONDS = {"timeout": 60.0, "not-found": 5.0}
# These send no answer, so they have no code either.
_SILENT = {"timeout", "lost"}


class AwsFault(BaseModel):
    """One fault. It strikes `times` calls (None: all from now on), once `after` have passed without.

    `service` (a signing name) and `action` (an operation, also of S3: PutObject) are patterns of fnmatch;
    `match` is a part of one of the call's parameters, written `Name=value`. `seconds` is for a `timeout` how
    long the connection is held before it is dropped, for `not-found` how long what was created stays unknown,
    and for any other kind how long the fault goes on after its first strike. With a `probability` below 1,
    `seed` decides which calls it strikes. One that `spreads` strikes all calls of its `caller`, of whatever
    service, once it has struck: as credentials that have expired. `code`, `message` and `status` replace what
    AWS would answer.

    A DryRun, which does nothing, is struck only where `match` is `DryRun=true`.

    A call that times out is never made. One that is `lost` is made, and its answer thrown away.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: str = Field(min_length=1)
    action: str = Field(min_length=1)
    kind: Kind
    code: str | None = None
    message: str | None = None
    status: int | None = Field(None, ge=400, le=599)
    times: int | None = Field(1, ge=1)
    after: int = Field(0, ge=0)
    seconds: float | None = Field(None, ge=0)
    probability: float = Field(1.0, gt=0, le=1)
    seed: int = 0
    match: str | None = None
    caller: Literal["all", "host", "guests"] = "all"
    spreads: bool = False

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, given: Any) -> Any:
        """A fault with `seconds` strikes all calls until then, unless `times` is set."""
        if not isinstance(given, dict):
            return given
        kind, filled = given.get("kind"), dict(given)
        if kind == "not-found" or (kind != "timeout" and given.get("seconds") is not None):
            filled.setdefault("times", None)
        if given.get("spreads"):
            filled.setdefault("times", None)
        if kind in _SECONDS and given.get("seconds") is None:
            filled["seconds"] = _SECONDS[kind]
        return filled

    @model_validator(mode="after")
    def _answers(self) -> AwsFault:
        if self.kind in _SILENT and (self.code or self.message or self.status):
            raise ValueError(f"a {self.kind} fault has no answer: leave out code, message and status")
        return self

    def concerns(self, call: Call) -> bool:
        """Whether the fault applies to this call."""
        return (
            fnmatch.fnmatchcase(call.service, self.service)
            and fnmatch.fnmatchcase(call.action, self.action)
            and self.caller in ("all", call.caller)
            and (not call.dry or self.match == "DryRun=true")
            and (self.match is None or call.has(self.match))
        )

    def error(self, call: Call, missing: AwsError | None) -> AwsError:
        """The error that answers the call; `missing` is the one for a resource that is not found."""
        error = missing or usual(self.kind, call)
        status = error.status
        if self.code and self.kind in {"refuse", "not-found"}:
            status = status_of(call, self.code)
        message = self.message or ("The call fails on request" if self.code else error.message)
        return AwsError(self.code or error.code, message, self.status or status)


def parse_fault(content: str | bytes | dict[str, Any]) -> AwsFault:
    """Read a fault from JSON or from its fields; UsageError names everything that is wrong with it."""
    try:
        if isinstance(content, dict):
            return AwsFault.model_validate(content)
        return AwsFault.model_validate_json(content)
    except ValidationError as error:
        wrong = [_complaint(detail) for detail in error.errors(include_url=False)]
        raise UsageError(
            "; ".join(wrong), hint="bake local fault add --help lists the options of a fault"
        ) from error


def _complaint(detail: Any) -> str:
    where = ".".join(map(str, detail["loc"]))
    what = detail["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


class PlantedFault(BaseModel):
    """The state of a fault: how many calls it `struck`, and how many are `left` (None: no end)."""

    number: int
    fault: AwsFault
    struck: int = 0
    left: int | None = None


@dataclass(frozen=True)
class Strike:
    """A fault that strikes a call, and the error that answers it; None for no answer."""

    fault: AwsFault
    error: AwsError | None
    over: threading.Event

    def hold(self) -> None:
        """Wait as long as the time-out takes, or until all faults are cleared."""
        self.over.wait(self.fault.seconds or 0)


@dataclass
class _Planted:
    number: int
    fault: AwsFault
    dice: random.Random
    passed: int = 0
    struck: int = 0
    first: float | None = field(default=None)

    @property
    def left(self) -> int | None:
        fault = self.fault
        limited = fault.kind not in _SECONDS and fault.seconds is not None and self.first is not None
        if limited and time.monotonic() - (self.first or 0) >= (fault.seconds or 0):
            return 0
        return None if fault.times is None else fault.times - self.struck

    def concerns(self, call: Call) -> bool:
        """Whether the fault applies to this call; one that spread applies to all of its caller."""
        spread = self.fault.spreads and self.struck > 0 and self.fault.caller in ("all", call.caller)
        return spread or self.fault.concerns(call)

    def strikes(self) -> bool:
        """Count a call to which the fault applies, and say whether it strikes."""
        if self.passed < self.fault.after:
            self.passed += 1
            return False
        if self.fault.probability < 1 and self.dice.random() >= self.fault.probability:
            return False
        self.struck += 1
        self.first = self.first or time.monotonic()
        return True

    def shown(self) -> PlantedFault:
        return PlantedFault(number=self.number, fault=self.fault, struck=self.struck, left=self.left)


class Planting(ABC):
    """The interface for planting faults, in this process or in a local cloud's."""

    @abstractmethod
    def add(self, fault: AwsFault) -> PlantedFault:
        """Plant a fault: it strikes from now on."""

    @abstractmethod
    def clear(self) -> int:
        """End all faults; return how many there were."""

    @abstractmethod
    def listed(self) -> list[PlantedFault]:
        """All faults since the last `clear`, including those that have struck all their calls."""

    def plant(self, service: str, action: str, kind: Kind, **fields: Any) -> PlantedFault:
        """Plant a fault of AwsFault's fields; UsageError for a wrong one, or what AWS has no name for.

        `nth=3` strikes the third call only.
        """
        if (nth := fields.pop("nth", None)) is not None:
            fields |= {"after": nth - 1, "times": 1}
        named = {"service": operations.check(service, action), "action": action, "kind": kind}
        return self.add(parse_fault({**named, **fields}))

    def struck(self, number: int | None = None) -> int:
        """How many calls were struck by all faults, or by the one with this number."""
        return sum(one.struck for one in self.listed() if number in (None, one.number))


class AwsFaults(Planting):
    """The faults of this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._planted: list[_Planted] = []
        self._over = threading.Event()
        self._consistency = EventualConsistency()

    def add(self, fault: AwsFault) -> PlantedFault:
        with self._lock:
            planted = _Planted(len(self._planted) + 1, fault, random.Random(fault.seed))  # noqa: S311
            self._planted.append(planted)
            return planted.shown()

    def clear(self) -> int:
        """Also end the time-outs that are being held: their connections drop now."""
        with self._lock:
            ended = len(self._planted)
            self._planted.clear()
            self._consistency.clear()
            self._over.set()
            self._over = threading.Event()
            return ended

    def listed(self) -> list[PlantedFault]:
        with self._lock:
            return [planted.shown() for planted in self._planted]

    def active(self) -> bool:
        """Whether any fault may still strike."""
        with self._lock:
            return any(planted.left != 0 for planted in self._planted)

    def take(self, call: Call) -> Strike | None:
        """The fault that strikes this call: the first that was planted; the others do not count the call."""
        with self._lock:
            for planted in self._planted:
                if planted.left == 0 or not planted.concerns(call):
                    continue
                missing = self._missing(planted.fault, call)
                if planted.fault.kind == "not-found" and missing is None:
                    continue
                if planted.strikes():
                    fault = planted.fault
                    error = None if fault.kind in _SILENT else fault.error(call, missing)
                    return Strike(fault, error, self._over)
        return None

    def watching(self) -> bool:
        """Whether a not-found fault needs to know what is created."""
        with self._lock:
            return any(one.fault.kind == "not-found" and one.left != 0 for one in self._planted)

    def created(self, call: Call, answer: str) -> None:
        """Remember what a successful call created."""
        self._consistency.learn(call, answer)

    def _missing(self, fault: AwsFault, call: Call) -> AwsError | None:
        return self._consistency.missing(call, fault.seconds or 0) if fault.kind == "not-found" else None
