"""Upload, announce, delete: in that order, and none of the later ones after one that failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

BODY = '{"id": "one", "prompt": "a cat", "width": 256, "height": 256, "seed": 1}'


class Painter:
    """Stands for the model: an even surface at once."""

    device = "cpu"
    revision = "0" * 40

    def check(self, job: Any) -> None:
        """Every prompt is short enough."""

    def draw(self, job: Any, _on_step: Callable[[int], None]) -> Any:
        from flux_worker.model import Drawing

        return Drawing(Image.new("RGB", (job.width, job.height)), job, self.revision, 0.1)

    def broken_by(self, error: Exception) -> bool:
        return False


class Broken(Painter):
    """Runs out of memory at every job."""

    def draw(self, job: Any, _on_step: Callable[[int], None]) -> Any:
        raise MemoryError


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def handle(new_aws: Callable[[], Any], calls: list[str]) -> Callable[..., None]:
    """Handles one message, writing down every call that AWS gets."""
    from flux_worker.notify import Notifier
    from flux_worker.results import Results
    from flux_worker.serve import Worker
    from flux_worker.sqs import JobQueue

    aws = new_aws()

    def client(service: str) -> Any:
        made = aws.client(service)
        made.meta.events.register("before-call.*", lambda model, **_: calls.append(model.name))
        return made

    def run(body: str = BODY, model: Any = None, **places: str) -> None:
        aws.send(body)
        queue = JobQueue(client("sqs"), aws.jobs, visibility_seconds=3)
        to = {"bucket": aws.bucket, "prefix": "images/", "event_bus": aws.bus} | places
        worker = Worker(
            model or Painter(), queue, Results(client("s3"), client("events"), **to), Notifier({}), None
        )  # type: ignore[arg-type]
        message = queue.receive(5)
        assert message
        calls.clear()
        worker.handle(message)

    return run


def test_a_drawn_job(handle: Callable[..., None], calls: list[str]) -> None:
    handle()
    assert calls == ["PutObject", "PutEvents", "DeleteMessage"]


def test_a_refused_job(handle: Callable[..., None], calls: list[str]) -> None:
    handle("no json")
    assert calls == ["PutEvents", "DeleteMessage"]


def test_an_upload_that_fails_is_not_announced(
    handle: Callable[..., None], calls: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    handle(bucket="no-such-bucket")
    assert calls == ["PutObject"]
    assert "the message will come back" in caplog.text


@pytest.mark.parametrize(
    ("body", "before"),
    [pytest.param(BODY, ["PutObject"], id="drawn"), pytest.param("no json", [], id="refused")],
)
def test_an_announcement_that_fails_keeps_the_message(
    handle: Callable[..., None], calls: list[str], body: str, before: list[str]
) -> None:
    handle(body, event_bus="no-such-bus")
    assert calls == [*before, "PutEvents"]


def test_a_drawing_that_fails_keeps_the_message(
    handle: Callable[..., None], calls: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    handle(model=Broken())
    assert calls == []
    assert "drawing failed" in caplog.text


def test_an_event_that_is_not_taken_is_an_error() -> None:
    """PutEvents answers 200 even then."""
    import boto3
    from botocore.stub import ANY, Stubber

    from flux_worker.errors import AnnouncementRefused, InvalidJob
    from flux_worker.results import Results

    events = boto3.client("events", region_name="eu-west-1")
    with Stubber(events) as stub:
        refusal = {"ErrorCode": "ThrottlingException", "ErrorMessage": "slow down"}
        stub.add_response("put_events", {"FailedEntryCount": 1, "Entries": [refusal]}, {"Entries": ANY})
        results = Results(None, events, bucket="b", prefix="", event_bus="flux")  # type: ignore[arg-type]
        with pytest.raises(AnnouncementRefused, match="ThrottlingException: slow down"):
            results.announce_failure(InvalidJob("why"))
