"""What AWS refuses for good keeps nobody else's job from being drawn, and is never thrown away."""

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
import flux_worker.worker
from flux_worker.jobs.outbox import Outbox
from flux_worker.worker import Worker
from tests.worker.worker_harness import BODY, Painter, Workshop

FORBIDDEN = BODY.replace('"one"', '"bad"').replace("}", ', "s3_prefix": "forbidden/"}')


@pytest.fixture(autouse=True)
def _pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flux_worker.jobs.retry, "LONGEST_PAUSE_SECONDS", 0.01)
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
def test_a_prefix_that_is_refused_is_set_aside_and_the_next_job_drawn(workshop: Workshop, code: str) -> None:
    with workshop.worker() as worker, refusing_prefix(worker, code):
        workshop.aws.send(FORBIDDEN)
        worker.handle(workshop.receive())
        assert worker.delivery.outbox.waiting() == ["bad"]
        worker.handle(workshop.message())
        status = worker.monitor.status()
        assert "blocked" not in status
        assert (status["jobs"]["set_aside"], status["jobs"]["drawn"]) == (1, 1)
        assert worker.refusals.left() == 0
    assert "images/one.json" in workshop.stored()
    assert not [key for key in workshop.stored() if key.endswith("=claim")]
    assert workshop.aws.left() == 1


def test_what_passes_is_waited_for(workshop: Workshop) -> None:
    tries: list[int] = []

    def at_the_third_try(_: str) -> bool:
        tries.append(1)
        return len(tries) <= 3

    with workshop.worker() as worker:
        results = worker.delivery.results
        with refusing(results.s3, "PutObject", at_the_third_try, "ExpiredToken"):
            worker.handle(workshop.message())
        assert worker.monitor.status()["jobs"]["drawn"] == 1
    assert workshop.aws.left() == 0


def test_where_the_next_is_refused_too_nothing_is_received_and_the_status_says_why(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flux_worker.jobs.delivery, "FIRST_ASIDE_SECONDS", 0.2)
    painter = Painter()
    names = [f"job-{number}" for number in range(4)]
    for name in names:
        workshop.aws.send(BODY.replace('"one"', f'"{name}"'))
    with workshop.worker(model=painter) as worker:
        worker.monitor.ready()
        events = worker.delivery.results.events
        with refusing(events, "PutEvents", lambda _: True, "AccessDeniedException"):
            with contextlib.suppress(AssertionError):
                workshop.run_until(worker, lambda: len(worker.monitor.status().get("blocked", [])) > 0)
            status = worker.monitor.status()
            assert painter.drawn == 2
            assert status["ready"] is False
            assert "events:PutEvents is refused: announcing: " in status["blocked"][0]
            assert worker.monitor.registry.get_sample_value("flux_ready") == 0
            assert (
                worker.monitor.registry.get_sample_value("flux_breaker_trips_total", {"kind": "refusal"}) == 1
            )
    assert workshop.aws.left() == 4
    # What was refused is told before anything else is received, and nothing is drawn again.


def test_it_goes_on_as_soon_as_it_is_mended(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flux_worker.jobs.delivery, "FIRST_ASIDE_SECONDS", 0.2)
    monkeypatch.setattr(flux_worker.worker, "FIRST_ASIDE_SECONDS", 0.2)
    monkeypatch.setattr(flux_worker.breaker, "_FIRST_PAUSE_SECONDS", 3_000)
    painter = Painter()
    names = [f"job-{number}" for number in range(4)]
    for name in names:
        workshop.aws.send(BODY.replace('"one"', f'"{name}"'))
    refused = [True]

    def blocked_or_done() -> bool:
        if worker.monitor.status().get("blocked"):
            refused[0] = False  # somebody mends it
        return painter.drawn == 4 and workshop.aws.left() == 0

    with workshop.worker(model=painter) as worker:
        events = worker.delivery.results.events
        with refusing(events, "PutEvents", lambda _: refused[0], "AccessDeniedException"):
            workshop.run_until(worker, blocked_or_done)
        assert worker.delivery.outbox.waiting() == []
    assert painter.drawn == 4
    assert sorted(event["detail"]["id"] for event in workshop.events()) == names


