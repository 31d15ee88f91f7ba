"""A worker that can draw no more leaves the queue to others, and a job that nobody can draw harms nobody."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

import flux_worker.breaker
import flux_worker.jobs.retry
import flux_worker.worker
from flux_worker.breaker import Drawings
from flux_worker.errors import BadPicture, Sick
from tests.worker.worker_harness import Painter, Workshop

pytestmark = pytest.mark.integration
ERRORS = [
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasGemmEx"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    type("OutOfResources", (Exception,), {"__module__": "triton.runtime.errors"})("shared memory"),
    BadPicture("image 1 is not finite"),
    AssertionError(),
]


@pytest.fixture(autouse=True)
def _pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flux_worker.jobs.retry, "LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(flux_worker.worker, "LONG_POLL_SECONDS", 1)
    monkeypatch.setattr(flux_worker.worker, "_FIRST_RETURN_SECONDS", 3_000)


def job(name: str, **fields: Any) -> str:
    return json.dumps({"id": name, "prompt": "a cat", "width": 256, "height": 256, "steps": 1} | fields)


class Sickly(Painter):
    """Its drawings fail for some jobs, and the warm-up with them or not."""

    def __init__(self, error: Exception, fails: Callable[[str], bool]) -> None:
        super().__init__()
        self._error, self._fails = error, fails
        self.tried: list[str] = []

    def draw(self, job: Any, on_step: Any) -> Any:
        self.tried.append(job.id)
        if self._fails(job.id):
            raise self._error
        return super().draw(job, on_step)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_sick_worker_ends_before_it_has_burnt_many_receives(workshop: Workshop, error: Exception) -> None:
    painter = Sickly(error, lambda _: True)
    for number in range(20):
        workshop.aws.send(job(f"job-{number}"))
    with workshop.worker(model=painter) as worker, pytest.raises(Sick, match="the warm-up cannot be drawn"):
        workshop.run_until(worker, lambda: False)
    *jobs, warm_up = painter.tried
    assert len(jobs) == len(set(jobs)) == (2 if isinstance(error, BadPicture) else 3)
    assert warm_up == "warm-up"
    kind = "picture" if isinstance(error, BadPicture) else "drawing"
    assert worker.monitor.registry.get_sample_value("flux_breaker_trips_total", {"kind": kind}) == 1
    assert worker.monitor.status()["ready"] is False
    assert "Not receiving: " in worker.monitor.status()["blocked"][0]
    assert not [key for key in workshop.stored() if key.endswith("=claim")]


def test_jobs_that_nobody_can_draw_do_not_end_the_worker(workshop: Workshop) -> None:
    painter = Sickly(RuntimeError("no"), lambda name: name.startswith("poison"))
    for number in range(7):
        workshop.aws.send(job(f"poison-{number}" if number < 3 else f"good-{number}"))
    with workshop.worker(model=painter) as worker:
        workshop.run_until(worker, lambda: painter.drawn == 4 and workshop.aws.left() == 3)
    assert painter.warmed_up == 1
    assert worker.monitor.status()["jobs"]["failed"] == 3
    assert "blocked" not in worker.monitor.status()


def test_one_drawn_between_says_that_all_is_well(workshop: Workshop) -> None:
    painter = Sickly(RuntimeError("no"), lambda name: name.startswith("poison"))
    names = ["poison-1", "poison-2", "good-1", "poison-3", "poison-4", "good-2"]
    with workshop.worker(model=painter) as worker:
        for name in names:
            worker.handle(workshop.message(job(name)))
        assert worker.drawings.doubt() is None
    assert painter.warmed_up == 0


def test_a_job_is_not_failed_twice_without_a_warm_up_between(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs and a sick worker: neither may lose more than one receive to it."""
    monkeypatch.setattr(flux_worker.worker, "_FIRST_RETURN_SECONDS", 4)
    painter = Sickly(RuntimeError("no"), lambda _: True)
    for name in ("one", "two"):
        workshop.aws.send(job(name))
    with workshop.worker(model=painter, max_receives=0) as worker, pytest.raises(Sick, match="to come back"):
        workshop.run_until(worker, lambda: False)
    assert sorted(painter.tried[:-1]) == ["one", "two"]
    assert [workshop.receive().receives for _ in range(2)] == [2, 2]


@pytest.mark.parametrize("healed", [True, False])
def test_a_job_that_was_sent_twice_is_not_failed_twice_either(workshop: Workshop, healed: bool) -> None:
    sick = [True]
    painter = Sickly(RuntimeError("no"), lambda _: sick[0])
    with workshop.worker(model=painter, max_receives=0) as worker:
        worker.handle(workshop.message(job("one")))
        sick[0] = not healed
        message = workshop.message(job("one"))
        if healed:
            worker.handle(message)
        else:
            with pytest.raises(Sick, match="received again, and the warm-up cannot be drawn any more"):
                worker.handle(message)
    assert painter.tried == ["one", "warm-up", *["one"] * healed]
    assert healed or workshop.receive().receives == 2, "handed back at once"
    assert not [key for key in workshop.stored() if key.endswith("=claim")]


def test_a_worker_that_is_asked_to_end_does_not_finish_its_warm_up(workshop: Workshop, stop: Any) -> None:
    painter = Sickly(RuntimeError("no"), lambda name: name.startswith("poison"))
    for number in range(3):
        workshop.aws.send(job(f"poison-{number}"))
    painter._before_step = lambda _: stop.ask("SIGTERM", 90)  # the first thing drawn is the warm-up
    with workshop.worker(model=painter) as worker:
        workshop.run_until(worker, lambda: painter.warmed_up == 1)


def test_others_come_first_where_jobs_fail_again_although_the_warm_up_is_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [100.0]
    monkeypatch.setattr(flux_worker.breaker.time, "monotonic", lambda: clock[0])
    drawings, pauses = Drawings(), []
    for round_ in range(8):
        for number in range(3):
            assert drawings.doubt() is None
            drawings.failed(f"{round_}-{number}", RuntimeError(), 600)
        assert drawings.doubt() == "3 jobs in a row could not be drawn, the last for a RuntimeError"
        pauses.append(drawings.proven())
        assert drawings.left() == pauses[-1]
        clock[0] += pauses[-1]
        assert drawings.left() == 0
    assert pauses == [0, 30, 60, 120, 240, 480, 900, 900]
    drawings.drawn()
    for number in range(3):
        drawings.failed(f"{number}", RuntimeError(), 600)
    assert drawings.proven() == 0


def test_jobs_that_fail_one_at_a_time_beside_good_warm_ups_count_together() -> None:
    """A GPU that is ill at times may draw each warm-up, and no job."""
    drawings, pauses = Drawings(), []
    for number in range(6):
        drawings.failed(f"job-{number}", RuntimeError(), 0)
        assert drawings.doubt()
        pauses.append(drawings.proven())
    assert pauses == [0, 0, 0, 30, 60, 120]


def test_a_single_job_that_comes_back_does_not_keep_the_worker_from_others() -> None:
    drawings = Drawings()
    for _ in range(10):
        drawings.failed("one", RuntimeError(), 0)
        assert (
            drawings.doubt()
            == "a job that could not be drawn here, for a RuntimeError, is about to come back"
        )
        assert drawings.proven() == 0
