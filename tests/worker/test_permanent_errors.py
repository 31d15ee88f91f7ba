"""A permanent refusal by AWS affects only its own job, whose images are kept."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

import flux_worker.breaker
import flux_worker.jobs.delivery
import flux_worker.jobs.retry
import flux_worker.settling
import flux_worker.worker
from flux_worker.backoff import Backoff
from flux_worker.jobs.outbox import Outbox
from flux_worker.worker import Worker
from tests.worker.worker_harness import BODY, FakeModel, WorkerHarness

FORBIDDEN = BODY.replace('"one"', '"bad"').replace("}", ', "s3_prefix": "forbidden/"}')


@pytest.fixture(autouse=True)
def _pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flux_worker.jobs.retry, "PAUSES", Backoff(0.01, 0.01))
    monkeypatch.setattr(flux_worker.worker, "LONG_POLL_SECONDS", 1)


@contextlib.contextmanager
def refusing(client: Any, operation: str, where: Callable[[str], bool], code: str) -> Iterator[None]:
    """A bucket policy, or a permission that is missing: stands for AWS's answer to some calls."""

    def refuse(params: Any, **_: Any) -> None:
        if where(params["url_path"]):
            raise ClientError({"Error": {"Code": code, "Message": "no"}}, operation)

    client.meta.events.register(f"before-call.*.{operation}", refuse)
    try:
        yield
    finally:
        client.meta.events.unregister(f"before-call.*.{operation}", refuse)


def refusing_prefix(worker: Worker, code: str = "AccessDenied") -> contextlib.AbstractContextManager[None]:
    return refusing(worker.delivery.results.s3, "PutObject", lambda path: "/forbidden/" in path, code)


@pytest.mark.parametrize("code", ["AccessDenied", "KMS.NotFoundException", "NoSuchBucket"])
def test_a_prefix_that_is_refused_is_set_aside_and_the_next_job_drawn(
    harness: WorkerHarness, code: str
) -> None:
    with harness.worker() as worker, refusing_prefix(worker, code):
        harness.aws.send(FORBIDDEN)
        worker.handle(harness.receive())
        assert worker.delivery.outbox.job_ids() == ["bad"]
        worker.handle(harness.message())
        status = worker.monitor.status()
        assert "blocked" not in status
        assert (status["jobs"]["set_aside"], status["jobs"]["drawn"]) == (1, 1)
        assert worker.refusal_breaker.remaining() == 0
    assert "images/one.json" in harness.stored()
    assert not [key for key in harness.stored() if key.endswith("=claim")]
    assert harness.aws.left() == 1


def test_what_passes_is_waited_for(harness: WorkerHarness) -> None:
    tries: list[int] = []

    def at_the_third_try(_: str) -> bool:
        tries.append(1)
        return len(tries) <= 3

    with harness.worker() as worker:
        results = worker.delivery.results
        with refusing(results.s3, "PutObject", at_the_third_try, "ExpiredToken"):
            worker.handle(harness.message())
        assert worker.monitor.status()["jobs"]["drawn"] == 1
    assert harness.aws.left() == 0


def test_where_the_next_is_refused_too_nothing_is_received_and_the_status_says_why(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flux_worker.jobs.delivery, "ASIDE_PAUSES", Backoff(0.2))
    fake_model = FakeModel()
    names = [f"job-{number}" for number in range(4)]
    for name in names:
        harness.aws.send(BODY.replace('"one"', f'"{name}"'))
    with harness.worker(model=fake_model) as worker:
        worker.monitor.ready()
        events = worker.delivery.results.events
        with refusing(events, "PutEvents", lambda _: True, "AccessDeniedException"):
            with contextlib.suppress(AssertionError):
                harness.run_until(worker, lambda: len(worker.monitor.status().get("blocked", [])) > 0)
            status = worker.monitor.status()
            assert fake_model.drawn == 2
            assert status["ready"] is False
            assert "events:PutEvents is refused: announcing: " in status["blocked"][0]
            assert worker.monitor.registry.get_sample_value("flux_ready") == 0
            assert (
                worker.monitor.registry.get_sample_value("flux_breaker_trips_total", {"kind": "refusal"}) == 1
            )
    assert harness.aws.left() == 4
    # What was refused is told before anything else is received, and nothing is drawn again.