def test_a_result_whose_bucket_is_gone_does_not_stop_the_worker_that_starts_with_it(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flux_worker.worker, "_FIRST_REFUSED_SECONDS", 3_000)
    with workshop.worker() as worker:
        with refusing(worker.delivery.results.s3, "PutObject", lambda path: ".png" in path, "NoSuchBucket"):
            worker.handle(workshop.message())
        [entry] = (workshop.folder / "a/outbox").glob("*.entry")
    record = json.loads((entry / "record.json").read_text())
    (entry / "record.json").write_text(json.dumps(record | {"bucket": "a-bucket-that-is-gone"}))
    workshop.aws.send(BODY.replace('"one"', '"two"'))
    painter = Painter()
    with workshop.worker(model=painter) as worker:
        workshop.run_until(worker, lambda: painter.drawn == 1)
        assert worker.delivery.outbox.waiting() == ["one"], "what is finished is never thrown away"
    assert "images/two.json" in workshop.stored()


def test_what_no_disk_takes_waits_in_memory(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flux_worker.jobs.delivery, "FIRST_ASIDE_SECONDS", 0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flux_worker.jobs.outbox._write", full)
    painter = Painter()
    with workshop.worker(model=painter) as worker:
        with refusing_prefix(worker):
            workshop.aws.send(FORBIDDEN)
            worker.handle(workshop.receive())
        assert worker.delivery.deliver_waiting() == 1
        assert worker.delivery.outbox.waiting() == []
    assert painter.drawn == 1
    assert workshop.aws.left() == 0
    assert "images/bad.json" in workshop.stored()


def test_a_worker_whose_claims_are_refused_draws_nothing(workshop: Workshop) -> None:
    painter = Painter()
    with workshop.worker(model=painter) as worker:
        s3 = worker.delivery.results.s3
        with refusing(s3, "PutObject", lambda path: "claim" in path, "AccessDenied"):
            for name in ("one", "two"):
                worker.handle(workshop.message(BODY.replace('"one"', f'"{name}"')))
        assert painter.drawn == 0
        assert worker.refusals.left() > 0
        assert "s3:PutObject is refused: claiming the job" in worker.refusals.why


def test_refusals_in_a_row_pause_longer_each_time_and_one_that_is_taken_ends_it() -> None:
    from flux_worker.breaker import Refusals
    from flux_worker.errors import Refused

    refusals, error = Refusals(), Refused("s3:PutObject", "no")
    assert refusals.refused("one", error) == 0
    assert refusals.refused("one", error) == 0, "its own fault, as far as anybody knows"
    pauses = [round(refusals.refused("two", error)) for _ in range(7)]
    assert pauses == [30, 60, 120, 240, 480, 900, 900]
    refusals.taken()
    assert refusals.left() == 0
    assert refusals.refused("three", error) == 0


class TestTheLastReceive:
    """A job on its way to the dead-letter queue is told of, since nobody else will."""

    def dead(self, workshop: Workshop, url: str) -> list[str]:
        found = workshop.aws.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        return [message["Body"] for message in found.get("Messages", [])]

    def test_a_drawing_that_fails(self, workshop: Workshop) -> None:
        dead = workshop.dead_letters(1)

        def fail(_: int) -> None:
            raise RuntimeError("out of luck\nand more")

        with workshop.worker(model=Painter(fail), max_receives=1) as worker:
            worker.handle(workshop.message())
            assert worker.queue.receive(0) is None
        [event] = workshop.events()
        assert event["detail-type"] == "FluxImageFailed"
        assert event["detail"]["dead_lettered"] is True
        assert event["detail"]["reason"] == "it failed 1 times, the last time by RuntimeError: out of luck"
        assert event["detail"]["sidecar"] == "images/one=failed.json"
        s3 = workshop.aws.client("s3")
        body = s3.get_object(Bucket=workshop.aws.bucket, Key="images/one=failed.json")["Body"].read()
        assert json.loads(body)["dead_lettered"] is True
        assert self.dead(workshop, dead) == [BODY]

    def test_an_error_that_quotes_the_prompt(self, workshop: Workshop) -> None:
        prompt = "a portrait of somebody whom nobody else is to hear of"

        def fail(_: int) -> None:
            raise ValueError(f"cannot tokenize {prompt[:30]}…")

        with workshop.worker(model=Painter(fail), max_receives=1) as worker:
            worker.handle(workshop.message(BODY.replace("a cat", prompt)))
        [event] = workshop.events()
        assert event["detail"]["reason"] == "it failed 1 times, the last time by ValueError"

    def test_a_result_that_aws_refuses(self, workshop: Workshop) -> None:
        dead = workshop.dead_letters(1)
        with workshop.worker(max_receives=1) as worker, refusing_prefix(worker):
            worker.handle(workshop.message(FORBIDDEN))
            assert worker.queue.receive(0) is None
        [event] = workshop.events()
        assert (event["detail"]["id"], event["detail"]["dead_lettered"]) == ("bad", True)
        assert event["detail"]["reason"] == "AWS refuses it, the last time s3:PutObject"
        assert self.dead(workshop, dead) == [FORBIDDEN]

    def test_what_there_was_no_time_for(self, workshop: Workshop, stop: Any) -> None:
        workshop.dead_letters(1)
        message = workshop.message()
        with stop.finish_first(), workshop.worker(max_receives=1) as worker:
            stop.ask("spot", 60)
            worker.handle(message)
        [event] = workshop.events()
        assert event["detail"]["dead_lettered"] is True

    def test_what_is_drawn_but_cannot_be_deleted_did_not_fail(self, workshop: Workshop) -> None:
        with (
            workshop.worker(max_receives=1) as worker,
            refusing(worker.queue.sqs, "DeleteMessage", lambda _: True, "AccessDenied"),
        ):
            worker.handle(workshop.message())
        assert [event["detail-type"] for event in workshop.events()] == ["FluxImageReady"]
        assert "images/one=failed.json" not in workshop.stored()

    def test_an_earlier_receive_says_nothing(self, workshop: Workshop) -> None:
        with workshop.worker(max_receives=2) as worker, refusing_prefix(worker):
            worker.handle(workshop.message(FORBIDDEN))
        assert workshop.events() == []

    def test_it_is_announced_once_more_where_it_is_sent_again_and_drawn(self, workshop: Workshop) -> None:
        with workshop.worker(max_receives=1) as worker:
            with refusing_prefix(worker):
                worker.handle(workshop.message(FORBIDDEN))
            worker.handle(workshop.message(FORBIDDEN))
        kinds = [event["detail-type"] for event in workshop.events()]
        assert kinds == ["FluxImageFailed", "FluxImageReady"]
        assert "images/bad=failed.json" not in workshop.stored()

    @pytest.mark.parametrize("body", ["no json", '{"prompt": "a cat"}', '{"id": "no/id", "prompt": "a cat"}'])
    def test_what_has_no_id_is_left_to_the_dead_letter_queue(self, workshop: Workshop, body: str) -> None:
        dead = workshop.dead_letters(2)
        with workshop.worker(max_receives=2) as worker:
            workshop.aws.send(body)
            workshop.run_until(worker, lambda: workshop.aws.left() == 0)
        [event] = workshop.events()
        assert (event["detail"]["id"], event["detail"]["dead_lettered"]) == (None, True)
        assert self.dead(workshop, dead) == [body]

    @pytest.mark.parametrize("most", [0, None])
    def test_where_there_is_none_it_is_deleted(self, workshop: Workshop, most: int | None) -> None:
        with workshop.worker(max_receives=most) as worker:
            worker.handle(workshop.message("no json"))
        assert workshop.aws.left() == 0
        [event] = workshop.events()
        assert "dead_lettered" not in event["detail"]


@pytest.mark.parametrize("most", [0, 3], ids=["no-dead-letter-queue", "dead-letter-queue"])
def test_a_rule_that_sends_the_workers_own_events_back_makes_no_loop(workshop: Workshop, most: int) -> None:
    events = workshop.aws.client("events")
    arn = f"arn:aws:sqs:eu-west-1:123456789012:{workshop.aws.jobs.rpartition('/')[2]}"
    events.put_rule(Name="loop", EventBusName=workshop.aws.bus, EventPattern='{"source": [{"prefix": ""}]}')
    events.put_targets(Rule="loop", EventBusName=workshop.aws.bus, Targets=[{"Id": "1", "Arn": arn}])
    with workshop.worker(max_receives=most) as worker:
        for body in (BODY, BODY.replace("256", "257")):
            worker.handle(workshop.message(body))
            worker.handle(workshop.receive())
    assert workshop.aws.left() == 0
    assert [event["detail-type"] for event in workshop.events()] == ["FluxImageReady", "FluxImageFailed"]


def test_the_outbox_holds_only_so_much_in_memory(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flux_worker.jobs.outbox._MOST_IN_MEMORY", 2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flux_worker.jobs.outbox._write", full)
    with workshop.worker() as worker, refusing_prefix(worker):
        for number in range(3):
            worker.handle(workshop.message(FORBIDDEN.replace('"bad"', f'"bad-{number}"')))
        outbox: Outbox = worker.delivery.outbox
        assert outbox.waiting() == ["bad-1", "bad-2"]
