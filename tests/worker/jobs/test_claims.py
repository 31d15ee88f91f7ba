"""Claims in S3: one worker holds a job at a time, and a dead worker's claim ends."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from flux_worker.errors import ClaimHeld, LeaseLost
from flux_worker.jobs.claims import Claim, Claims, new_token
from flux_worker.jobs.lease import MessageLease
from flux_worker.jobs.queue import JobQueue, Message
from tests.worker.worker_harness import CallLog, conflict


@pytest.fixture
def claims(aws: Any) -> Claims:
    return Claims(aws.client("s3"), aws.bucket, f"{new_token()}/", lease_seconds=30)


def test_a_job_has_one_claim(claims: Claims) -> None:
    claim = claims.take("cat", "mine")
    assert not claim.expired()
    with pytest.raises(ClaimHeld) as held:
        claims.take("cat", "another")
    assert 5 < held.value.seconds_left <= 31
    claims.take("dog", "another")


def test_a_claim_given_up_is_anybodys(claims: Claims) -> None:
    claims.take("cat", "mine").release()
    claims.take("cat", "another")


def test_a_claim_that_is_renewed_does_not_end(aws: Any) -> None:
    """Its lease begins anew; by a long one that can be told on a busy host, too."""
    claims = Claims(aws.client("s3"), aws.bucket, f"{new_token()}/", lease_seconds=600)
    claim = claims.take("cat", "mine")
    time.sleep(2.1)
    before = time.monotonic()
    claim.renew()
    with pytest.raises(ClaimHeld) as held:
        claims.take("cat", "another")
    assert held.value.seconds_left >= 600 - (time.monotonic() - before)


def test_a_claim_that_is_not_renewed_is_taken_over_once(aws: Any) -> None:
    claims = Claims(aws.client("s3"), aws.bucket, f"{new_token()}/", lease_seconds=1)
    dead = claims.take("cat", "dead")
    time.sleep(2.1)  # S3's times are whole seconds
    assert dead.expired()
    heir = claims.take("cat", "heir")
    with pytest.raises(ClaimHeld):  # by a longer lease, which does not end while the host is busy
        replace(claims, lease_seconds=30).take("cat", "late")
    with pytest.raises(LeaseLost, match="another worker took the job over"):
        dead.renew()
    dead.release()  # it can no longer remove what is the heir's
    heir.renew()


def test_a_worker_knows_its_own_claim_again(claims: Claims) -> None:
    """After a restart, and where the answer to its first try was lost."""
    before = claims.take("cat", "mine")
    claims.take("cat", "mine").renew()
    with pytest.raises(ClaimHeld):
        claims.take("cat", "another")
    before.renew()  # finds its own token, and goes on
    before.release()
    claims.take("cat", "another")


def test_a_claim_that_was_removed_is_lost(claims: Claims, aws: Any) -> None:
    claim = claims.take("cat", "mine")
    aws.client("s3").delete_object(Bucket=aws.bucket, Key=claim.key)
    with pytest.raises(LeaseLost):
        claim.renew()


def test_what_is_no_claim_ends_as_one(claims: Claims, aws: Any) -> None:
    key = f"{claims.prefix}cat=claim"
    aws.client("s3").put_object(Bucket=aws.bucket, Key=key, Body=b"\xff not JSON")
    with pytest.raises(ClaimHeld):
        claims.take("cat", "mine")


def test_a_claim_is_removed_although_the_answer_to_its_renewal_was_lost(claims: Claims, aws: Any) -> None:
    claim = claims.take("cat", "mine")
    claims.take("cat", "mine")  # writes the claim anew, and `claim` hears nothing of it
    claim.release()
    claims.take("cat", "another")


class Undecided:
    """S3, but one kind of call meets another writer's each time; gives up after a hundred."""

    def __init__(self, s3: Any, method: str) -> None:
        self._s3, self._method, self.calls = s3, method, 0

    def __getattr__(self, name: str) -> Any:
        return self._conflict if name == self._method else getattr(self._s3, name)

    def _conflict(self, **_parameters: Any) -> None:
        self.calls += 1
        if self.calls > 100:
            pytest.fail("asked again and again without a pause")
        raise conflict()


def test_an_undecided_write_says_nothing_about_the_claim(claims: Claims) -> None:
    """Whoever insists asks again after a pause: the job is neither lost nor another worker's."""
    for method, act in (("put_object", Claim.renew), ("delete_object", Claim.release)):
        claim = claims.take("cat", "mine")
        s3, claim.s3 = claim.s3, Undecided(claim.s3, method)  # type: ignore[assignment]
        with pytest.raises(ClientError, match="ConditionalRequestConflict"):
            act(claim)
        claim.s3 = s3
        act(claim)
    undecided = Claims(Undecided(claims.s3, "put_object"), claims.bucket, claims.prefix, 30)  # type: ignore[arg-type]
    with pytest.raises(ClientError, match="ConditionalRequestConflict"):
        undecided.take("cat", "mine")


def test_a_released_claim_is_not_renewed(claims: Claims) -> None:
    claim = claims.take("cat", "mine")
    claim.release()
    claim.renew()
    claims.take("cat", "another")


def test_many_workers_want_one_job(claims: Claims) -> None:
    """moto does not make conditional writes one after the other, as S3 does: here a lock does."""
    turn = threading.Lock()
    put = claims.s3.put_object

    class InTurn:
        def __getattr__(self, name: str) -> Any:
            return getattr(claims.s3, name)

        def put_object(self, **parameters: Any) -> Any:
            with turn:
                return put(**parameters)

    def take(number: int) -> bool:
        rival = Claims(InTurn(), claims.bucket, claims.prefix, claims.lease_seconds)  # type: ignore[arg-type]
        try:
            rival.take("cat", str(number))
        except ClaimHeld:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(16))) == 1