def test_it_goes_on_as_soon_as_it_is_mended(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flux_worker.jobs.delivery, "ASIDE_PAUSES", Backoff(0.2))
    monkeypatch.setattr(flux_worker.worker, "ASIDE_PAUSES", Backoff(0.2))
    monkeypatch.setattr(flux_worker.breaker, "_PAUSES", Backoff(3_000))
    fake_model = FakeModel()
    names = [f"job-{number}" for number in range(4)]
    for name in names:
        harness.aws.send(BODY.replace('"one"', f'"{name}"'))
    refused = [True]

    def blocked_or_done() -> bool:
        if worker.monitor.status().get("blocked"):
            refused[0] = False  # somebody mends it
        return fake_model.drawn == 4 and harness.aws.left() == 0

    with harness.worker(model=fake_model) as worker:
        events = worker.delivery.results.events
        with refusing(events, "PutEvents", lambda _: refused[0], "AccessDeniedException"):
            harness.run_until(worker, blocked_or_done)
        assert worker.delivery.outbox.job_ids() == []
    assert fake_model.drawn == 4
    assert sorted(event["detail"]["id"] for event in harness.events()) == names


def test_a_result_whose_bucket_is_gone_does_not_stop_the_worker_that_starts_with_it(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flux_worker.settling, "_REFUSED_RETURNS", Backoff(3_000))
    with harness.worker() as worker:
        with refusing(worker.delivery.results.s3, "PutObject", lambda path: ".png" in path, "NoSuchBucket"):
            worker.handle(harness.message())
        [entry] = (harness.folder / "a/outbox").glob("*.entry")
    record = json.loads((entry / "record.json").read_text())
    (entry / "record.json").write_text(json.dumps(record | {"bucket": "a-bucket-that-is-gone"}))
    harness.aws.send(BODY.replace('"one"', '"two"'))
    fake_model = FakeModel()
    with harness.worker(model=fake_model) as worker:
        harness.run_until(worker, lambda: fake_model.drawn == 1)
        assert worker.delivery.outbox.job_ids() == ["one"], "what is finished is never thrown away"
    assert "images/two.json" in harness.stored()


def test_what_no_disk_takes_waits_in_memory(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flux_worker.jobs.delivery, "ASIDE_PAUSES", Backoff(0))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flux_worker.jobs.outbox._write", full)
    fake_model = FakeModel()
    with harness.worker(model=fake_model) as worker:
        with refusing_prefix(worker):
            harness.aws.send(FORBIDDEN)
            worker.handle(harness.receive())
        assert worker.delivery.deliver_pending() == 1
        assert worker.delivery.outbox.job_ids() == []
    assert fake_model.drawn == 1
    assert harness.aws.left() == 0
    assert "images/bad.json" in harness.stored()


def test_a_worker_whose_claims_are_refused_draws_nothing(harness: WorkerHarness) -> None:
    fake_model = FakeModel()
    with harness.worker(model=fake_model) as worker:
        s3 = worker.delivery.results.s3
        with refusing(s3, "PutObject", lambda path: "claim" in path, "AccessDenied"):
            for name in ("one", "two"):
                worker.handle(harness.message(BODY.replace('"one"', f'"{name}"')))
        assert fake_model.drawn == 0
        assert worker.refusal_breaker.remaining() > 0
        assert "s3:PutObject is refused: claiming the job" in worker.refusal_breaker.why


BAD = '{"id": "bad", "prompt": "a cat", "width": 7}'


