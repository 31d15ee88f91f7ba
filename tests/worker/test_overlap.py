"""One job is delivered while the next is drawn: in the same order of safety, whenever the worker dies."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import flux_worker.jobs.retry
from flux_worker.background import Background
from flux_worker.backoff import Backoff
from flux_worker.errors import WorkerBroken
from flux_worker.host.monitor import Monitor
from flux_worker.host.notify import Notifier
from tests.worker.conftest import until
from tests.worker.worker_harness import BODY, CallLog, FakeModel, Killed, WorkerHarness, connection_lost

NAMES = ("one", "two", "three")
CALLS = 9  # of a job with two images


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flux_worker.jobs.retry, "PAUSES", Backoff(0.01, 0.01))


def body(name: str) -> str:
    return BODY.replace('"one"', f'"{name}"')


def while_drawing(name: str, act: Callable[[], object]) -> FakeModel:
    """A model that does something while it draws the job of this number, from 1."""
    number = NAMES.index(name)

    def step(done: int) -> None:
        if done == 2 and model.drawn == number:
            act()

    model = FakeModel(step)
    return model


def records(harness: WorkerHarness) -> set[str]:
    return {key for key in harness.stored() if key.endswith(".json")}


def test_the_next_job_is_drawn_while_one_is_delivered(harness: WorkerHarness) -> None:
    """The first is stored, announced and deleted, although the second is not drawn to its end."""

    def delivered() -> None:
        until(lambda: harness.aws.left() == 1, 30, "the first job's message to be deleted")
        assert "images/one.json" in harness.stored()

    model = while_drawing("two", delivered)
    for name in NAMES[:2]:
        harness.aws.send(body(name))
    with harness.worker(model=model) as worker:
        harness.run_until(worker, lambda: harness.aws.left() == 0)
    assert model.ids == ["one", "two"]


def test_a_stop_waits_for_both(harness: WorkerHarness, stop: Any) -> None:
    """The one in delivery, whose upload is slow, and the one that is drawn, for which there is time."""
    model = while_drawing("two", lambda: stop.request("SIGTERM", 90))
    for name in NAMES:
        harness.aws.send(body(name))
    with harness.worker(model=model) as worker:
        drawn = threading.Event()

        def late(**_: Any) -> None:
            drawn.wait(30)

        events = worker.delivery.results.events.meta.events
        events.register("before-call.events.PutEvents", late)
        generate = model.generate

        def draw(job: Any, on_step: Any) -> Any:
            found = generate(job, on_step)
            if job.id == "two":
                drawn.set()
            return found

        model.generate = draw  # type: ignore[method-assign]
        try:
            worker.run()
        finally:
            events.unregister("before-call.events.PutEvents", late)
    assert records(harness) == {"images/one.json", "images/two.json"}
    assert harness.aws.left() == 1
    assert harness.receive().receives == 1, "the third was never received"


def test_the_same_job_again_waits_for_its_own_delivery(harness: WorkerHarness) -> None:
    """Its claim is this worker's own, and must not send the message back to the queue for two minutes."""
    call_log, model = CallLog(), FakeModel()
    for _ in range(2):
        harness.aws.send(body("one"))
    with harness.worker(call_log, model) as worker:
        harness.run_until(worker, lambda: harness.aws.left() == 0)
    assert model.drawn == 1
    assert [event["detail"]["id"] for event in harness.events()] == ["one", "one"]
    assert "ChangeMessageVisibility" not in call_log.calls


