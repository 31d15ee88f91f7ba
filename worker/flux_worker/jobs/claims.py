"""Claims: an S3 object per job, which only one worker can create and must renew while it works.

S3's clock decides its age, so that workers with different clocks agree.
"""

from __future__ import annotations

import json
import logging
import secrets
import socket
import threading
import time
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
_ROUNDING_SECONDS = 1  # the age is the difference of two times in whole seconds


@dataclass(frozen=True)
class _Found:
    """A claim as stored in S3; `age` in seconds, by S3's clock."""

    token: str | None
    etag: str
    age: float


@dataclass
class Claim:
    """A claim that this worker holds. One thread may renew it while another checks it."""

    s3: S3Client
    bucket: str
    key: str
    lease_seconds: float
    token: str
    """Identifies this worker's work on the job, also after a restart."""
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
                # An answer was lost: the claim is still ours, and as old as S3 says.
                self.set_held(found.etag, _now() - found.age - _ROUNDING_SECONDS)

    def release(self) -> None:
        """Remove the claim, unless it belongs to another worker."""
        with self._lock:
            while not self._removed():
                found = self.look()
                if found is None or found.token != self.token:
                    break
                self._etag = found.etag  # a renewal succeeded, but its answer was lost
            self._released = True

    def _removed(self) -> bool:
        """Remove the claim; False if it changed since this worker last wrote it."""
        try:
            self.s3.delete_object(Bucket=self.bucket, Key=self.key, IfMatch=self._etag)
        except ClientError as error:
            if error_code(error) in EXISTS_OR_CHANGED:
                return False
            if error_code(error) in FORBIDDEN:
                log.warning("cannot remove %s: the worker's role needs s3:DeleteObject", self.key)
            elif error_code(error) not in ABSENT:
                raise
        return True

    def write(self, **condition: Any) -> bool:
        """Write the claim; False if the condition does not hold."""
        began = _now()
        self._writes += 1
        # Each write differs, so that its ETag shows whether anybody, even this worker, wrote since.
        content = {"token": self.token, "write": self._writes, "host": socket.gethostname()}
        body = json.dumps(content).encode()
        try:
            answer = self.s3.put_object(
                Bucket=self.bucket, Key=self.key, Body=body, ContentType=JSON, **condition
            )
        except ClientError as error:
            if error_code(error) in EXISTS_OR_CHANGED | ABSENT:
                return False
            raise
        self.set_held(answer["ETag"], began)
        return True

    def set_held(self, etag: str, since: float) -> None:
        """Note that the claim is ours since this time, of `_now`."""
        self._etag, self._ends = etag, since + self.lease_seconds

    def look(self) -> _Found | None:
        """Read the claim from S3, whoever holds it; None if there is none."""
        try:
            answer = self.s3.get_object(Bucket=self.bucket, Key=self.key)
        except ClientError as error:
            if error_code(error) in ABSENT:
                return None
            raise
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        age = (now - answer["LastModified"]).total_seconds()
        return _Found(_token(answer["Body"].read()), answer["ETag"], age)


def _now() -> float:
    """Seconds of a clock that also runs while the machine is suspended, as the lease does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _token(body: bytes) -> str | None:
    try:
        return str(json.loads(body)["token"])
    except (ValueError, KeyError, TypeError):
        return None


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
            if left > 0 and found.token != token:
                raise ClaimHeld(left)
            condition = {"IfMatch": found.etag}
        raise ClaimHeld(self.lease_seconds)  # other workers were quicker each time


def new_token() -> str:
    """A token for one worker's work on one job."""
    return secrets.token_hex(16)
