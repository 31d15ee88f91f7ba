"""The order of calls to AWS, and what is left if the worker dies or AWS fails at each of them."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import flux_worker.jobs.retry
from flux_worker.backoff import Backoff
from flux_worker.host.monitor import Monitor
from flux_worker.host.notify import Notifier
from flux_worker.jobs.retry import RetryPolicy
from tests.worker.worker_harness import BODY, CallLog, FakeModel, Killed, conflict, connection_lost

CLAIM = ["PutObject =claim"]
LOOK = ["GetObject .json"]
STORE = ["PutObject =1.png", "PutObject =2.png", "PutObject .json"]
END = ["DeleteObject =claim", "DeleteMessage"]
DRAWN = [*CLAIM, *LOOK, *STORE, "PutEvents", *END]
# Somebody may draw a job of that id just then, who has looked for a failure already.
TOLD = [*LOOK, *CLAIM, "PutObject =failed.json", *LOOK, "PutEvents"]
REFUSED = [*TOLD, "DeleteMessage"]
BAD = '{"id": "one", "prompt": "a cat", "width": 7}'
RESULTS = ["images/one.json", "images/one=1.png", "images/one=2.png"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flux_worker.jobs.retry, "PAUSES", Backoff(0.01, 0.01))


def test_a_drawn_job(harness: Any) -> None:
    call_log = CallLog()
    with harness.worker(call_log) as worker:
        worker.handle(harness.message())
    assert call_log.calls == DRAWN
    assert harness.stored() == RESULTS
    assert harness.aws.left() == 0


def test_the_watchdog_hears_of_each_upload(harness: Any, stop: Any, tmp_path: Path) -> None:
    """S3 may be slow without failing; between the last step and the next poll nothing else is heard."""
    call_log = CallLog()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, harness.worker(call_log) as worker:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "180000000"})
        retry_policy = RetryPolicy(stop, Monitor(notifier))
        worker.retry_policy = worker.delivery.retry_policy = retry_policy

        def listen(**_: Any) -> None:
            with contextlib.suppress(BlockingIOError):
                call_log.calls.append(systemd.recv(100).decode())

        worker.delivery.results.s3.meta.events.register("before-call.s3.PutObject", listen)
        try:
            worker.handle(harness.message())
        finally:
            worker.delivery.results.s3.meta.events.unregister("before-call.s3.PutObject", listen)
    ping = "WATCHDOG=1"  # noted when the call that follows it is about to be made
    uploads = ["PutObject =1.png", ping, "PutObject =2.png", ping, "PutObject .json", ping]
    assert call_log.calls == [*CLAIM, *LOOK, *uploads, "PutEvents", *END]


def test_a_job_that_was_drawn_before(harness: Any) -> None:
    again = CallLog()
    with harness.worker() as worker:
        worker.handle(harness.message())
    with harness.worker(again) as worker:
        worker.handle(harness.message())
    assert again.calls == [*CLAIM, *LOOK, "PutEvents", *END]
    first, second = harness.events()
    assert first["detail"] == second["detail"]


def test_a_refused_job(harness: Any) -> None:
    call_log = CallLog()
    with harness.worker(call_log) as worker:
        worker.handle(harness.message(BAD))
    assert call_log.calls == REFUSED


def test_what_is_no_job_at_all(harness: Any) -> None:
    call_log = CallLog()
    with harness.worker(call_log, max_receives=0) as worker:
        worker.handle(harness.message("no json"))
    assert call_log.calls == ["PutEvents", "DeleteMessage"]


def calls(*moments: bool) -> list[Any]:
    """Each call of a drawn job, before AWS heard of it (False) or after (True)."""
    return [
        pytest.param(number, late, id=f"{'after' if late else 'before'}-{number}-{call.replace(' ', '')}")
        for number, call in enumerate(DRAWN)
        for late in moments
    ]


# To die after one call is to die before the next one.
DEATHS = [*calls(False), calls(True)[-1]]


def check_all_is_well(harness: Any, host: str) -> None:
    """One set of objects and its record, an event at least, and nothing else anywhere."""
    assert harness.stored() == RESULTS
    assert harness.aws.left() == 0
    events = harness.events()
    assert 1 <= len(events) <= 3
    assert {event["detail-type"] for event in events} == {"FluxImageReady"}
    assert len({json.dumps(event["detail"]) for event in events}) == 1
    outbox = harness.folder / host / "outbox"
    assert [file.name for file in outbox.iterdir()] == ["lock"]


@pytest.mark.parametrize(("number", "late"), DEATHS)
def test_a_worker_that_dies_is_replaced_on_another_host(harness: Any, number: int, late: bool) -> None:
    """A spot instance: its disk is gone, too."""
    call_log = CallLog()
    call_log.at, call_log.late = number, late
    message = harness.message()
    with harness.worker(call_log) as worker, pytest.raises(Killed):
        worker.handle(message)
    if harness.aws.left():
        harness.make_visible(message)
        with harness.worker(CallLog(older=3600), host="b") as worker:
            worker.handle(harness.receive())
        check_all_is_well(harness, "b")
    assert harness.stored() == RESULTS


@pytest.mark.parametrize(("number", "late"), DEATHS)
def test_a_worker_that_dies_starts_again(harness: Any, number: int, late: bool) -> None:
    """What was drawn is not drawn again: it lies in the outbox."""
    call_log, first, second = CallLog(), FakeModel(), FakeModel()
    call_log.at, call_log.late = number, late
    message = harness.message()
    with harness.worker(call_log, first) as worker, pytest.raises(Killed):
        worker.handle(message)
    with harness.worker(model=second) as worker:
        # Its old claim is no obstacle, although it is not stale: it was the same worker's.
        assert worker.delivery.deliver_pending() == first.drawn
    if harness.aws.left():
        harness.make_visible(message)
        with harness.worker(CallLog(older=3600), second) as worker:
            worker.handle(harness.receive())
    check_all_is_well(harness, "a")
    assert first.drawn + second.drawn == 1


@pytest.mark.parametrize(("number", "late"), calls(False, True))
def test_a_call_that_fails_is_made_again(harness: Any, number: int, late: bool) -> None:
    call_log, fake_model = CallLog(), FakeModel()
    call_log.at, call_log.late, call_log.fate = number, late, connection_lost()
    with harness.worker(call_log, fake_model) as worker:
        worker.handle(harness.message())
    check_all_is_well(harness, "a")
    assert fake_model.drawn == 1


@pytest.mark.parametrize(
    "number",
    [
        number
        for number, call in enumerate(DRAWN)
        if call in (*CLAIM, "PutObject .json", "DeleteObject =claim")
    ],
    ids=lambda number: f"{number}-{DRAWN[number].replace(' ', '')}",
)
def test_a_conditional_write_that_is_undecided_is_made_again(harness: Any, number: int) -> None:
    """S3 answers 409 while another write of the object is under way: neither taken nor refused."""
    call_log, fake_model = CallLog(), FakeModel()
    call_log.at, call_log.fate = number, conflict()
    with harness.worker(call_log, fake_model) as worker:
        worker.handle(harness.message())
    check_all_is_well(harness, "a")
    assert fake_model.drawn == 1
    assert call_log.calls[number + 1] in (DRAWN[number], STORE[0])


@pytest.mark.parametrize(
    "number", range(len(REFUSED)), ids=lambda number: f"{number}-{REFUSED[number].replace(' ', '')}"
)
def test_a_refusal_that_fails_is_made_again(harness: Any, number: int) -> None:
    call_log = CallLog()
    call_log.at, call_log.fate = number, connection_lost()
    with harness.worker(call_log) as worker:
        worker.handle(harness.message(BAD))
    assert harness.stored() == ["images/one=claim", "images/one=failed.json"]
    [event] = harness.events()
    assert event["detail"]["sidecar"] == "images/one=failed.json"
    assert harness.aws.left() == 0


def test_two_messages_with_one_id_are_drawn_once(harness: Any) -> None:
    """The second is received while the first is being drawn, elsewhere."""
    other, seen = CallLog(), []

    def meanwhile(done: int) -> None:
        if done == 2:
            message = harness.message()
            with harness.worker(other, host="b") as rival:
                rival.handle(message)
            seen.append(message)

    fake_model = FakeModel(meanwhile)
    message = harness.message()
    with harness.worker(model=fake_model) as worker:
        worker.handle(message)
    assert other.calls == [*CLAIM, "GetObject =claim", "ChangeMessageVisibility"]
    assert harness.aws.left() == 1
    harness.make_visible(seen[0])
    with harness.worker(model=fake_model, host="b") as worker:
        worker.handle(harness.receive())
    assert fake_model.drawn == 1
    assert len(harness.events()) == 2
    assert harness.stored() == RESULTS


def test_one_job_may_not_take_anothers_id(harness: Any) -> None:
    with harness.worker() as worker:
        worker.handle(harness.message())
        before = harness.stored()
        worker.handle(harness.message(BODY.replace("a cat", "a dog")))
        worker.handle(harness.message(BAD))
    _, other, bad = harness.events()
    assert other["detail"]["reason"].startswith("prompt: differs from the finished job of this id")
    assert bad["detail"]["reason"].startswith("width: ")
    assert other["detail"]["sidecar"] is bad["detail"]["sidecar"] is None
    assert harness.stored() == before == RESULTS
    assert harness.aws.left() == 0


class Policy(CallLog):
    """A bucket policy refuses the images: for good, by the code that S3 has for it."""

    def _before(self, model: Any, params: Any, **about: Any) -> None:
        super()._before(model, params, **about)
        if model.name == "PutObject" and "/forbidden/" in params["url_path"]:
            raise refused()


class Broken(FakeModel):
    """A GPU that draws nothing, not even the warm-up."""

    def generate(self, job: Any, on_step: Any) -> Any:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED")


def refused() -> ClientError:
    error = {"Code": "AccessDenied", "Message": "with an explicit deny in a resource-based policy"}
    return ClientError({"Error": error}, "PutObject")  # type: ignore[arg-type]


def deaths(calls: list[str]) -> Any:
    """Before each call, and after the last."""
    ids = [f"before-{number}-{call.replace(' ', '')}" for number, call in enumerate(calls)]
    return pytest.mark.parametrize("number", range(len(calls) + 1), ids=[*ids, "after-all"])


def die_at(call_log: CallLog, number: int, calls: list[str]) -> Any:
    """What is expected of a worker that is killed before its call of this number, or after the last."""
    call_log.at, call_log.late = (number, False) if number < len(calls) else (number - 1, True)
    return pytest.raises(Killed)


FORBIDDEN = BODY.replace("}", ', "s3_prefix": "forbidden/"}')
HAND_BACK = ["DeleteObject =claim", "ChangeMessageVisibility"]
ASIDE = [*CLAIM, *LOOK, "PutObject =1.png", *HAND_BACK]


def test_a_job_that_is_set_aside(harness: Any) -> None:
    call_log = Policy()
    with harness.worker(call_log) as worker:
        worker.handle(harness.message(FORBIDDEN))
        assert worker.delivery.outbox.job_ids() == ["one"]
    assert call_log.calls == ASIDE
    assert harness.stored() == []


@deaths(ASIDE)
def test_a_worker_that_dies_while_it_sets_a_job_aside(harness: Any, number: int) -> None:
    """Somebody lets it write there at last: what lies in the outbox is not drawn a second time."""
    call_log, first, second = Policy(), FakeModel(), FakeModel()
    message = harness.message(FORBIDDEN)
    with harness.worker(call_log, first) as worker, die_at(call_log, number, ASIDE):
        worker.handle(message)
    with harness.worker(CallLog(older=3600), second) as worker:
        assert worker.delivery.deliver_pending() == first.drawn
        if harness.aws.left():
            harness.make_visible(message)
            worker.handle(harness.receive())
        assert worker.delivery.outbox.job_ids() == []
    assert first.drawn + second.drawn == 1
    assert harness.stored() == [
        "images/forbidden/one=1.png",
        "images/forbidden/one=2.png",
        "images/one.json",
    ]
    assert harness.aws.left() == 0


LAST = {"poison": [*CLAIM, *LOOK, *TOLD, HAND_BACK[1]], "forbidden": [*ASIDE[:3], *TOLD, HAND_BACK[1]]}
ENDS = [(kind, number) for kind, calls in LAST.items() for number in range(len(calls) + 1)]


@pytest.mark.parametrize(("kind", "number"), ENDS)
def test_a_worker_that_dies_over_the_last_receive(harness: Any, kind: str, number: int) -> None:
    """The message is dead and not lost; whoever died before EventBridge heard of it could not tell."""
    call_log = Policy()
    dead = harness.dead_letters(3)
    message = harness.message(FORBIDDEN)
    for _ in range(2):
        harness.make_visible(message)
        message = harness.receive()
    fake_model = Broken() if kind == "poison" else FakeModel()
    with harness.worker(call_log, fake_model) as worker, die_at(call_log, number, LAST[kind]):
        worker.handle(message)
    assert call_log.calls == LAST[kind][: number + 1]
    harness.make_visible(message)
    sqs = harness.aws.client("sqs")
    assert "Messages" not in sqs.receive_message(QueueUrl=harness.aws.jobs)
    assert len(sqs.receive_message(QueueUrl=dead)["Messages"]) == 1
    events = harness.events()
    told = number > LAST[kind].index("PutEvents")
    assert [event["detail"]["dead_lettered"] for event in events] == [True] * told
    assert not [key for key in harness.stored() if key.endswith(("one.json", ".png"))]


FAILED = ["ReceiveMessage", *CLAIM, *LOOK, *HAND_BACK]


@deaths(FAILED * 3)
def test_a_worker_that_dies_on_its_way_to_the_breaker(
    harness: Any, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The jobs that it could not draw are another's, and no more than one receive of each is gone."""
    names = ["job-1", "job-2", "job-3"]
    for name in names:
        harness.aws.send(BODY.replace('"one"', f'"{name}"'))
    call_log, fake_model, received = CallLog(), FakeModel(), []
    with harness.worker(call_log, Broken()) as worker:
        receive = worker.queue.receive
        monkeypatch.setattr(worker.queue, "receive", lambda wait: received.append(receive(wait)))
        with die_at(call_log, number, FAILED * 3):
            worker.run()
    for message in received:
        harness.make_visible(message)
    with harness.worker(CallLog(older=3600), fake_model, host="b", max_receives=2) as worker:
        for _ in names:
            worker.handle(again := harness.receive())
            assert again.receives <= 2
    assert fake_model.drawn == 3
    assert [key for key in harness.stored() if key.endswith(".json")] == [
        f"images/{name}.json" for name in names
    ]
    assert not [key for key in harness.stored() if key.endswith("=claim")]
    assert harness.aws.left() == 0


def test_of_a_job_that_is_dead_no_claim_stays_behind(harness: Any) -> None:
    """Nobody receives its message again, who would take the claim over: what stays is the failure's mark."""
    call_log = CallLog()
    calls = LAST["poison"]
    call_log.at, call_log.fate = 3, conflict()
    with harness.worker(call_log, Broken(), max_receives=1) as worker:
        worker.handle(harness.message())
        assert call_log.calls == [*calls[:4], *calls[2:]]
        assert harness.stored() == ["images/one=claim", "images/one=failed.json"]
        worker.delivery.claims.take("one", "another")
