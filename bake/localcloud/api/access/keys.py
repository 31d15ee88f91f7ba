"""The keys that sign calls: the owner's pair, and sessions of roles, of instances and of other callers."""

from __future__ import annotations

import json
import os
import secrets
import string
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bake import redaction
from bake.aws import AccessKey
from bake.errors import UsageError
from bake.localcloud.settings import ACCOUNT

Clock = Callable[[], datetime]

FILE = "credentials.json"
# As on EC2: a session lasts six hours, and is renewed before SDKs ask for a new one.
LASTING = timedelta(hours=6)
RENEWED = timedelta(minutes=15)
# How long an expired session is answered as expired rather than as unknown.
REMEMBERED = timedelta(hours=24)
CALLER = "bake"  # the session of a role that somebody took who named none
_ALPHABET = string.ascii_uppercase + "234567"


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Principal:
    """Who calls: the owner (`role` is ""), an instance by its role, or whoever took a role in a `session`."""

    role: str = ""
    instance: str = ""
    session: str = ""

    @property
    def is_owner(self) -> bool:
        return not self.role

    @property
    def arn(self) -> str:
        """The caller as STS names it."""
        if self.is_owner:
            return f"arn:aws:iam::{ACCOUNT}:root"
        return f"arn:aws:sts::{ACCOUNT}:assumed-role/{self.role}/{self.session_name}"

    @property
    def session_name(self) -> str:
        """The name of the session of the role: an instance's id, or what the caller named it."""
        return self.instance or self.session


@dataclass(frozen=True)
class Key:
    """A key pair; a role's also has a session token and an expiry."""

    id: str
    secret: str = field(repr=False)
    principal: Principal
    token: str = field(default="", repr=False)
    expires: datetime | None = None

    def expired(self, at: datetime) -> bool:
        """Whether it has expired."""
        return self.expires is not None and at >= self.expires


class Keys:
    """All keys of one cloud, kept in memory only; thread-safe.

    `lives` tells whether an instance is there still. A terminated one's sessions end with it: AWS lets them
    expire, but here its address is given to others, and nobody is left who may know them.
    """

    def __init__(self, lives: Callable[[str], bool] = lambda instance: True, clock: Clock = now) -> None:
        self._lives = lives
        self._clock = clock
        self._lock = threading.Lock()
        self.owner = Key(_id("AKIA"), _secret(), Principal())
        redaction.register(self.owner.secret)
        self._sessions: dict[str, Key] = {}

    def of_role(self, instance: str, role: str) -> Key:
        """The instance's current session, renewed when less than 15 minutes of it are left."""
        return self._session(Principal(role, instance))

    def of_caller(self, role: str, session: str = CALLER) -> Key:
        """The current session of a role that belongs to no instance, as sts:AssumeRole would make it."""
        return self._session(Principal(role, session=session))

    def _session(self, asked: Principal) -> Key:
        with self._lock:
            self._forget()
            soon = self._clock() + RENEWED
            for key in reversed(self._sessions.values()):
                if key.principal == asked and not key.expired(soon):
                    return key
            key = Key(_id("ASIA"), _secret(), asked, secrets.token_urlsafe(192), self._clock() + LASTING)
            redaction.register(key.secret)
            redaction.register(key.token)
            self._sessions[key.id] = key
            return key

    def find(self, identity: str) -> Key | None:
        """The key with this id, even if it has expired; None for an unknown id or a terminated instance's."""
        if secrets.compare_digest(identity.encode(), self.owner.id.encode()):
            return self.owner
        with self._lock:
            key = self._sessions.get(identity)
        return key if key is not None and self._there(key.principal) else None

    def _there(self, principal: Principal) -> bool:
        return not principal.instance or self._lives(principal.instance)

    def _forget(self) -> None:
        at = self._clock() - REMEMBERED
        kept = {identity: key for identity, key in self._sessions.items() if not key.expired(at)}
        self._sessions = {one: key for one, key in kept.items() if self._there(key.principal)}


def write(directory: Path, key: Key) -> None:
    """Write the owner's pair to a file that has mode 0600 from the start."""
    partial = directory / f"{FILE}.partial"
    partial.unlink(missing_ok=True)
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump({"AccessKeyId": key.id, "SecretAccessKey": key.secret}, file)
    partial.replace(directory / FILE)


def read(directory: Path) -> AccessKey:
    """Read the owner's pair of the cloud that is up; UsageError if there is none."""
    try:
        content = json.loads((directory / FILE).read_text())
    except FileNotFoundError as error:
        raise UsageError(
            f"{directory / FILE} is missing: the local cloud is going down, or an earlier version started it",
            hint="take it down: bake local down",
        ) from error
    redaction.register(content["SecretAccessKey"])
    return AccessKey(content["AccessKeyId"], content["SecretAccessKey"])


def remove(directory: Path) -> None:
    """Remove the pair's file when the cloud goes down."""
    for name in (FILE, f"{FILE}.partial"):
        (directory / name).unlink(missing_ok=True)


def _id(prefix: str) -> str:
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(16))


def _secret() -> str:
    return secrets.token_urlsafe(30)  # 40 characters, as AWS's