def test_a_refused_job_whose_failure_cannot_be_stored_ends_no_worker(harness: WorkerHarness) -> None:
    """The bucket is gone: the next worker that receives the message may store it."""
    message = harness.message(BAD)
    with harness.worker() as worker:
        with refusing(worker.delivery.results.s3, "GetObject", lambda _: True, "NoSuchBucket"):
            worker.handle(message)
        assert worker.refusal_breaker.suspects
        harness.make_visible(message)
        worker.handle(harness.receive())
        assert not worker.refusal_breaker.suspects
    assert [event["detail"]["id"] for event in harness.events()] == ["bad"]
    assert harness.aws.left() == 0


def test_a_refused_job_for_whose_event_there_is_no_time_comes_back(harness: WorkerHarness, stop: Any) -> None:
    message = harness.message(BAD)
    with stop.deferred(), harness.worker() as worker:
        stop.request("SIGTERM", 0)
        with refusing(worker.delivery.results.events, "PutEvents", lambda _: True, "ThrottlingException"):
            worker.handle(message)
    assert harness.receive().receives == 2


def test_refusals_in_a_row_pause_longer_each_time_and_one_that_is_taken_ends_it() -> None:
    from flux_worker.breaker import RefusalBreaker
    from flux_worker.errors import CallRefused

    refusal_breaker, error = RefusalBreaker(), CallRefused("s3:PutObject", "no")
    assert refusal_breaker.refused("one", error) == 0
    assert refusal_breaker.refused("one", error) == 0, "its own fault, as far as anybody knows"
    pauses = [round(refusal_breaker.refused("two", error)) for _ in range(7)]
    assert pauses == [30, 60, 120, 240, 480, 900, 900]
    refusal_breaker.accepted()
    assert refusal_breaker.remaining() == 0
    assert refusal_breaker.refused("three", error) == 0


