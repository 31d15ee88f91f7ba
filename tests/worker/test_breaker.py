"""A worker that cannot generate leaves the queue to others, and a job that always fails harms nobody."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

import flux_worker.breaker
import flux_worker.jobs.retry
import flux_worker.settling
import flux_worker.worker
from flux_worker.backoff import Backoff
from flux_worker.breaker import GenerationBreaker
from flux_worker.errors import BadImage, WorkerBroken
from tests.worker.worker_harness import FakeModel, WorkerHarness

pytestmark = pytest.mark.integration
ERRORS = [
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasGemmEx"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    type("OutOfResources", (Exception,), {"__module__": "triton.runtime.errors"})("shared memory"),
    BadImage("image 1 is not finite"),
    AssertionError(),
]


@pytest.fixture(autouse=True)
def _pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flux_worker.jobs.retry, "PAUSES", Backoff(0.01, 0.01))
    monkeypatch.setattr(flux_worker.worker, "LONG_POLL_SECONDS", 1)
    monkeypatch.setattr(flux_worker.settling, "_RETURNS", Backoff(3_000))


def job(name: str, **fields: Any) -> str:
    return json.dumps({"id": name, "prompt": "a cat", "width": 256, "height": 256, "steps": 1} | fields)


class Sickly(FakeModel):
    """Its drawings fail for some jobs, and the warm-up with them or not."""

    def __init__(self, error: Exception, fails: Callable[[str], bool]) -> None:
        super().__init__()
        self._error, self._fails = error, fails
        self.tried: list[str] = []

    def generate(self, job: Any, on_step: Any) -> Any:
        self.tried.append(job.id)
        if self._fails(job.id):
            raise self._error
        return super().generate(job, on_step)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_sick_worker_ends_before_it_has_burnt_many_receives(
    harness: WorkerHarness, error: Exception
) -> None:
    fake_model = Sickly(error, lambda _: True)
    for number in range(20):
        harness.aws.send(job(f"job-{number}"))
    with (
        harness.worker(model=fake_model) as worker,
        pytest.raises(WorkerBroken, match="the warm-up fails"),
    ):
        harness.run_until(worker, lambda: False)
    *jobs, warm_up = fake_model.tried
    assert len(jobs) == len(set(jobs)) == (2 if isinstance(error, BadImage) else 3)
    assert warm_up == "warm-up"
    kind = "picture" if isinstance(error, BadImage) else "drawing"
    assert worker.monitor.registry.get_sample_value("flux_breaker_trips_total", {"kind": kind}) == 1
    assert worker.monitor.status()["ready"] is False
    assert "Not receiving: " in worker.monitor.status()["blocked"][0]
    assert not [key for key in harness.stored() if key.endswith("=claim")]


def test_jobs_that_nobody_can_draw_do_not_end_the_worker(harness: WorkerHarness) -> None:
    fake_model = Sickly(RuntimeError("no"), lambda name: name.startswith("poison"))
    for number in range(7):
        harness.aws.send(job(f"poison-{number}" if number < 3 else f"good-{number}"))
    with harness.worker(model=fake_model) as worker:
        harness.run_until(worker, lambda: fake_model.drawn == 4 and harness.aws.left() == 3)
    assert fake_model.warmed_up == 1
    assert worker.monitor.status()["jobs"]["failed"] == 3
    assert "blocked" not in worker.monitor.status()


def test_one_drawn_between_says_that_all_is_well(harness: WorkerHarness) -> None:
    fake_model = Sickly(RuntimeError("no"), lambda name: name.startswith("poison"))
    names = ["poison-1", "poison-2", "good-1", "poison-3", "poison-4", "good-2"]
    with harness.worker(model=fake_model) as worker:
        for name in names:
            worker.handle(harness.message(job(name)))
        assert worker.generation_breaker.suspicion() is None
    assert fake_model.warmed_up == 0


def test_a_job_is_not_failed_twice_without_a_warm_up_between(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs and a sick worker: neither may lose more than one receive to it."""
    monkeypatch.setattr(flux_worker.settling, "_RETURNS", Backoff(4))
    fake_model = Sickly(RuntimeError("no"), lambda _: True)
    for name in ("one", "two"):
        harness.aws.send(job(name))
    with (
        harness.worker(model=fake_model, max_receives=0) as worker,
        pytest.raises(WorkerBroken, match="to come back"),
    ):
        harness.run_until(worker, lambda: False)
    assert sorted(fake_model.tried[:-1]) == ["one", "two"]
    assert [harness.receive().receives for _ in range(2)] == [2, 2]