def lost(lease: MessageLease) -> str:
    """What is said once a sign of life did not succeed."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            lease.check()
        except LeaseLost as lost:
            return str(lost)
        time.sleep(0.05)
    pytest.fail("nothing was noticed")


def refused(claims: Claims) -> bool:
    """Whether another worker is refused the job."""
    try:
        claims.take("cat", "another")
    except ClaimHeld:
        return True
    return False


def held(lease: MessageLease) -> bool:
    """Whether the job is this worker's, as far as it knows."""
    try:
        lease.check()
    except LeaseLost:
        return False
    return True


class TestHold:
    """Message and claim are kept for as long as the work goes on."""

    @pytest.fixture
    def aws(self, new_aws: Any) -> Any:
        return new_aws()

    @pytest.fixture
    def queue(self, aws: Any) -> JobQueue:
        return JobQueue(aws.client("sqs"), aws.jobs, visibility_seconds=2)

    @pytest.fixture
    def message(self, aws: Any, queue: JobQueue) -> Message:
        aws.send("a job")
        message = queue.receive(5)
        assert message
        return message

    def test_nobody_else_gets_the_job(self, new_aws: Any) -> None:
        assert any(self._kept(new_aws()) for _ in range(10)), "the host was never at rest for so long"

    def _kept(self, aws: Any) -> bool:
        """For more than twice as long as a lease lasts; False where the host paused, which ends leases."""
        queue = JobQueue(aws.client("sqs"), aws.jobs, visibility_seconds=3)
        claims = Claims(aws.client("s3"), aws.bucket, f"{new_token()}/", lease_seconds=3)
        aws.send("a job")
        message = queue.receive(5)
        assert message
        with MessageLease(queue, message) as lease:
            lease.claim = claims.take("cat", "mine")
            longest, before = 0.0, time.monotonic()
            deadline = before + 7
            while before < deadline:
                time.sleep(0.3)
                mine = not queue.receive(0) and refused(claims) and held(lease)
                now = time.monotonic()
                longest, before = max(longest, now - before), now
                if longest > 1:  # a sign of life that is late by two seconds is too late
                    return False
                assert mine
        return True

    def test_a_claim_taken_over_is_noticed(self, aws: Any, queue: JobQueue, message: Message) -> None:
        claims = Claims(aws.client("s3"), aws.bucket, f"{new_token()}/", lease_seconds=30)
        with MessageLease(queue, message) as lease:
            lease.claim = claims.take("cat", "mine")
            aws.client("s3").put_object(Bucket=aws.bucket, Key=lease.claim.key, Body=b'{"token": "another"}')
            assert "another worker took the job over" in lost(lease)

    def test_a_message_that_is_gone_is_noticed(self, queue: JobQueue, message: Message, aws: Any) -> None:
        with MessageLease(queue, message) as lease:
            aws.client("sqs").delete_message(QueueUrl=aws.jobs, ReceiptHandle=message.receipt)
            assert "this worker no longer holds the message" in lost(lease)

    def test_a_claim_that_could_not_be_renewed_counts_as_lost(self, queue: JobQueue, aws: Any) -> None:
        claims = Claims(aws.client("s3"), aws.bucket, f"{new_token()}/", lease_seconds=30)
        lease = MessageLease(queue, Message("", "no receipt"))  # not entered: nothing renews
        lease.claim = claims.take("cat", "mine")
        lease.check()
        lease.claim.set_held("its ETag", since=time.clock_gettime(time.CLOCK_BOOTTIME) - 30)
        with pytest.raises(LeaseLost, match="could not be renewed in time"):
            lease.check()

    def test_what_is_handed_back_can_be_had_at_once(
        self, aws: Any, queue: JobQueue, message: Message
    ) -> None:
        claims = Claims(aws.client("s3"), aws.bucket, f"{new_token()}/", lease_seconds=30)
        with MessageLease(queue, message) as lease:
            lease.claim = claims.take("cat", "mine")
            lease.return_to_queue()
            again = queue.receive(5)
            assert again
            assert again.receives == 2
            claims.take("cat", "another")
            time.sleep(1)  # nothing renews either any more
            with pytest.raises(ClaimHeld):
                claims.take("cat", "third")


class TestConfirming:
    """What is known of a claim needs no call."""

    @pytest.fixture
    def calls(self, claims: Claims) -> Any:
        call_log = CallLog()
        with call_log.watch(claims.s3):
            yield call_log.calls

    def test_a_claim_that_was_written_lately_is_held(self, claims: Claims, calls: list[str]) -> None:
        claim = claims.take("cat", "mine")
        claim.confirm()
        assert calls == ["PutObject =claim"]

    def test_one_whose_lease_is_half_over_is_renewed(self, claims: Claims, calls: list[str]) -> None:
        claim = claims.take("cat", "mine")
        claim.set_held(claim._etag, time.clock_gettime(time.CLOCK_BOOTTIME) - claims.lease_seconds / 2)
        claim.confirm()
        assert calls == ["PutObject =claim"] * 2

    def test_one_that_was_lost_stays_lost(self, claims: Claims, aws: Any) -> None:
        claim = claims.take("cat", "mine")
        aws.client("s3").put_object(Bucket=aws.bucket, Key=claim.key, Body=b'{"token": "another"}')
        for act in (claim.renew, claim.confirm):
            with pytest.raises(LeaseLost, match="another worker took the job over"):
                act()
