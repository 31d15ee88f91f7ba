"""A job that failed and succeeds later: its stored failure goes; nobody asks for one that is not there."""

from __future__ import annotations

from typing import Any

import pytest

import flux_worker.jobs.retry
from flux_worker.backoff import Backoff
from flux_worker.errors import Interrupted
from tests.worker.worker_harness import BODY, CallLog, FakeModel, Killed, WorkerHarness

BAD = '{"id": "one", "prompt": "a cat", "width": 7}'
FAILURE = ["images/one=claim", "images/one=failed.json"]
RESULTS = ["images/one.json", "images/one=1.png", "images/one=2.png"]
REFUSE = ["GetObject .json", "PutObject =claim", "PutObject =failed.json", "GetObject .json", "PutEvents"]
REFUSE += ["DeleteMessage"]
FINISH = ["DeleteObject =failed.json", "DeleteObject =claim", "DeleteMessage"]
SUCCEED = ["PutObject =claim", "GetObject =claim", "PutObject =claim", "GetObject .json"]
SUCCEED += ["PutObject =1.png", "PutObject =2.png", "PutObject .json", "PutEvents", *FINISH]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flux_worker.jobs.retry, "PAUSES", Backoff(0.01, 0.01))


def handle(harness: WorkerHarness, body: str, host: str = "a") -> list[str]:
    """Let one worker handle a new message, and return its calls."""
    call_log = CallLog()
    with harness.worker(call_log, host=host) as worker:
        worker.handle(harness.message(body))
    return call_log.calls


def test_a_failure_goes_once_the_job_succeeds(harness: WorkerHarness) -> None:
    assert handle(harness, BAD) == REFUSE
    assert harness.stored() == FAILURE
    assert handle(harness, BODY, "b") == SUCCEED, "at once, although the mark is new"
    assert harness.stored() == RESULTS


def test_a_failure_that_is_stored_while_the_job_is_drawn_goes_too(harness: WorkerHarness) -> None:
    """The drawing worker's claim is marked, which it sees when it removes the claim."""
    seen: list[Any] = []

    def refuse(done: int) -> None:
        if done == 2:
            seen.append(handle(harness, BAD, "b"))

    call_log = CallLog()
    message = harness.message()
    with harness.worker(call_log, FakeModel(refuse)) as worker:
        worker.handle(message)
    [refused] = seen
    assert refused[1:4] == ["PutObject =claim", "GetObject =claim", "PutObject =claim"]
    assert call_log.calls[-5:] == ["DeleteObject =claim", "GetObject =claim", *FINISH]
    assert harness.stored() == RESULTS


def test_a_failure_that_comes_after_the_record_goes_again(harness: WorkerHarness) -> None:
    """The job is done by another worker between the first look for its record and the failure."""
    call_log = CallLog()
    message = harness.message(BAD)
    with harness.worker(call_log) as worker:
        events = worker.delivery.results.s3.meta.events

        def succeed(params: Any, **_: Any) -> None:
            if "failed.json" in params["url_path"]:
                events.unregister("before-call.s3.PutObject", succeed)
                handle(harness, BODY, "b")

        events.register("before-call.s3.PutObject", succeed)
        worker.handle(message)
    assert harness.stored() == RESULTS
    kinds = [event["detail"]["sidecar"] for event in harness.events()]
    assert kinds == ["images/one.json", None]


def test_a_mark_outlives_a_job_that_is_given_back(harness: WorkerHarness) -> None:
    def interrupt(_done: int) -> None:
        raise Interrupted("the worker must stop")

    handle(harness, BAD)
    call_log = CallLog()
    with harness.worker(call_log, FakeModel(interrupt), host="b") as worker:
        worker.handle(harness.message())
    assert call_log.calls[-2:] == ["PutObject =claim", "ChangeMessageVisibility"]
    assert harness.stored() == FAILURE
    with harness.worker(host="c") as worker:
        worker.handle(harness.receive())
    assert harness.stored() == RESULTS


@pytest.mark.parametrize("number", range(len(SUCCEED)), ids=lambda number: f"{number}-{SUCCEED[number]}")
def test_a_worker_that_dies_over_a_job_that_failed_before(harness: WorkerHarness, number: int) -> None:
    handle(harness, BAD)
    call_log = CallLog()
    call_log.at = number
    message = harness.message()
    with harness.worker(call_log, host="b") as worker, pytest.raises(Killed):
        worker.handle(message)
    harness.make_visible(message)
    with harness.worker(CallLog(older=3600), host="c") as worker:
        worker.handle(harness.receive())
    assert harness.stored() == RESULTS
    assert harness.aws.left() == 0


@pytest.mark.parametrize("number", range(len(REFUSE)), ids=lambda number: f"{number}-{REFUSE[number]}")
@pytest.mark.parametrize("meanwhile", [False, True], ids=["later", "meanwhile"])
def test_a_worker_that_dies_over_a_failure(harness: WorkerHarness, number: int, meanwhile: bool) -> None:
    """Another one succeeds before the message of the bad job comes back, or afterwards."""
    call_log = CallLog()
    call_log.at = number
    message = harness.message(BAD)
    with harness.worker(call_log) as worker, pytest.raises(Killed):
        worker.handle(message)
    if meanwhile:
        handle(harness, BODY, "b")
    harness.make_visible(message)
    with harness.worker(CallLog(older=3600), host="c") as worker:
        worker.handle(harness.receive())
    assert harness.stored() == (RESULTS if meanwhile else FAILURE)
    if not meanwhile:
        handle(harness, BODY, "b")
        assert harness.stored() == RESULTS