@pytest.mark.parametrize("healed", [True, False])
def test_a_job_that_was_sent_twice_is_not_failed_twice_either(harness: WorkerHarness, healed: bool) -> None:
    sick = [True]
    fake_model = Sickly(RuntimeError("no"), lambda _: sick[0])
    with harness.worker(model=fake_model, max_receives=0) as worker:
        worker.handle(harness.message(job("one")))
        sick[0] = not healed
        message = harness.message(job("one"))
        if healed:
            worker.handle(message)
        else:
            with pytest.raises(WorkerBroken, match="received again, and the warm-up fails, too"):
                worker.handle(message)
    assert fake_model.tried == ["one", "warm-up", *["one"] * healed]
    assert healed or harness.receive().receives == 2, "handed back at once"
    assert not [key for key in harness.stored() if key.endswith("=claim")]


def test_a_worker_that_is_asked_to_end_does_not_finish_its_warm_up(harness: WorkerHarness, stop: Any) -> None:
    fake_model = Sickly(RuntimeError("no"), lambda name: name.startswith("poison"))
    for number in range(3):
        harness.aws.send(job(f"poison-{number}"))
    fake_model._before_step = lambda _: stop.request("SIGTERM", 90)  # the first thing drawn is the warm-up
    with harness.worker(model=fake_model) as worker:
        harness.run_until(worker, lambda: fake_model.warmed_up == 1)


def test_others_come_first_where_jobs_fail_again_although_the_warm_up_is_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [100.0]
    monkeypatch.setattr(flux_worker.breaker.time, "monotonic", lambda: clock[0])
    generation_breaker, pauses = GenerationBreaker(), []
    for round_ in range(8):
        for number in range(3):
            assert generation_breaker.suspicion() is None
            generation_breaker.failed(f"{round_}-{number}", RuntimeError(), 600)
        assert generation_breaker.suspicion() == "3 jobs in a row failed, the last with RuntimeError"
        pauses.append(generation_breaker.warm_up_succeeded())
        assert generation_breaker.remaining() == pauses[-1]
        clock[0] += pauses[-1]
        assert generation_breaker.remaining() == 0
    assert pauses == [0, 30, 60, 120, 240, 480, 900, 900]
    generation_breaker.succeeded()
    for number in range(3):
        generation_breaker.failed(f"{number}", RuntimeError(), 600)
    assert generation_breaker.warm_up_succeeded() == 0


def test_jobs_that_fail_one_at_a_time_beside_good_warm_ups_count_together() -> None:
    """A GPU that is ill at times may draw each warm-up, and no job."""
    generation_breaker, pauses = GenerationBreaker(), []
    for number in range(6):
        generation_breaker.failed(f"job-{number}", RuntimeError(), 0)
        assert generation_breaker.suspicion()
        pauses.append(generation_breaker.warm_up_succeeded())
    assert pauses == [0, 0, 0, 30, 60, 120]


def test_a_single_job_that_comes_back_does_not_keep_the_worker_from_others() -> None:
    generation_breaker = GenerationBreaker()
    for _ in range(10):
        generation_breaker.failed("one", RuntimeError(), 0)
        assert (
            generation_breaker.suspicion() == "a job that failed here with RuntimeError is about to come back"
        )
        assert generation_breaker.warm_up_succeeded() == 0
