"""What happens to a job when the worker must stop, the job fails, or another worker has it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

import flux_worker.jobs.retry
import flux_worker.settling
from flux_worker.backoff import Backoff
from flux_worker.errors import Interrupted
from flux_worker.host.logs import JsonLines
from tests.worker.conftest import until
from tests.worker.worker_harness import BODY, CallLog, FakeModel, Killed, WorkerHarness, connection_lost

STEPS = 8  # two images of four each
RESULTS = ["images/one.json", "images/one=1.png", "images/one=2.png"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flux_worker.jobs.retry, "PAUSES", Backoff(0.01, 0.01))


def at_step(number: int, act: Callable[[], object]) -> FakeModel:
    """A painter at whose step something happens."""
    return FakeModel(lambda done: act() and None if done == number else None)


def next_sign_of_life(call_log: CallLog) -> None:
    """Wait until the worker that holds a job keeps its message hidden once more."""
    seen = len(call_log.calls)
    until(lambda: "ChangeMessageVisibility" in call_log.calls[seen:], 10, "a sign of life")


class TestTheEndIsNear:
    """Spot notices, SIGTERM, scaling in."""

    def test_what_does_not_fit_is_handed_back_at_once(self, harness: WorkerHarness, stop: Any) -> None:
        fake_model = at_step(3, lambda: stop.request("spot instance-action", 5))
        call_log = CallLog()
        with stop.deferred(), harness.worker(call_log, fake_model) as worker:
            worker.handle(harness.message())
        assert fake_model.drawn == 0
        assert call_log.calls[-2:] == ["DeleteObject =claim", "ChangeMessageVisibility"]
        assert harness.stored() == []
        assert harness.receive().receives == 2

    def test_what_fits_is_finished(self, harness: WorkerHarness, stop: Any) -> None:
        fake_model = at_step(3, lambda: stop.request("SIGTERM", 90))
        with stop.deferred(), harness.worker(model=fake_model) as worker:
            worker.handle(harness.message())
        assert fake_model.drawn == 1
        assert harness.stored() == RESULTS
        assert harness.aws.left() == 0

    def test_nothing_new_is_begun(self, harness: WorkerHarness, stop: Any) -> None:
        fake_model = FakeModel()
        with stop.deferred(), harness.worker(model=fake_model) as worker:
            stop.request("SIGTERM", 90)
            worker.handle(harness.message())
        assert fake_model.drawn == 0
        assert harness.stored() == []
        assert harness.receive().receives == 2

    def test_the_loop_ends_and_a_message_of_that_instant_is_handed_back(
        self, harness: WorkerHarness, stop: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake_model = FakeModel()
        with harness.worker(model=fake_model) as worker:
            receive = worker.queue.receive

            def receive_and_stop(seconds: int) -> Any:
                message = receive(seconds)
                stop.request("SIGTERM", 90)
                return message

            monkeypatch.setattr(worker.queue, "receive", receive_and_stop)
            harness.aws.send(BODY)
            worker.run()
        assert fake_model.drawn == 0
        assert harness.receive().receives == 2

    def test_a_pause_receives_nothing_and_does_not_end_the_worker(
        self, harness: WorkerHarness, stop: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        call_log = CallLog()
        monkeypatch.setattr(stop, "wait", lambda _seconds: stop.request("enough of waiting", 9))
        with stop.deferred(), harness.worker(call_log) as worker:
            stop.pause("rebalance recommendation")
            harness.aws.send(BODY)
            worker.run()
            assert worker.monitor.status()["doing"] == "Not receiving: rebalance recommendation"
        assert call_log.calls == []

    def test_after_a_pause_the_worker_is_ready_again(
        self, harness: WorkerHarness, stop: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blocked = []
        with stop.deferred(), harness.worker() as worker:

            def wait(_seconds: float) -> None:
                blocked.append(worker.monitor.status().get("blocked"))
                stop.resume("a reboot")

            monkeypatch.setattr(stop, "wait", wait)
            stop.pause("a reboot")
            harness.aws.send(BODY)
            harness.run_until(worker, lambda: worker.monitor.status()["jobs"]["drawn"] == 1)
            assert "blocked" not in worker.monitor.status()
        assert blocked == [["Not receiving: a reboot"]]

    def test_what_aws_does_not_take_in_time_stays_in_the_outbox(
        self, harness: WorkerHarness, stop: Any
    ) -> None:
        fake_model = at_step(8, lambda: stop.request("SIGTERM", 0))
        message = harness.message()
        with stop.deferred(), harness.worker(model=fake_model, event_bus="no-such-bus") as worker:
            worker.handle(message)
            assert worker.delivery.outbox.job_ids() == ["one"]
        assert harness.aws.left() == 1
        with harness.worker(model=fake_model) as worker:
            assert worker.delivery.deliver_pending() == 1
        assert fake_model.drawn == 1
        assert harness.aws.left() == 0
        assert [event["detail"]["id"] for event in harness.events()] == ["one"]
        assert harness.stored() == RESULTS

    def test_the_queue_out_of_reach_does_not_hold_the_end_up(
        self, harness: WorkerHarness, stop: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tries = []

        def receive(_seconds: int) -> None:
            tries.append(1)
            if len(tries) == 3:
                stop.request("SIGTERM", 9)
            raise connection_lost()

        with harness.worker() as worker:
            monkeypatch.setattr(worker.queue, "receive", receive)
            worker.run()
        assert len(tries) == 3


class TestADrawingFails:
    """Out of memory, a bug, a broken GPU."""

    def test_it_comes_back_later_each_time(
        self, harness: WorkerHarness, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail() -> None:
            raise MemoryError("no room")

        after: list[float] = []
        with harness.worker(model=at_step(3, fail)) as worker:
            return_message = worker.queue.return_message

            def note(message: Any, seconds: float = 0) -> None:
                after.append(seconds)
                return_message(message, 0)

            monkeypatch.setattr(worker.queue, "return_message", note)
            harness.aws.send(BODY)
            for _ in range(3):
                worker.handle(harness.receive())
        assert after == [10, 20, 0]
        failures = [record.message for record in caplog.records if "the job failed" in record.message]
        assert failures == [
            "the job failed, received 1 times: it comes back in 10 s",
            "the job failed, received 2 times: it comes back in 20 s",
            "the job failed, received 3 times: it goes to the dead-letter queue now",
        ]
        assert "no room" in caplog.text
        assert harness.stored() == ["images/one=claim", "images/one=failed.json"]

    def test_a_broken_gpu_ends_the_process_after_handing_the_job_back(self, harness: WorkerHarness) -> None:
        with harness.worker(model=at_step(3, lambda: 1 / 0)) as worker, pytest.raises(ZeroDivisionError):
            worker.handle(harness.message())
        assert harness.stored() == []

    def test_the_dead_letter_queue_gets_it(
        self, harness: WorkerHarness, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sqs = harness.aws.client("sqs")
        dead = sqs.create_queue(QueueName=f"{harness.aws.bucket}-dead")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 3})
        monkeypatch.setattr(flux_worker.settling, "_RETURNS", Backoff(0))
        with harness.worker(model=at_step(3, lambda: 1 / 0)) as worker:
            monkeypatch.setattr(worker.model, "is_fatal", lambda _error: False)
            assert worker.queue.max_receives() == 0
            sqs.set_queue_attributes(QueueUrl=harness.aws.jobs, Attributes={"RedrivePolicy": policy})
            assert worker.queue.max_receives() == 3
            harness.aws.send(BODY)
            for _ in range(3):
                worker.handle(harness.receive())
            assert worker.queue.receive(0) is None
        [poison] = sqs.receive_message(QueueUrl=dead)["Messages"]
        assert poison["Body"] == BODY
        assert "received 3 times: it goes to the dead-letter queue now" in caplog.text
        assert "ZeroDivisionError" in caplog.text
        assert harness.aws.left() == 0


class TestSomebodyElseHasIt:
    """Claims that are another worker's, and records that are nobody's."""

    def test_a_job_taken_over_is_drawn_no_further(self, harness: WorkerHarness) -> None:
        steps: list[int] = []
        message = harness.message()
        call_log = CallLog()
        with harness.worker(call_log, visibility=3) as worker:

            def steal(done: int) -> None:
                steps.append(done)
                if done >= 2:  # each time: a renewal that is under way may overwrite the first
                    key = "images/one=claim"
                    harness.aws.client("s3").put_object(
                        Bucket=harness.aws.bucket, Key=key, Body=b'{"token": "another"}'
                    )
                    next_sign_of_life(call_log)

            worker.model = FakeModel(steal)  # type: ignore[assignment]
            worker.handle(message)
        assert 2 <= len(steps) < STEPS
        assert harness.stored() == ["images/one=claim"], "the other worker's claim stays"
        assert harness.aws.left() == 1

    def test_a_job_whose_message_is_gone_leaves_no_claim(self, harness: WorkerHarness) -> None:
        """Nobody will ever take that claim over: the queue was purged, or the message expired."""
        steps: list[int] = []
        message = harness.message()
        call_log = CallLog()
        with harness.worker(call_log, visibility=3) as worker:

            def purge(done: int) -> None:
                steps.append(done)
                if done == 2:
                    harness.aws.client("sqs").delete_message(
                        QueueUrl=harness.aws.jobs, ReceiptHandle=message.receipt
                    )
                if done >= 2:
                    next_sign_of_life(call_log)

            worker.model = FakeModel(purge)  # type: ignore[assignment]
            worker.handle(message)
        assert 2 <= len(steps) < STEPS
        assert harness.stored() == []

    def test_a_claim_about_to_end_is_waited_for(self, harness: WorkerHarness) -> None:
        """Its worker is dead; each receive would bring the message nearer to the dead-letter queue."""
        fake_model = FakeModel()
        with harness.worker(host="dead") as worker:
            worker.delivery.claims.take("one", "dead")
        message = harness.message()
        with harness.worker(CallLog(older=299), fake_model) as worker:
            worker.handle(message)
        assert fake_model.drawn == 1
        assert harness.stored() == RESULTS

    @pytest.mark.parametrize("body", [b"my diary", b'{"prompt": "my diary"}'], ids=["no-json", "no-record"])
    def test_a_record_that_is_none_costs_only_its_job(
        self, harness: WorkerHarness, caplog: pytest.LogCaptureFixture, body: bytes
    ) -> None:
        harness.aws.client("s3").put_object(Bucket=harness.aws.bucket, Key="images/one.json", Body=body)
        # Both at once: what is handed back for ten seconds might come again first.
        messages = [harness.message(job) for job in (BODY, BODY.replace("one", "two"))]
        with harness.worker() as worker:
            for message in messages:
                worker.handle(message)
        assert "s3://flux" in caplog.text
        assert "is not a record that this worker can read" in caplog.text
        assert "my diary" not in caplog.text, "prompts are the users' own"
        assert harness.aws.left() == 1
        assert "images/two.json" in harness.stored()
        assert "images/one=claim" not in harness.stored()

    def test_images_of_a_job_whose_id_went_to_another_are_removed(self, harness: WorkerHarness) -> None:
        """The worker died after it had stored an image; another worker then drew another job of that id."""
        call_log = CallLog()
        call_log.at = 3
        message = harness.message()
        with harness.worker(call_log) as worker, pytest.raises(Killed):
            worker.handle(message)
        assert call_log.calls[-1] == "PutObject =2.png"
        other = harness.message(BODY.replace('"images": 2', '"format": "webp"'))
        with harness.worker(CallLog(older=3600), host="b") as worker:
            worker.handle(other)
        assert "images/one=1.png" in harness.stored()
        with harness.worker() as worker:
            worker.delivery.deliver_pending()
            assert worker.delivery.outbox.job_ids() == []
            harness.make_visible(message)
            worker.handle(harness.receive())
        assert harness.stored() == ["images/one.json", "images/one.webp"]
        events = [event["detail-type"] for event in harness.events()]
        assert events == ["FluxImageReady", "FluxImageFailed"]
        assert harness.aws.left() == 0

    def test_an_older_drawing_of_the_id_does_not_fail_the_job_that_was_recorded(
        self, harness: WorkerHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It lies in the outbox of a worker that died; another worker drew another job of that id."""
        call_log = CallLog()
        call_log.at = 3
        message = harness.message()
        with harness.worker(call_log) as worker, pytest.raises(Killed):
            worker.handle(message)
        webp = BODY.replace('"images": 2', '"format": "webp"')
        with harness.worker(CallLog(older=3600), host="b") as worker:
            worker.handle(harness.message(webp))
        with harness.worker() as worker:
            worker.handle(harness.message(webp))  # the same again: announced again
            assert worker.delivery.outbox.job_ids() == []
        assert [event["detail-type"] for event in harness.events()] == ["FluxImageReady"] * 2
        assert "the images in the outbox are discarded" in caplog.text
        assert harness.stored() == ["images/one.json", "images/one.webp"]

    def test_a_parcel_whose_job_another_worker_has_waits(self, harness: WorkerHarness) -> None:
        message = harness.message()
        fake_model = at_step(8, lambda: None)
        with harness.worker(model=fake_model) as worker:
            call = worker.retry_policy.call

            def fail(what: str, *rest: Any, **more: Any) -> Any:
                if what == "storing the images":
                    raise Interrupted("no time left")
                return call(what, *rest, **more)

            worker.retry_policy.call = fail  # type: ignore[method-assign]
            worker.handle(message)
            assert worker.delivery.outbox.job_ids() == ["one"]
        rival = harness.aws.client("s3")
        body = b'{"token": "another"}'
        rival.put_object(Bucket=harness.aws.bucket, Key="images/one=claim", Body=body)
        with harness.worker(model=fake_model) as worker:
            assert worker.delivery.deliver_pending() == 0
            assert worker.delivery.outbox.job_ids() == ["one"]
            # The rival dies, and its message comes to this worker: what lies in the outbox is delivered.
            rival.delete_object(Bucket=harness.aws.bucket, Key="images/one=claim")
            harness.make_visible(message)
            worker.handle(harness.receive())
            assert worker.delivery.outbox.job_ids() == []
        assert fake_model.drawn == 1
        assert harness.stored() == RESULTS
        assert harness.aws.left() == 0


def test_a_broken_parcel_is_told_with_its_job(harness: WorkerHarness) -> None:
    (harness.folder / "a/outbox/one.entry").mkdir(parents=True)
    told = io.StringIO()
    handler = logging.StreamHandler(told)
    handler.setFormatter(JsonLines())
    logging.getLogger("flux_worker").addHandler(handler)
    try:
        with harness.worker() as worker:
            assert worker.delivery.deliver_pending() == 0
    finally:
        logging.getLogger("flux_worker").removeHandler(handler)
    [line] = [json.loads(text) for text in told.getvalue().splitlines()]
    assert line["job"] == "one"
    assert "is incomplete: removed" in line["message"]


def test_what_is_counted(harness: WorkerHarness) -> None:
    with harness.worker() as worker:
        for body in (BODY, BODY, BODY.replace("a cat", "a dog"), "garbage"):
            worker.handle(harness.message(body))
        counts = worker.monitor.status()["jobs"]
    expected = {"drawn": 1, "announced_again": 1, "refused": 2, "failed": 0, "handed_back": 0, "set_aside": 0}
    assert counts == expected
