"""Create resources in AWS so that they can be found and removed even if the answer to a call is lost.

A call whose answer was lost is sent again, and may then fail because the resource exists already. So the
removal is registered before the call, by name or client token, and an existing resource is taken over or
removed only if its tag `bake:run` names this run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from bake.aws import Aws, ClientError
from bake.errors import BakeError
from bake.retries import ABSENT, error_code, is_refused
from bake.undo import Removal, Undo

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import TagTypeDef

T = TypeVar("T")

RUN_TAG = "bake:run"
EXPIRES_TAG = "bake:expires"
# Seconds until a new resource appears in the answers of AWS.
APPEARS_WITHIN = 30.0
EXISTS = frozenset(
    {
        "InvalidKeyPair.Duplicate",
        "InvalidGroup.Duplicate",
        "InvalidAMIName.Duplicate",
        "ResourceAlreadyExistsException",
        "ConflictException",
        "BucketAlreadyOwnedByYou",
        "BucketAlreadyExists",
        "QueueNameExists",
        "QueueAlreadyExists",
        "AWS.SimpleQueueService.QueueNameExists",
    }
)


@dataclass(frozen=True)
class Found:
    """An existing resource, and the run that its tag names; empty if it has no such tag."""

    id: str
    run: str


@dataclass
class Resource:
    """How to create one resource, find it again by name or token, and remove it.

    `kind` and `name` say to people what it is, `run` is the id of the run that creates it.

    `by_hand` gives the command that removes it, by its id if that is known.
    """

    kind: str
    name: str
    run: str
    aws: Aws
    make: Callable[[], str]
    find: Callable[[], Found | None]
    remove: Callable[[str], object]
    by_hand: Callable[[str | None], str]
    _id: str | None = field(default=None, init=False)

    def create(self, undo: Undo) -> tuple[str, Removal]:
        """Create it; return its id and its removal, which is registered before the call is sent."""
        removal = undo.add(f"{self.kind} {self.name}", self._remove, by_hand=lambda: self.by_hand(self._id))
        try:
            self._id = self.make()
        except ClientError as error:
            if error_code(error) in EXISTS:
                self._id = self._take_over(undo, removal, error)
            else:
                if is_refused(error):
                    undo.record("refused", what=removal.what, why=error_code(error))
                    undo.forget(removal)
                raise
        if self._id != self.name:
            removal.what = f"{self.kind} {self._id} ({self.name})"
        undo.record("created", kind=self.kind, name=self.name, id=self._id, what=removal.what)
        return self._id, removal

    def adopt(self, known: str) -> Removal:
        """Take over one that an earlier attempt of this run created; its removal is not registered."""
        self._id = known
        self.aws.fresh.add(known)
        return Removal(f"{self.kind} {known} ({self.name})", self._remove, lambda: self.by_hand(known))

    def _take_over(self, undo: Undo, removal: Removal, error: Exception) -> str:
        found = self._look()
        if found is not None and found.run == self.run:
            return found.id
        if found is not None:
            undo.forget(removal)
        where = f": {found.id}" if found else ""
        raise BakeError(
            f"{self.kind} {self.name} exists already, and is not this run's{where}",
            hint="bake leaves it alone: choose another name, or remove it if nobody needs it",
        ) from error

    def _look(self) -> Found | None:
        """Look for it until it appears; None if it does not."""
        with self.aws.tally.waiting(f"{self.kind} {self.name} to appear", APPEARS_WITHIN) as wait:
            while (found := self.find()) is None and wait.seconds < APPEARS_WITHIN:
                wait.pause(0.5)
        if found is not None:
            self.aws.fresh.add(found.id, self.name)  # what one call sees another may not see yet
        return found

    def _remove(self) -> None:
        if self._id is not None:
            self.remove(self._id)
        elif (found := self._look()) is not None and found.run == self.run:
            self._id = found.id
            self.remove(found.id)


def unless_absent(call: Callable[[], T]) -> T | None:
    """The answer of a call; None if AWS says that the resource does not exist."""
    try:
        return call()
    except ClientError as error:
        if ABSENT.search(error_code(error)):
            return None
        raise


def tag_of(tags: object, key: str = RUN_TAG) -> str:
    """The value of a tag in a list of {"Key", "Value"} or a mapping; empty if there is none."""
    if isinstance(tags, dict):
        return str(tags.get(key, ""))
    listed = tags if isinstance(tags, list) else []
    return next((str(tag["Value"]) for tag in listed if tag["Key"] == key), "")


@dataclass(frozen=True)
class Labels:
    """The facts of a bake that tags hold."""

    profile: str
    plan: str
    worker: str
    os: str
    accelerator: str
    venue: str = "AWS"
    """`REHEARSAL` on the local cloud."""


def tags(labels: Labels, run: str, name: str, expires: datetime) -> list[TagTypeDef]:
    """The tags of everything that the run with this id creates, for the call that creates it.

    `bake:state` is what becomes of it, `bake:expires` (RFC 3339, UTC) until when it may be needed.
    """
    facts = {"Name": name, "bake:run": run, "bake:profile": labels.profile, "bake:plan": labels.plan}
    facts |= {"bake:worker": labels.worker, "bake:os": labels.os, "bake:accelerator": labels.accelerator}
    facts |= {"bake:venue": labels.venue}
    facts |= {"bake:state": "draft", "bake:expires": stamp(expires)}
    return [{"Key": key, "Value": value} for key, value in facts.items()]


def stamp(at: datetime) -> str:
    """A time as tags hold it: RFC 3339 in UTC, in whole seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def time_of(text: str) -> datetime | None:
    """The time in a tag; None if it is none."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else None
