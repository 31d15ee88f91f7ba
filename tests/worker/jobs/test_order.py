"""What goes to AWS, in which order, and what is left when the worker dies or AWS fails in between."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest

import flux_worker.jobs.retry
from flux_worker.host.monitor import Monitor
from flux_worker.host.notify import Notifier
from flux_worker.jobs.retry import Persistence
from tests.worker.workshop import BODY, Killed, Painter, Wire, conflict, connection_lost

CLAIM = ["PutObject =claim"]
LOOK = ["GetObject .json"]
STORE = [*CLAIM, "PutObject =1.png", "PutObject =2.png", "PutObject .json"]
END = ["DeleteObject =claim", "DeleteMessage", "DeleteObject =failed.json"]
DRAWN = [*CLAIM, *LOOK, *STORE, "PutEvents", *END]
REFUSED = ["HeadObject .json", "PutObject =failed.json", "PutEvents", "DeleteMessage"]
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
    with workshop.worker(wire) as worker:
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
        assert worker.delivery.deliver_waiting() == (first.drawn and number < len(DRAWN) - 1)
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


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=lambda number: REFUSED[number].replace(" ", ""))
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
