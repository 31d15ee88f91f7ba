"""The schemas of the record, the stored failure and both events are those of what is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flux_worker.commands.schema import SCHEMAS
from flux_worker.encode import CONTENT_TYPES, EncodedImage
from flux_worker.inference.images import GeneratedImages, Origin
from flux_worker.jobs.record import Record
from flux_worker.jobspec.events import FAILED, READY, ImageFailed, StoredFailure
from flux_worker.jobspec.job import Job, parse
from tests.worker.jobspec.test_job_fuzz import ids, jobs, texts
from tests.worker.written import assert_event, assert_written, kept, strict

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
READ = sorted(set(SCHEMAS) - {"job"})
ORIGIN = Origin("black-forest-labs/FLUX.1-dev", "0" * 40, "bf16", "cpu", {"torch": "2"})


def event(kind: str, detail: Any) -> dict[str, Any]:
    """What EventBridge delivers: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events.html"""
    return {
        "version": "0",
        "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
        "detail-type": kind,
        "source": "flux.worker",
        "account": "111122223333",
        "time": "2017-12-22T18:43:48Z",
        "region": "us-west-1",
        "resources": [],
        "detail": json.loads(json.dumps(detail)),
    }


def record(job: Job, seconds: float = 6.7, queued: float | None = None) -> Record:
    files = [EncodedImage("", CONTENT_TYPES[job.format], b"") for _ in range(job.images)]
    generated = GeneratedImages(job.seeded(), (), ORIGIN, seconds, seconds / job.steps)
    return Record.of(generated, files, bucket="pictures", prefix="images/", queue_seconds=queued)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_file_beside_the_worker_is_what_the_command_prints(name: str) -> None:
    """`flux-worker schema NAME > worker/NAME.schema.json` writes it anew."""
    jsonschema.Draft202012Validator.check_schema(kept(name))
    assert json.dumps(kept(name), indent=2) + "\n" == SCHEMAS[name]()


def test_each_schema_has_one_file() -> None:
    files = (Path(__file__).parents[3] / "worker").glob("*.schema.json")
    assert sorted(file.name.removesuffix(".schema.json") for file in files) == sorted(SCHEMAS)


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Each object in a schema, but the lists of properties."""
    for key, value in schema.items():
        inside = value.values() if key in ("properties", "$defs") else [value]
        for one in [part for found in inside for part in (found if isinstance(found, list) else [found])]:
            if isinstance(one, dict):
                yield from parts(one)
    yield schema


@pytest.mark.parametrize("name", SCHEMAS)
def test_only_objects_have_titles(name: str) -> None:
    """Code generators make a type of its own for each title."""
    assert {part["type"] for part in parts(kept(name)) if "title" in part} == {"object"}


@pytest.mark.parametrize("name", READ)
def test_readers_accept_what_later_versions_may_write(name: str) -> None:
    limits = {"minimum", "maximum", "multipleOf", "minLength", "maxLength", "pattern", "not", "default"}
    for part in parts(kept(name)):
        assert not limits & part.keys()
        assert part.get("additionalProperties") is not False
    assert "Readers must accept fields" in kept(name)["description"]


@FUZZ
@given(jobs(), st.floats(0, 1e6), st.none() | st.floats(0, 1e9))
@example({"id": "a", "prompt": "b", "format": "webp"}, 0.0, None)
@example({"id": "a", "prompt": "b", "metadata": {"a": [None, {"b": 1}]}}, 1e-9, 2.04)
def test_every_record_and_its_event_are_as_the_schemas_say(
    job: dict[str, Any], seconds: float, queued: float | None
) -> None:
    written = record(parse(json.dumps(job)), seconds, queued)
    assert_written("record", json.loads(written.model_dump_json()))
    detail = written.detail("images/a.json", written.job.metadata)
    assert_event(event(READY, detail))
    assert detail["metadata"] == job.get("metadata", {})
    assert "prompt" not in detail


@FUZZ
@given(st.none() | ids, st.none() | texts, texts | st.just("a lone \ud800"), st.booleans())
def test_every_failure_and_its_event_are_as_the_schemas_say(
    job_id: str | None, sidecar: str | None, reason: str, dead: bool
) -> None:
    failed = ImageFailed(id=job_id, bucket="b", sidecar=sidecar, reason=reason, dead_lettered=dead).content()
    assert_event(event(FAILED, failed))
    assert failed.get("dead_lettered", False) is dead
    assert ("dead_lettered" in failed) is dead
    assert {"id", "sidecar"} <= failed.keys()
    if job_id:
        stored = StoredFailure.now(job_id, reason, dead_lettered=dead).content()
        assert_written("stored-failure", json.loads(json.dumps(stored)))
        assert ("dead_lettered" in stored) is dead


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        pytest.param("image-ready", {"source": "another"}, id="source"),
        pytest.param("image-ready", {"detail-type": "FluxImageFailed"}, id="type"),
        pytest.param("image-ready", {"detail": {}}, id="no-detail"),
        pytest.param("image-failed", {"detail": {"id": None, "bucket": "b", "reason": "c"}}, id="no-sidecar"),
    ],
)
def test_another_event_is_told_from_them(name: str, changes: dict[str, Any]) -> None:
    details: dict[str, Any] = {
        "image-ready": record(Job(id="a", prompt="b")).detail("a.json", {}),
        "image-failed": ImageFailed(id=None, bucket="b", sidecar=None, reason="c").content(),
    }
    good = event(READY if name == "image-ready" else FAILED, details[name])
    loose = jsonschema.Draft202012Validator(kept(name))
    assert loose.is_valid(good | {"added": 1, "detail": good["detail"] | {"added": 1}})
    assert not jsonschema.Draft202012Validator(strict(kept(name))).is_valid(good | {"added": 1})
    assert not loose.is_valid(good | changes)


def test_a_fact_with_an_unknown_field_is_never_sent() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        ImageFailed(id=None, bucket="b", sidecar=None, reason="c", pixels="d")  # type: ignore[call-arg]
