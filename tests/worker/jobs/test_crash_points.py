"""What goes to AWS, in which order, and what is left when the worker dies or AWS fails in between."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import flux_worker.jobs.retry
from flux_worker.host.monitor import Monitor
from flux_worker.host.notify import Notifier
from flux_worker.jobs.retry import Persistence
from tests.worker.worker_harness import BODY, Killed, Painter, Wire, conflict, connection_lost

CLAIM = ["PutObject =claim"]
LOOK = ["GetObject .json"]
STORE = [*CLAIM, "PutObject =1.png", "PutObject =2.png", "PutObject .json"]
END = ["DeleteObject =claim", "DeleteObject =failed.json", "DeleteMessage"]
DRAWN = [*CLAIM, *LOOK, *STORE, "PutEvents", *END]
# Somebody may draw a job of that id just then, who has looked for a failure already.
TOLD = [*LOOK, "PutObject =failed.json", *LOOK, "PutEvents"]
REFUSED = [*TOLD, "DeleteMessage"]
BAD = '{"id": "one", "prompt": "a cat", "width": 7}'
RESULTS = ["images/one.json", "images/one=1.png", "images/one=2.png"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flux_worker.jobs.retry, "LONGEST_PAUSE_SECONDS", 0.01)


def test_a_drawn_job(workshop: Any) -> None:
    wire = Wire()
    with workshop.worker(wire) as worker:
        worker.handle(workshop.message())
    assert wire.calls == DRAWN
    assert workshop.stored() == RESULTS
    assert workshop.aws.left() == 0


def test_the_watchdog_hears_of_each_upload(workshop: Any, stop: Any, tmp_path: Path) -> None:
    """S3 may be slow without failing; between the last step and the next poll nothing else is heard."""
    wire = Wire()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, workshop.worker(wire) as worker:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "180000000"})
        persistence = Persistence(stop, Monitor(notifier))
        worker.persistence = worker.delivery.persistence = persistence

        def listen(**_: Any) -> None:
            with contextlib.suppress(BlockingIOError):
                wire.calls.append(systemd.recv(100).decode())

        worker.delivery.results.s3.meta.events.register("before-call.s3.PutObject", listen)
        try:
            worker.handle(workshop.message())
        finally:
            worker.delivery.results.s3.meta.events.unregister("before-call.s3.PutObject", listen)
    alive = "WATCHDOG=1"  # noted when the call that follows it is about to be made
    uploads = ["PutObject =1.png", alive, "PutObject =2.png", alive, "PutObject .json", alive]
    assert wire.calls == [*CLAIM, *LOOK, *CLAIM, *uploads, "PutEvents", *END]


def test_a_job_that_was_drawn_before(workshop: Any) -> None:
    again = Wire()
    with workshop.worker() as worker:
        worker.handle(workshop.message())
    with workshop.worker(again) as worker:
        worker.handle(workshop.message())
    assert again.calls == [*CLAIM, *LOOK, "PutEvents", *END]
    first, second = workshop.events()
    assert first["detail"] == second["detail"]


def test_a_refused_job(workshop: Any) -> None:
    wire = Wire()
    with workshop.worker(wire) as worker:
        worker.handle(workshop.message(BAD))
    assert wire.calls == REFUSED


def test_what_is_no_job_at_all(workshop: Any) -> None:
    wire = Wire()
    with workshop.worker(wire, max_receives=0) as worker:
        worker.handle(workshop.message("no json"))
    assert wire.calls == ["PutEvents", "DeleteMessage"]


def calls(*moments: bool) -> list[Any]:
    """Each call of a drawn job, before AWS heard of it (False) or after (True)."""
    return [
        pytest.param(number, late, id=f"{'after' if late else 'before'}-{number}-{call.replace(' ', '')}")
        for number, call in enumerate(DRAWN)
        for late in moments
    ]


# To die after one call is to die before the next one.
DEATHS = [*calls(False), calls(True)[-1]]


def check_all_is_well(workshop: Any, host: str) -> None:
    """One set of objects and its record, an event at least, and nothing else anywhere."""
    assert workshop.stored() == RESULTS
    assert workshop.aws.left() == 0
    events = workshop.events()
    assert 1 <= len(events) <= 3
    assert {event["detail-type"] for event in events} == {"FluxImageReady"}
    assert len({json.dumps(event["detail"]) for event in events}) == 1
    outbox = workshop.folder / host / "outbox"
    assert [file.name for file in outbox.iterdir()] == ["lock"]


@pytest.mark.parametrize(("number", "late"), DEATHS)
def test_a_worker_that_dies_is_replaced_on_another_host(workshop: Any, number: int, late: bool) -> None:
    """A spot instance: its disk is gone, too."""
    wire = Wire()
    wire.at, wire.late = number, late
    message = workshop.message()
    with workshop.worker(wire) as worker, pytest.raises(Killed):
        worker.handle(message)
    if workshop.aws.left():
        workshop.make_visible(message)
        with workshop.worker(Wire(older=3600), host="b") as worker:
            worker.handle(workshop.receive())
        check_all_is_well(workshop, "b")
    assert workshop.stored() == RESULTS


@pytest.mark.parametrize(("number", "late"), DEATHS)
def test_a_worker_that_dies_starts_again(workshop: Any, number: int, late: bool) -> None:
    """What was drawn is not drawn again: it lies in the outbox."""
    wire, first, second = Wire(), Painter(), Painter()
    wire.at, wire.late = number, late
    message = workshop.message()
    with workshop.worker(wire, first) as worker, pytest.raises(Killed):
        worker.handle(message)
    with workshop.worker(model=second) as worker:
        # Its old claim is no obstacle, although it is not stale: it was the same worker's.
        assert worker.delivery.deliver_waiting() == first.drawn
    if workshop.aws.left():
        workshop.make_visible(message)
        with workshop.worker(Wire(older=3600), second) as worker:
            worker.handle(workshop.receive())
    check_all_is_well(workshop, "a")
    assert first.drawn + second.drawn == 1


@pytest.mark.parametrize(("number", "late"), calls(False, True))
def test_a_call_that_fails_is_made_again(workshop: Any, number: int, late: bool) -> None:
    wire, painter = Wire(), Painter()
    wire.at, wire.late, wire.fate = number, late, connection_lost()
    with workshop.worker(wire, painter) as worker:
        worker.handle(workshop.message())
    check_all_is_well(workshop, "a")
    assert painter.drawn == 1


@pytest.mark.parametrize(
    "number",
    [
        number
        for number, call in enumerate(DRAWN)
        if call in (*CLAIM, "PutObject .json", "DeleteObject =claim")
    ],
    ids=lambda number: f"{number}-{DRAWN[number].replace(' ', '')}",
)
def test_a_conditional_write_that_is_undecided_is_made_again(workshop: Any, number: int) -> None:
    """S3 answers 409 while another write of the object is under way: neither taken nor refused."""
    wire, painter = Wire(), Painter()
    wire.at, wire.fate = number, conflict()
    with workshop.worker(wire, painter) as worker:
        worker.handle(workshop.message())
    check_all_is_well(workshop, "a")
    assert painter.drawn == 1
    assert wire.calls[number + 1] in (DRAWN[number], *CLAIM)


@pytest.mark.parametrize(
    "number", range(len(REFUSED)), ids=lambda number: f"{number}-{REFUSED[number].replace(' ', '')}"
)
def test_a_refusal_that_fails_is_made_again(workshop: Any, number: int) -> None:
    wire = Wire()
    wire.at, wire.fate = number, connection_lost()
    with workshop.worker(wire) as worker:
        worker.handle(workshop.message(BAD))
    assert workshop.stored() == ["images/one=failed.json"]
    [event] = workshop.events()
    assert event["detail"]["sidecar"] == "images/one=failed.json"
    assert workshop.aws.left() == 0


def test_two_messages_with_one_id_are_drawn_once(workshop: Any) -> None:
    """The second is received while the first is being drawn, elsewhere."""
    other, seen = Wire(), []

    def meanwhile(done: int) -> None:
        if done == 2:
            message = workshop.message()
            with workshop.worker(other, host="b") as rival:
                rival.handle(message)
            seen.append(message)

    painter = Painter(meanwhile)
    message = workshop.message()
    with workshop.worker(model=painter) as worker:
        worker.handle(message)
    assert other.calls == [*CLAIM, "GetObject =claim", "ChangeMessageVisibility"]
    assert workshop.aws.left() == 1
    workshop.make_visible(seen[0])
    with workshop.worker(model=painter, host="b") as worker:
        worker.handle(workshop.receive())
    assert painter.drawn == 1
    assert len(workshop.events()) == 2
    assert workshop.stored() == RESULTS


def test_one_job_may_not_take_anothers_id(workshop: Any) -> None:
    with workshop.worker() as worker:
        worker.handle(workshop.message())
        before = workshop.stored()
        worker.handle(workshop.message(BODY.replace("a cat", "a dog")))
        worker.handle(workshop.message(BAD))
    _, other, bad = workshop.events()
    assert other["detail"]["reason"].startswith("prompt: not as in the job that was drawn under this id")
    assert bad["detail"]["reason"].startswith("width: ")
    assert other["detail"]["sidecar"] is bad["detail"]["sidecar"] is None
    assert workshop.stored() == before == RESULTS
    assert workshop.aws.left() == 0


class Policy(Wire):
    """A bucket policy refuses the images: for good, by the code that S3 has for it."""

    def _before(self, model: Any, params: Any, **about: Any) -> None:
        super()._before(model, params, **about)
        if model.name == "PutObject" and "/forbidden/" in params["url_path"]:
            raise refused()


class Broken(Painter):
    """A GPU that draws nothing, not even the warm-up."""

    def draw(self, job: Any, on_step: Any) -> Any:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED")


def refused() -> ClientError:
    error = {"Code": "AccessDenied", "Message": "with an explicit deny in a resource-based policy"}
    return ClientError({"Error": error}, "PutObject")  # type: ignore[arg-type]


def deaths(calls: list[str]) -> Any:
    """Before each call, and after the last."""
    ids = [f"before-{number}-{call.replace(' ', '')}" for number, call in enumerate(calls)]
    return pytest.mark.parametrize("number", range(len(calls) + 1), ids=[*ids, "after-all"])


def die_at(wire: Wire, number: int, calls: list[str]) -> Any:
    """What is expected of a worker that is killed before its call of this number, or after the last."""
    wire.at, wire.late = (number, False) if number < len(calls) else (number - 1, True)
    return pytest.raises(Killed)


FORBIDDEN = BODY.replace("}", ', "s3_prefix": "forbidden/"}')
HAND_BACK = ["DeleteObject =claim", "ChangeMessageVisibility"]
ASIDE = [*CLAIM, *LOOK, *CLAIM, "PutObject =1.png", *HAND_BACK]


def test_a_job_that_is_set_aside(workshop: Any) -> None:
    wire = Policy()
    with workshop.worker(wire) as worker:
        worker.handle(workshop.message(FORBIDDEN))
        assert worker.delivery.outbox.waiting() == ["one"]
    assert wire.calls == ASIDE
    assert workshop.stored() == []


@deaths(ASIDE)
def test_a_worker_that_dies_while_it_sets_a_job_aside(workshop: Any, number: int) -> None:
    """Somebody lets it write there at last: what lies in the outbox is not drawn a second time."""
    wire, first, second = Policy(), Painter(), Painter()
    message = workshop.message(FORBIDDEN)
    with workshop.worker(wire, first) as worker, die_at(wire, number, ASIDE):
        worker.handle(message)
    with workshop.worker(Wire(older=3600), second) as worker:
        assert worker.delivery.deliver_waiting() == first.drawn
        if workshop.aws.left():
            workshop.make_visible(message)
            worker.handle(workshop.receive())
        assert worker.delivery.outbox.waiting() == []
    assert first.drawn + second.drawn == 1
    assert workshop.stored() == [
        "images/forbidden/one=1.png",
        "images/forbidden/one=2.png",
        "images/one.json",
    ]
    assert workshop.aws.left() == 0


LAST = {"poison": [*CLAIM, *LOOK, *TOLD, *HAND_BACK], "forbidden": [*ASIDE[:4], *TOLD, *HAND_BACK]}
ENDS = [(kind, number) for kind, calls in LAST.items() for number in range(len(calls) + 1)]


@pytest.mark.parametrize(("kind", "number"), ENDS)
def test_a_worker_that_dies_over_the_last_receive(workshop: Any, kind: str, number: int) -> None:
    """The message is dead and not lost; whoever died before EventBridge heard of it could not tell."""
    wire = Policy()
    dead = workshop.dead_letters(3)
    message = workshop.message(FORBIDDEN)
    for _ in range(2):
        workshop.make_visible(message)
        message = workshop.receive()
    painter = Broken() if kind == "poison" else Painter()
    with workshop.worker(wire, painter) as worker, die_at(wire, number, LAST[kind]):
        worker.handle(message)
    assert wire.calls == LAST[kind][: number + 1]
    workshop.make_visible(message)
    sqs = workshop.aws.client("sqs")
    assert "Messages" not in sqs.receive_message(QueueUrl=workshop.aws.jobs)
    assert len(sqs.receive_message(QueueUrl=dead)["Messages"]) == 1
    events = workshop.events()
    told = number > LAST[kind].index("PutEvents")
    assert [event["detail"]["dead_lettered"] for event in events] == [True] * told
    assert not [key for key in workshop.stored() if key.endswith(("one.json", ".png"))]


FAILED = ["ReceiveMessage", *CLAIM, *LOOK, *HAND_BACK]


@deaths(FAILED * 3)
def test_a_worker_that_dies_on_its_way_to_the_breaker(
    workshop: Any, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The jobs that it could not draw are another's, and no more than one receive of each is gone."""
    names = ["job-1", "job-2", "job-3"]
    for name in names:
        workshop.aws.send(BODY.replace('"one"', f'"{name}"'))
    wire, painter, received = Wire(), Painter(), []
    with workshop.worker(wire, Broken()) as worker:
        receive = worker.queue.receive
        monkeypatch.setattr(worker.queue, "receive", lambda wait: received.append(receive(wait)))
        with die_at(wire, number, FAILED * 3):
            worker.run()
    for message in received:
        workshop.make_visible(message)
    with workshop.worker(Wire(older=3600), painter, host="b", max_receives=2) as worker:
        for _ in names:
            worker.handle(again := workshop.receive())
            assert again.receives <= 2
    assert painter.drawn == 3
    assert [key for key in workshop.stored() if key.endswith(".json")] == [
        f"images/{name}.json" for name in names
    ]
    assert not [key for key in workshop.stored() if key.endswith("=claim")]
    assert workshop.aws.left() == 0


def test_of_a_job_that_is_dead_no_claim_stays_behind(workshop: Any) -> None:
    """Nobody receives its message again, who would take the claim over and remove it in the end."""
    wire = Wire()
    calls = LAST["poison"]
    wire.at, wire.fate = calls.index("DeleteObject =claim"), conflict()
    with workshop.worker(wire, Broken(), max_receives=1) as worker:
        worker.handle(workshop.message())
    assert wire.calls == [*calls[:-1], *calls[-2:]]
    assert workshop.stored() == ["images/one=failed.json"]