def test_while_aws_fails_one_more_is_drawn_and_kept_on_disk(harness: WorkerHarness, stop: Any) -> None:
    """The second is safe before its turn comes, and a third is not received."""
    model = FakeModel()
    for name in NAMES:
        harness.aws.send(body(name))
    with harness.worker(model=model) as worker:

        def fail(**_: Any) -> None:
            raise connection_lost()

        hooks = worker.delivery.results.events.meta.events
        hooks.register("before-call.events.PutEvents", fail)

        def kept() -> bool:
            retrying = worker.monitor.status().get("delivering") == "Trying again: announcing"
            return retrying and set(worker.delivery.outbox.job_ids()) >= {"one", "two"}

        def recover() -> None:
            try:
                until(kept, 30, "both on disk")
            finally:
                hooks.unregister("before-call.events.PutEvents", fail)

        repair = threading.Thread(target=recover)
        repair.start()
        try:
            harness.run_until(worker, lambda: not repair.is_alive() and harness.aws.left() == 0)
        finally:
            repair.join()
    assert sorted(model.ids) == sorted(NAMES)
    assert len(records(harness)) == 3


def test_a_hung_gpu_shows_although_a_delivery_goes_on(
    harness: WorkerHarness, stop: Any, tmp_path: Path
) -> None:
    """Only what the main thread does keeps systemd's watchdog quiet."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        monitor = Monitor(Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "180000000"}))
        background, goes_on, over = Background(monitor), threading.Event(), threading.Event()

        def deliver() -> None:
            for _ in range(3):
                background.doing("Trying again: storing the images")
                background.ping()
            goes_on.set()
            over.wait(30)

        background.submit("one", deliver)
        assert goes_on.wait(30)
        with pytest.raises(BlockingIOError):
            systemd.recv(100)
        assert background.retrying
        over.set()
        background.wait()
        assert b"WATCHDOG=1" in systemd.recv(100), "the main thread waited, and what it waited for lived"


def test_a_failure_of_the_background_is_not_held_against_the_next_job(harness: WorkerHarness) -> None:
    model = FakeModel()
    message = harness.message(body("two"))
    with harness.worker(model=model) as worker:

        def broken() -> None:
            raise WorkerBroken("the disk is gone")

        worker.background.submit("one", broken)
        with pytest.raises(WorkerBroken, match="the disk is gone"):
            worker.handle(message)
    again = harness.receive()
    assert again.receives == 2, "given back at once"
    assert not [key for key in harness.stored() if key.endswith("=failed.json")]


@pytest.mark.parametrize("number", range(2 * CALLS + 1))
@pytest.mark.parametrize("same_host", [True, False], ids=["same-host", "other-host"])
def test_a_worker_that_dies_with_two_jobs_in_hand(
    harness: WorkerHarness, number: int, same_host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are done once, whichever call was the last of the process."""
    call_log, first, second = CallLog(), FakeModel(), FakeModel()
    call_log.at = number
    received: list[Any] = []
    for name in NAMES[:2]:
        harness.aws.send(body(name))
    with harness.worker(call_log, first, host="a") as worker:
        receive = worker.queue.receive

        def note(wait: int) -> Any:
            received.append(receive(wait))
            return received[-1]

        monkeypatch.setattr(worker.queue, "receive", note)
        with pytest.raises(Killed):
            worker.run()
    for message in filter(None, received):
        with contextlib.suppress(ClientError):  # it is deleted
            harness.make_visible(message)
    host = "a" if same_host else "b"
    with harness.worker(CallLog(older=3600), second, host=host) as worker:
        harness.run_until(worker, lambda: harness.aws.left() == 0 and not worker.delivery.outbox.job_ids())
    assert records(harness) == {"images/one.json", "images/two.json"}
    assert len(harness.stored()) == 6, "two images and a record each, and no claim"
    events = harness.events()
    assert {event["detail-type"] for event in events} == {"FluxImageReady"}
    details = Counter(json.dumps(event["detail"]) for event in events)
    assert {json.loads(detail)["id"] for detail in details} == {"one", "two"}
    assert len(details) == 2, "announced alike, however often"
    if same_host:
        drawn = Counter(first.ids + second.ids)
        assert drawn["one"] == 1 or "one" not in first.ids, drawn
        assert drawn.total() <= 3