class TestTheLastReceive:
    """A job on its way to the dead-letter queue is told of, since nobody else will."""

    def dead(self, harness: WorkerHarness, url: str) -> list[str]:
        found = harness.aws.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        return [message["Body"] for message in found.get("Messages", [])]

    def test_a_drawing_that_fails(self, harness: WorkerHarness) -> None:
        dead = harness.dead_letters(1)

        def fail(_: int) -> None:
            raise RuntimeError("out of luck\nand more")

        with harness.worker(model=FakeModel(fail), max_receives=1) as worker:
            worker.handle(harness.message())
            assert worker.queue.receive(0) is None
        [event] = harness.events()
        assert event["detail-type"] == "FluxImageFailed"
        assert event["detail"]["dead_lettered"] is True
        assert event["detail"]["reason"] == "it failed 1 times, the last time by RuntimeError: out of luck"
        assert event["detail"]["sidecar"] == "images/one=failed.json"
        s3 = harness.aws.client("s3")
        body = s3.get_object(Bucket=harness.aws.bucket, Key="images/one=failed.json")["Body"].read()
        assert json.loads(body)["dead_lettered"] is True
        assert self.dead(harness, dead) == [BODY]

    def test_an_error_that_quotes_the_prompt(self, harness: WorkerHarness) -> None:
        prompt = "a portrait of somebody whom nobody else is to hear of"

        def fail(_: int) -> None:
            raise ValueError(f"cannot tokenize {prompt[:30]}…")

        with harness.worker(model=FakeModel(fail), max_receives=1) as worker:
            worker.handle(harness.message(BODY.replace("a cat", prompt)))
        [event] = harness.events()
        assert event["detail"]["reason"] == "it failed 1 times, the last time by ValueError"

    def test_a_result_that_aws_refuses(self, harness: WorkerHarness) -> None:
        dead = harness.dead_letters(1)
        with harness.worker(max_receives=1) as worker, refusing_prefix(worker):
            worker.handle(harness.message(FORBIDDEN))
            assert worker.queue.receive(0) is None
        [event] = harness.events()
        assert (event["detail"]["id"], event["detail"]["dead_lettered"]) == ("bad", True)
        assert event["detail"]["reason"] == "AWS refuses it, the last time s3:PutObject"
        assert self.dead(harness, dead) == [FORBIDDEN]

    def test_what_there_was_no_time_for(self, harness: WorkerHarness, stop: Any) -> None:
        harness.dead_letters(1)
        message = harness.message()
        with stop.deferred(), harness.worker(max_receives=1) as worker:
            stop.request("spot", 60)
            worker.handle(message)
        [event] = harness.events()
        assert event["detail"]["dead_lettered"] is True

    def test_what_is_drawn_but_cannot_be_deleted_did_not_fail(self, harness: WorkerHarness) -> None:
        with (
            harness.worker(max_receives=1) as worker,
            refusing(worker.queue.sqs, "DeleteMessage", lambda _: True, "AccessDenied"),
        ):
            worker.handle(harness.message())
        assert [event["detail-type"] for event in harness.events()] == ["FluxImageReady"]
        assert "images/one=failed.json" not in harness.stored()

    def test_an_earlier_receive_says_nothing(self, harness: WorkerHarness) -> None:
        with harness.worker(max_receives=2) as worker, refusing_prefix(worker):
            worker.handle(harness.message(FORBIDDEN))
        assert harness.events() == []

    def test_it_is_announced_once_more_where_it_is_sent_again_and_drawn(self, harness: WorkerHarness) -> None:
        with harness.worker(max_receives=1) as worker:
            with refusing_prefix(worker):
                worker.handle(harness.message(FORBIDDEN))
            worker.handle(harness.message(FORBIDDEN))
        kinds = [event["detail-type"] for event in harness.events()]
        assert kinds == ["FluxImageFailed", "FluxImageReady"]
        assert "images/bad=failed.json" not in harness.stored()

    @pytest.mark.parametrize("body", ["no json", '{"prompt": "a cat"}', '{"id": "no/id", "prompt": "a cat"}'])
    def test_what_has_no_id_is_left_to_the_dead_letter_queue(self, harness: WorkerHarness, body: str) -> None:
        dead = harness.dead_letters(2)
        with harness.worker(max_receives=2) as worker:
            harness.aws.send(body)
            harness.run_until(worker, lambda: harness.aws.left() == 0)
        [event] = harness.events()
        assert (event["detail"]["id"], event["detail"]["dead_lettered"]) == (None, True)
        assert self.dead(harness, dead) == [body]

    @pytest.mark.parametrize("most", [0, None])
    def test_where_there_is_none_it_is_deleted(self, harness: WorkerHarness, most: int | None) -> None:
        with harness.worker(max_receives=most) as worker:
            worker.handle(harness.message("no json"))
        assert harness.aws.left() == 0
        [event] = harness.events()
        assert "dead_lettered" not in event["detail"]


@pytest.mark.parametrize("most", [0, 3], ids=["no-dead-letter-queue", "dead-letter-queue"])
def test_a_rule_that_sends_the_workers_own_events_back_makes_no_loop(
    harness: WorkerHarness, most: int
) -> None:
    events = harness.aws.client("events")
    arn = f"arn:aws:sqs:eu-west-1:123456789012:{harness.aws.jobs.rpartition('/')[2]}"
    events.put_rule(Name="loop", EventBusName=harness.aws.bus, EventPattern='{"source": [{"prefix": ""}]}')
    events.put_targets(Rule="loop", EventBusName=harness.aws.bus, Targets=[{"Id": "1", "Arn": arn}])
    with harness.worker(max_receives=most) as worker:
        for body in (BODY, BODY.replace("256", "257")):
            worker.handle(harness.message(body))
            worker.handle(harness.receive())
    assert harness.aws.left() == 0
    assert [event["detail-type"] for event in harness.events()] == ["FluxImageReady", "FluxImageFailed"]


def test_the_outbox_holds_only_so_much_in_memory(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux_worker.jobs.outbox._MOST_IN_MEMORY", 2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flux_worker.jobs.outbox._write", full)
    with harness.worker() as worker, refusing_prefix(worker):
        for number in range(3):
            worker.handle(harness.message(FORBIDDEN.replace('"bad"', f'"bad-{number}"')))
        outbox: Outbox = worker.delivery.outbox
        assert outbox.job_ids() == ["bad-1", "bad-2"]
