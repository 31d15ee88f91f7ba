"""What becomes of a job when the worker has to end, when drawing fails, or when somebody else has it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

import flux_worker.jobs.retry
import flux_worker.worker
from flux_worker.errors import Interrupted
from flux_worker.host.logs import JsonLines
from tests.worker.conftest import until
from tests.worker.worker_harness import BODY, Killed, Painter, Wire, Workshop, connection_lost

STEPS = 8  # two images of four each
RESULTS = ["images/one.json", "images/one=1.png", "images/one=2.png"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flux_worker.jobs.retry, "LONGEST_PAUSE_SECONDS", 0.01)


def at_step(number: int, act: Callable[[], object]) -> Painter:
    """A painter at whose step something happens."""
    return Painter(lambda done: act() and None if done == number else None)


def next_sign_of_life(wire: Wire) -> None:
    """Wait until the worker that holds a job keeps its message hidden once more."""
    seen = len(wire.calls)
    until(lambda: "ChangeMessageVisibility" in wire.calls[seen:], 10, "a sign of life")


class TestTheEndIsNear:
    """Spot notices, SIGTERM, scaling in."""

    def test_what_does_not_fit_is_handed_back_at_once(self, workshop: Workshop, stop: Any) -> None:
        painter = at_step(3, lambda: stop.ask("spot instance-action", 5))
        wire = Wire()
        with stop.finish_first(), workshop.worker(wire, painter) as worker:
            worker.handle(workshop.message())
        assert painter.drawn == 0
        assert wire.calls[-2:] == ["DeleteObject =claim", "ChangeMessageVisibility"]
        assert workshop.stored() == []
        assert workshop.receive().receives == 2

    def test_what_fits_is_finished(self, workshop: Workshop, stop: Any) -> None:
        painter = at_step(3, lambda: stop.ask("SIGTERM", 90))
        with stop.finish_first(), workshop.worker(model=painter) as worker:
            worker.handle(workshop.message())
        assert painter.drawn == 1
        assert workshop.stored() == RESULTS
        assert workshop.aws.left() == 0

    def test_nothing_new_is_begun(self, workshop: Workshop, stop: Any) -> None:
        painter = Painter()
        with stop.finish_first(), workshop.worker(model=painter) as worker:
            stop.ask("SIGTERM", 90)
            worker.handle(workshop.message())
        assert painter.drawn == 0
        assert workshop.stored() == []
        assert workshop.receive().receives == 2

    def test_the_loop_ends_and_a_message_of_that_instant_is_handed_back(
        self, workshop: Workshop, stop: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        painter = Painter()
        with workshop.worker(model=painter) as worker:
            receive = worker.queue.receive

            def receive_and_stop(seconds: int) -> Any:
                message = receive(seconds)
                stop.ask("SIGTERM", 90)
                return message

            monkeypatch.setattr(worker.queue, "receive", receive_and_stop)
            workshop.aws.send(BODY)
            worker.run()
        assert painter.drawn == 0
        assert workshop.receive().receives == 2

    def test_a_pause_receives_nothing_and_does_not_end_the_worker(
        self, workshop: Workshop, stop: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wire = Wire()
        monkeypatch.setattr(stop, "wait", lambda _seconds: stop.ask("enough of waiting", 9))
        with stop.finish_first(), workshop.worker(wire) as worker:
            stop.pause("rebalance recommendation")
            workshop.aws.send(BODY)
            worker.run()
            assert worker.monitor.status()["doing"] == "Not receiving: rebalance recommendation"
        assert wire.calls == []

    def test_what_aws_does_not_take_in_time_stays_in_the_outbox(self, workshop: Workshop, stop: Any) -> None:
        painter = at_step(8, lambda: stop.ask("SIGTERM", 0))
        message = workshop.message()
        with stop.finish_first(), workshop.worker(model=painter, event_bus="no-such-bus") as worker:
            worker.handle(message)
            assert worker.delivery.outbox.waiting() == ["one"]
        assert workshop.aws.left() == 1
        with workshop.worker(model=painter) as worker:
            assert worker.delivery.deliver_waiting() == 1
        assert painter.drawn == 1
        assert workshop.aws.left() == 0
        assert [event["detail"]["id"] for event in workshop.events()] == ["one"]
        assert workshop.stored() == RESULTS

    def test_the_queue_out_of_reach_does_not_hold_the_end_up(
        self, workshop: Workshop, stop: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tries = []

        def receive(_seconds: int) -> None:
            tries.append(1)
            if len(tries) == 3:
                stop.ask("SIGTERM", 9)
            raise connection_lost()

        with workshop.worker() as worker:
            monkeypatch.setattr(worker.queue, "receive", receive)
            worker.run()
        assert len(tries) == 3


class TestADrawingFails:
    """Out of memory, a bug, a broken GPU."""

    def test_it_comes_back_later_each_time(
        self, workshop: Workshop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail() -> None:
            raise MemoryError("no room")

        after: list[float] = []
        with workshop.worker(model=at_step(3, fail)) as worker:
            give_back = worker.queue.give_back

            def note(message: Any, seconds: float = 0) -> None:
                after.append(seconds)
                give_back(message, 0)

            monkeypatch.setattr(worker.queue, "give_back", note)
            workshop.aws.send(BODY)
            for _ in range(3):
                worker.handle(workshop.receive())
        assert after == [10, 20, 0]
        failures = [record.message for record in caplog.records if "the job failed" in record.message]
        assert failures == [
            "the job failed, received 1 times: it comes back in 10 s",
            "the job failed, received 2 times: it comes back in 20 s",
            "the job failed, received 3 times: it goes to the dead-letter queue after this",
        ]
        assert "no room" in caplog.text
        assert workshop.stored() == ["images/one=failed.json"]

    def test_a_broken_gpu_ends_the_process_after_handing_the_job_back(self, workshop: Workshop) -> None:
        with workshop.worker(model=at_step(3, lambda: 1 / 0)) as worker, pytest.raises(ZeroDivisionError):
            worker.handle(workshop.message())
        assert workshop.stored() == []

    def test_the_dead_letter_queue_gets_it(
        self, workshop: Workshop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sqs = workshop.aws.client("sqs")
        dead = sqs.create_queue(QueueName=f"{workshop.aws.bucket}-dead")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 3})
        monkeypatch.setattr(flux_worker.worker, "_FIRST_RETURN_SECONDS", 0)
        with workshop.worker(model=at_step(3, lambda: 1 / 0)) as worker:
            monkeypatch.setattr(worker.model, "broken_by", lambda _error: False)
            assert worker.queue.max_receives() == 0
            sqs.set_queue_attributes(QueueUrl=workshop.aws.jobs, Attributes={"RedrivePolicy": policy})
            assert worker.queue.max_receives() == 3
            workshop.aws.send(BODY)
            for _ in range(3):
                worker.handle(workshop.receive())
            assert worker.queue.receive(0) is None
        [poison] = sqs.receive_message(QueueUrl=dead)["Messages"]
        assert poison["Body"] == BODY
        assert "received 3 times: it goes to the dead-letter queue after this" in caplog.text
        assert "ZeroDivisionError" in caplog.text
        assert workshop.aws.left() == 0


class TestSomebodyElseHasIt:
    """Claims that are another worker's, and records that are nobody's."""

    def test_a_job_taken_over_is_drawn_no_further(self, workshop: Workshop) -> None:
        steps: list[int] = []
        message = workshop.message()
        wire = Wire()
        with workshop.worker(wire, visibility=3) as worker:

            def steal(done: int) -> None:
                steps.append(done)
                if done >= 2:  # each time: a renewal that is under way may overwrite the first
                    key = "images/one=claim"
                    workshop.aws.client("s3").put_object(
                        Bucket=workshop.aws.bucket, Key=key, Body=b'{"token": "another"}'
                    )
                    next_sign_of_life(wire)

            worker.model = Painter(steal)  # type: ignore[assignment]
            worker.handle(message)
        assert 2 <= len(steps) < STEPS
        assert workshop.stored() == ["images/one=claim"], "the other worker's claim stays"
        assert workshop.aws.left() == 1

    def test_a_job_whose_message_is_gone_leaves_no_claim(self, workshop: Workshop) -> None:
        """Nobody will ever take that claim over: the queue was purged, or the message expired."""
        steps: list[int] = []
        message = workshop.message()
        wire = Wire()
        with workshop.worker(wire, visibility=3) as worker:

            def purge(done: int) -> None:
                steps.append(done)
                if done == 2:
                    workshop.aws.client("sqs").delete_message(
                        QueueUrl=workshop.aws.jobs, ReceiptHandle=message.receipt
                    )
                if done >= 2:
                    next_sign_of_life(wire)

            worker.model = Painter(purge)  # type: ignore[assignment]
            worker.handle(message)
        assert 2 <= len(steps) < STEPS
        assert workshop.stored() == []

    def test_a_claim_about_to_end_is_waited_for(self, workshop: Workshop) -> None:
        """Its worker is dead; each receive would bring the message nearer to the dead-letter queue."""
        painter = Painter()
        with workshop.worker(host="dead") as worker:
            worker.delivery.claims.take("one", "dead")
        message = workshop.message()
        with workshop.worker(Wire(older=299), painter) as worker:
            worker.handle(message)
        assert painter.drawn == 1
        assert workshop.stored() == RESULTS

    @pytest.mark.parametrize("body", [b"my diary", b'{"prompt": "my diary"}'], ids=["no-json", "no-record"])
    def test_a_record_that_is_none_costs_only_its_job(
        self, workshop: Workshop, caplog: pytest.LogCaptureFixture, body: bytes
    ) -> None:
        workshop.aws.client("s3").put_object(Bucket=workshop.aws.bucket, Key="images/one.json", Body=body)
        # Both at once: what is handed back for ten seconds might come again first.
        messages = [workshop.message(job) for job in (BODY, BODY.replace("one", "two"))]
        with workshop.worker() as worker:
            for message in messages:
                worker.handle(message)
        assert "s3://flux" in caplog.text
        assert "is no record that this worker can read" in caplog.text
        assert "my diary" not in caplog.text, "prompts are the users' own"
        assert workshop.aws.left() == 1
        assert "images/two.json" in workshop.stored()
        assert "images/one=claim" not in workshop.stored()

    def test_images_of_a_job_whose_id_went_to_another_are_removed(self, workshop: Workshop) -> None:
        """The worker died after it had stored an image; another worker then drew another job of that id."""
        wire = Wire()
        wire.at = 4
        message = workshop.message()
        with workshop.worker(wire) as worker, pytest.raises(Killed):
            worker.handle(message)
        assert wire.calls[-1] == "PutObject =2.png"
        other = workshop.message(BODY.replace('"images": 2', '"format": "webp"'))
        with workshop.worker(Wire(older=3600), host="b") as worker:
            worker.handle(other)
        assert "images/one=1.png" in workshop.stored()
        with workshop.worker() as worker:
            worker.delivery.deliver_waiting()
            assert worker.delivery.outbox.waiting() == []
            workshop.make_visible(message)
            worker.handle(workshop.receive())
        assert workshop.stored() == ["images/one.json", "images/one.webp"]
        events = [event["detail-type"] for event in workshop.events()]
        assert events == ["FluxImageReady", "FluxImageFailed"]
        assert workshop.aws.left() == 0

    def test_an_older_drawing_of_the_id_does_not_fail_the_job_that_was_recorded(
        self, workshop: Workshop, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It lies in the outbox of a worker that died; another worker drew another job of that id."""
        wire = Wire()
        wire.at = 3
        message = workshop.message()
        with workshop.worker(wire) as worker, pytest.raises(Killed):
            worker.handle(message)
        webp = BODY.replace('"images": 2', '"format": "webp"')
        with workshop.worker(Wire(older=3600), host="b") as worker:
            worker.handle(workshop.message(webp))
        with workshop.worker() as worker:
            worker.handle(workshop.message(webp))  # the same again: announced again
            assert worker.delivery.outbox.waiting() == []
        assert [event["detail-type"] for event in workshop.events()] == ["FluxImageReady"] * 2
        assert "the images in the outbox are thrown away" in caplog.text
        assert workshop.stored() == ["images/one.json", "images/one.webp"]

    def test_a_parcel_whose_job_another_worker_has_waits(self, workshop: Workshop) -> None:
        message = workshop.message()
        painter = at_step(8, lambda: None)
        with workshop.worker(model=painter) as worker:
            insist = worker.persistence.insist

            def fail(what: str, *rest: Any, **more: Any) -> Any:
                if what == "storing the images":
                    raise Interrupted("no time left")
                return insist(what, *rest, **more)

            worker.persistence.insist = fail  # type: ignore[method-assign]
            worker.handle(message)
            assert worker.delivery.outbox.waiting() == ["one"]
        rival = workshop.aws.client("s3")
        body = b'{"token": "another"}'
        rival.put_object(Bucket=workshop.aws.bucket, Key="images/one=claim", Body=body)
        with workshop.worker(model=painter) as worker:
            assert worker.delivery.deliver_waiting() == 0
            assert worker.delivery.outbox.waiting() == ["one"]
            # The rival dies, and its message comes to this worker: what lies in the outbox is delivered.
            rival.delete_object(Bucket=workshop.aws.bucket, Key="images/one=claim")
            workshop.make_visible(message)
            worker.handle(workshop.receive())
            assert worker.delivery.outbox.waiting() == []
        assert painter.drawn == 1
        assert workshop.stored() == RESULTS
        assert workshop.aws.left() == 0


def test_a_broken_parcel_is_told_with_its_job(workshop: Workshop) -> None:
    (workshop.folder / "a/outbox/one.entry").mkdir(parents=True)
    told = io.StringIO()
    handler = logging.StreamHandler(told)
    handler.setFormatter(JsonLines())
    logging.getLogger("flux_worker").addHandler(handler)
    try:
        with workshop.worker() as worker:
            assert worker.delivery.deliver_waiting() == 0
    finally:
        logging.getLogger("flux_worker").removeHandler(handler)
    [line] = [json.loads(text) for text in told.getvalue().splitlines()]
    assert line["job"] == "one"
    assert "is incomplete: removed" in line["message"]


def test_what_is_counted(workshop: Workshop) -> None:
    with workshop.worker() as worker:
        for body in (BODY, BODY, BODY.replace("a cat", "a dog"), "garbage"):
            worker.handle(workshop.message(body))
        counts = worker.monitor.status()["jobs"]
    expected = {"drawn": 1, "announced_again": 1, "refused": 2, "failed": 0, "handed_back": 0, "set_aside": 0}
    assert counts == expected
