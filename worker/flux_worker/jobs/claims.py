"""Claims: an S3 object per job, which only one worker can create and must renew while it works.

S3's clock decides its age, so that workers with different clocks agree. Whoever stores why a job failed marks
its claim, or leaves a claim that is nothing but the mark. So a worker that succeeds later learns from its own
claim that there is a failure to remove, and need not ask after each job.
"""

from __future__ import annotations

import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from ..aws.errors import error_code
from ..errors import ClaimHeld, LeaseLost
from ..jobspec.keys import claim_key
from .results import ABSENT, EXISTS_OR_CHANGED, FORBIDDEN, JSON

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

_TRIES = 5
_MARK = "failed"
_ROUNDING_SECONDS = 1  # the age is the difference of two times in whole seconds


@dataclass(frozen=True)
class _Found:
    """A claim as stored in S3; `age` in seconds, by S3's clock."""

    content: dict[str, Any]
    etag: str
    age: float

    @property
    def token(self) -> str | None:
        """Whose it is; None: nobody's."""
        return str(self.content["token"]) if "token" in self.content else None

    @property
    def marked(self) -> bool:
        """Whether a failure of the job may be stored."""
        return bool(self.content.get(_MARK))


@dataclass
class Claim:
    """A claim that this worker holds. One thread may renew it while another checks it."""

    s3: S3Client
    bucket: str
    key: str
    lease_seconds: float
    token: str
    """Identifies this worker's work on the job, also after a restart."""
    marked: bool = field(default=False, init=False)
    """Whether a failure of the job may be stored, which must be removed if the job succeeds."""
    _etag: str = field(default="", init=False)
    _writes: int = field(default=0, init=False)
    _ends: float = field(default=0.0, init=False)
    _released: bool = field(default=False, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def expired(self) -> bool:
        """Whether the lease ended without renewal: another worker may have taken over."""
        return _now() >= self._ends

    def confirm(self) -> None:
        """Make sure that nobody else may take the job over within half a lease. Raises as `renew` does.

        Until the lease ends nobody may: so a claim that was written lately needs no call.
        """
        if _now() >= self._ends - self.lease_seconds / 2:
            self.renew()

    def renew(self) -> None:
        """Restart the lease. Raises LeaseLost if another worker took over or the claim is gone."""
        with self._lock:
            if not self._released and not self.write(IfMatch=self._etag):
                found = self.look()
                if found is None or found.token != self.token:
                    self._ends = 0.0
                    raise LeaseLost("another worker took the job over")
                # An answer was lost, or a failure was stored: the claim is still ours, as old as S3 says.
                self._adopt(found)
                self.set_held(found.etag, _now() - found.age - _ROUNDING_SECONDS)

    def release(self) -> bool:
        """Give the claim up, and leave its mark if it has one; False if it belongs to another worker."""
        with self._lock:
            return self._end(self._leave_mark if self.marked else self._removed)

    def remove(self) -> bool:
        """Remove the claim of a job that succeeded, unless it belongs to another worker.

        False if a failure was stored meanwhile: remove that, and call again.
        """
        with self._lock:
            known = self.marked
            self._end(lambda: self.marked > known or self._removed())
            return self.marked == known

    def _end(self, act: Callable[[], bool]) -> bool:
        """Try `act` until it holds; False if the claim belongs to another worker."""
        while not act():
            found = self.look()
            if found is None or found.token != self.token:
                self._released = True
                return False
            self._adopt(found)
        self._released = True
        return True

    def _adopt(self, found: _Found) -> None:
        """Go on from what is in S3: the answer to a write of ours was lost, or somebody marked the claim."""
        self._etag = found.etag
        self.marked |= found.marked

    def _removed(self) -> bool:
        """Remove the claim; False if it changed since this worker last wrote it."""
        return _delete(self.s3, self.bucket, self.key, self._etag)

    def _leave_mark(self) -> bool:
        """Put the bare mark in the claim's place; False if it changed since this worker last wrote it."""
        return _put(self.s3, self.bucket, self.key, {_MARK: True}, IfMatch=self._etag) is not None

    def write(self, **condition: Any) -> bool:
        """Write the claim; False if the condition does not hold."""
        began = _now()
        self._writes += 1
        # Each write differs, so that its ETag shows whether anybody, even this worker, wrote since.
        content = {"token": self.token, "write": self._writes, "host": socket.gethostname()}
        mark = {_MARK: True} if self.marked else {}
        etag = _put(self.s3, self.bucket, self.key, content | mark, **condition)
        if etag:
            self.set_held(etag, began)
        return etag is not None

    def set_held(self, etag: str, since: float) -> None:
        """Note that the claim is ours since this time, of `_now`."""
        self._etag, self._ends = etag, since + self.lease_seconds

    def look(self) -> _Found | None:
        """Read the claim from S3, whoever holds it; None if there is none."""
        return _look(self.s3, self.bucket, self.key)


def _now() -> float:
    """Seconds of a clock that also runs while the machine is suspended, as the lease does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _put(s3: S3Client, bucket: str, key: str, content: dict[str, Any], **condition: Any) -> str | None:
    """Write a claim; returns its ETag, or None if the condition does not hold."""
    body = json.dumps(content).encode()
    try:
        return s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=JSON, **condition)["ETag"]
    except ClientError as error:
        if error_code(error) in EXISTS_OR_CHANGED | ABSENT:
            return None
        raise


def _delete(s3: S3Client, bucket: str, key: str, etag: str) -> bool:
    """Delete a claim; False if it changed."""
    try:
        s3.delete_object(Bucket=bucket, Key=key, IfMatch=etag)
    except ClientError as error:
        if error_code(error) in EXISTS_OR_CHANGED:
            return False
        if error_code(error) in FORBIDDEN:
            log.warning("cannot remove %s: the worker's role needs s3:DeleteObject", key)
        elif error_code(error) not in ABSENT:
            raise
    return True


def _look(s3: S3Client, bucket: str, key: str) -> _Found | None:
    """Read a claim; None if there is none."""
    try:
        answer = s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error_code(error) in ABSENT:
            return None
        raise
    now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    age = (now - answer["LastModified"]).total_seconds()
    return _Found(_content(answer["Body"].read()), answer["ETag"], age)


def _content(body: bytes) -> dict[str, Any]:
    """What a claim says; nothing if it is none."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def is_held(body: bytes) -> bool:
    """Whether the object under a claim's key says that a worker holds the job."""
    return "token" in _content(body)


@dataclass(frozen=True)
class Claims:
    """Creates claims under one prefix of a bucket; one older than `lease_seconds` may be taken over."""

    s3: S3Client
    bucket: str
    prefix: str
    lease_seconds: float

    def take(self, job_id: str, token: str) -> Claim:
        """Claim a job. Raises ClaimHeld if another worker holds it.

        A claim with this `token` is this worker's own: from before a restart, or from a try whose answer was
        lost.
        """
        claim = Claim(self.s3, self.bucket, claim_key(self.prefix, job_id), self.lease_seconds, token)
        condition = {"IfNoneMatch": "*"}
        for _ in range(_TRIES):
            if claim.write(**condition):
                return claim
            found = claim.look()
            if found is None:
                condition = {"IfNoneMatch": "*"}
                continue
            left = self.lease_seconds + _ROUNDING_SECONDS - found.age
            given_up = found.marked and found.token is None
            if left > 0 and found.token != token and not given_up:
                raise ClaimHeld(left)
            claim.marked = found.marked
            condition = {"IfMatch": found.etag}
        raise ClaimHeld(self.lease_seconds)  # other workers were quicker each time

    def mark(self, job_id: str) -> None:
        """Mark a job's claim, whoever holds it, or leave the bare mark: a failure is about to be stored."""
        key = claim_key(self.prefix, job_id)
        for _ in range(_TRIES):
            if _put(self.s3, self.bucket, key, {_MARK: True}, IfNoneMatch="*"):
                return
            found = _look(self.s3, self.bucket, key)
            if found is None:
                continue
            if found.marked or _put(
                self.s3, self.bucket, key, found.content | {_MARK: True}, IfMatch=found.etag
            ):
                return
        log.warning("%s changes all the time: a failure may be stored although the job succeeds", key)

    def unmark(self, job_id: str) -> None:
        """Remove a bare mark: no failure is stored. A claim that a worker holds is left to that worker."""
        key = claim_key(self.prefix, job_id)
        found = _look(self.s3, self.bucket, key)
        if found and found.marked and found.token is None:
            _delete(self.s3, self.bucket, key, found.etag)


def new_token() -> str:
    """A token for one worker's work on one job."""
    return secrets.token_hex(16)
