"""The fields of a job; invalid ones are refused with a reason, never adjusted."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from flux_worker.errors import InvalidJob
from flux_worker.jobspec import keys
from flux_worker.jobspec.job import Job, parse, schema

GOOD: dict[str, object] = {"id": "a-1", "prompt": "a cat"}


def test_defaults_are_flux_devs_own() -> None:
    job = parse(json.dumps(GOOD))
    assert job.model_dump() == GOOD | {
        "width": 1024,
        "height": 1024,
        "steps": 28,
        "guidance": 3.5,
        "seed": None,
        "images": 1,
        "format": "png",
        "quality": None,
        "max_sequence_length": 512,
        "s3_prefix": "",
        "metadata": {},
    }


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"width": 256, "height": 1440}, id="smallest-and-largest-side"),
        pytest.param({"steps": 1}, id="one-step"),
        pytest.param({"guidance": 0}, id="whole-number-guidance"),
        pytest.param({"width": 1024.0, "steps": 4.0, "seed": 7.0}, id="whole-floats"),
        pytest.param({"seed": 2**53 - 1}, id="largest-seed"),
        pytest.param({"seed": None}, id="null-seed"),
        pytest.param({"id": "A.b_c-9" * 18}, id="long-id"),
        pytest.param({"prompt": "кот 🐈 猫\n\ttwo lines"}, id="any-unicode"),
        pytest.param({"images": 4, "seed": 2**53 - 4}, id="largest-seed-of-four"),
        pytest.param({"format": "jpg", "quality": 1}, id="lowest-quality"),
        pytest.param({"format": "webp", "quality": None}, id="null-quality"),
        pytest.param({"max_sequence_length": 1}, id="short-sequence"),
        pytest.param({"s3_prefix": "cats/2026-11/it's (new)/".replace(" ", "")}, id="prefix"),
        pytest.param({"metadata": {"a": [{"b": [{"c": [{"d": []}]}]}]}}, id="deepest-metadata"),
        pytest.param({"metadata": {"a": "x" * (4096 - 8)}}, id="largest-metadata"),
        pytest.param({"metadata": {"": "\x00 🐈", "n": -(2**53 - 1), "f": 1e308}}, id="odd-metadata"),
    ],
)
def test_good_jobs_pass(parameters: dict[str, object]) -> None:
    assert parse(json.dumps(GOOD | parameters)).model_dump().items() >= parameters.items()


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        pytest.param({"id": ""}, "id", id="empty-id"),
        pytest.param({"id": "x" * 129}, "id", id="long-id"),
        pytest.param({"id": "../up"}, "id", id="path-in-id"),
        pytest.param({"id": "a\n"}, "id", id="newline-in-id"),
        pytest.param({"id": 7}, "id", id="number-as-id"),
        pytest.param({"prompt": ""}, "prompt", id="empty-prompt"),
        pytest.param({"prompt": " \n"}, "prompt", id="blank-prompt"),
        pytest.param({"prompt": "a\x00b"}, "prompt", id="nul-in-prompt"),
        pytest.param({"prompt": "x" * 10_001}, "prompt", id="huge-prompt"),
        pytest.param({"prompt": None}, "prompt", id="null-prompt"),
        pytest.param({"width": 250}, "width", id="too-narrow"),
        pytest.param({"width": 1456}, "width", id="too-wide"),
        pytest.param({"height": 1000}, "height", id="not-a-multiple-of-16"),
        pytest.param({"height": "512"}, "height", id="text-as-number"),
        pytest.param({"height": 512.5}, "height", id="fraction"),
        pytest.param({"steps": 0}, "steps", id="no-steps"),
        pytest.param({"steps": 51}, "steps", id="too-many-steps"),
        pytest.param({"steps": True}, "steps", id="true-as-number"),
        pytest.param({"guidance": 10.1}, "guidance", id="too-much-guidance"),
        pytest.param({"guidance": float("nan")}, "guidance", id="nan"),
        pytest.param({"seed": -1}, "seed", id="negative-seed"),
        pytest.param({"seed": 2**53}, "seed", id="seed-beyond-json"),
        pytest.param({"negative_prompt": "dogs"}, "negative_prompt", id="unknown-field"),
        pytest.param({"images": 0}, "images", id="no-images"),
        pytest.param({"images": 5}, "images", id="too-many-images"),
        pytest.param({"images": 2, "seed": 2**53 - 1}, "seed", id="last-seed-beyond-json"),
        pytest.param({"format": "gif"}, "format", id="unknown-format"),
        pytest.param({"format": "PNG"}, "format", id="format-in-capitals"),
        pytest.param({"quality": 90}, "quality", id="quality-of-png"),
        pytest.param({"format": "jpg", "quality": 0}, "quality", id="no-quality"),
        pytest.param({"format": "jpg", "quality": 101}, "quality", id="too-much-quality"),
        pytest.param({"max_sequence_length": 0}, "max_sequence_length", id="no-sequence"),
        pytest.param({"max_sequence_length": 513}, "max_sequence_length", id="too-long-sequence"),
        pytest.param({"s3_prefix": "cats"}, "s3_prefix", id="prefix-without-slash"),
        pytest.param({"s3_prefix": "/cats/"}, "s3_prefix", id="absolute-prefix"),
        pytest.param({"s3_prefix": "/"}, "s3_prefix", id="root-as-prefix"),
        pytest.param({"s3_prefix": "a//b/"}, "s3_prefix", id="empty-part-of-prefix"),
        pytest.param({"s3_prefix": "a/../b/"}, "s3_prefix", id="up-in-prefix"),
        pytest.param({"s3_prefix": "./"}, "s3_prefix", id="dot-in-prefix"),
        pytest.param({"s3_prefix": "ä/"}, "s3_prefix", id="letter-in-prefix"),
        pytest.param({"s3_prefix": "a\n/"}, "s3_prefix", id="newline-in-prefix"),
        pytest.param({"s3_prefix": "a=b/"}, "s3_prefix", id="equals-in-prefix"),
        pytest.param({"s3_prefix": "x" * 256 + "/"}, "s3_prefix", id="long-prefix"),
        pytest.param({"metadata": []}, "metadata", id="list-as-metadata"),
        pytest.param({"metadata": None}, "metadata", id="null-as-metadata"),
        pytest.param({"metadata": {"a": "x" * (4096 - 7)}}, "metadata", id="large-metadata"),
        pytest.param({"metadata": {"a": "猫" * 1400}}, "metadata", id="large-in-bytes"),
        pytest.param({"metadata": {"a": [{"b": [{"c": [{"d": [[]]}]}]}]}}, "metadata", id="deep-metadata"),
        pytest.param({"metadata": {"a": float("nan")}}, "metadata", id="nan-in-metadata"),
        pytest.param({"metadata": {"a": [float("inf")]}}, "metadata", id="infinity-in-metadata"),
        pytest.param({"metadata": {"a": 2**53}}, "metadata", id="number-beyond-json"),
    ],
)
def test_bad_jobs_are_refused_by_name(parameters: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        parse(json.dumps(GOOD | parameters))
    assert caught.value.reason.startswith(f"{field}: ")
    assert caught.value.job_id == (None if field == "id" else "a-1")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("", id="empty"),
        pytest.param("\ud800", id="not-utf-8"),
        pytest.param('{"id": "a-1", "prompt": "\\ud800"}', id="lone-surrogate"),
        pytest.param("null", id="null"),
        pytest.param("{" * 5_000, id="deep"),
        pytest.param(json.dumps({f"field{i}" * 50: 1 for i in range(2_000)}), id="many-unknown-fields"),
        pytest.param('{"id": ' + "9" * 10_000 + "}", id="endless-number"),
        pytest.param('{"id": "a", "prompt": "b", "metadata": {"a": "\\ud800"}}', id="surrogate-in-metadata"),
        pytest.param('{"id": "a", "prompt": "b", "metadata": ' + "[" * 3_000, id="deep-metadata"),
        pytest.param('{"id": "a", "prompt": "b", "two\\nlines\\u2028": 1}', id="lines-in-a-name"),
        pytest.param(json.dumps(GOOD | {"metadata": {"a": "x" * 256 * 1024}}), id="huge"),
    ],
)
def test_garbage_is_refused_in_a_reason_that_fits_an_event(body: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        parse(body)
    assert 0 < len(caught.value.reason) <= 1_000
    caught.value.reason.encode()
    assert caught.value.reason.isprintable()


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(InvalidJob, match=r"prompt: .*width: .*steps: "):
        parse('{"id": "a", "prompt": "", "width": 7, "steps": 99}')


def test_a_message_that_is_too_large_is_refused_by_its_size() -> None:
    with pytest.raises(
        InvalidJob, match="the message is 262145 bytes long, a job has at most 262144"
    ) as caught:
        parse(json.dumps(GOOD).ljust(256 * 1024 + 1))
    assert caught.value.job_id == "a-1"
    assert parse(json.dumps(GOOD).ljust(256 * 1024)).id == "a-1"


def test_a_missing_seed_follows_from_the_id_and_a_given_one_is_kept() -> None:
    job = Job(id="a", prompt="b")
    assert job.seeded().seed == 3398926610
    assert Job(id="a2", prompt="b").seeded().seed != job.seeded().seed
    assert Job(id="a", prompt="b", seed=0).seeded().seed == 0


def test_parameters_leave_nothing_open_and_nothing_out() -> None:
    job = Job(id="a", prompt="b", format="jpg", metadata={"x": 1})
    parameters = job.parameters()
    assert set(parameters) == set(Job.model_fields) - {"id", "metadata"}
    assert parameters["seed"] == job.seeded().seed
    assert parameters["quality"] == 90
    assert Job(id="a", prompt="b").parameters()["quality"] is None
    assert (
        Job(id="a", prompt="b", format="jpg", quality=90, seed=parameters["seed"]).parameters() == parameters
    )


def test_no_two_jobs_share_an_object() -> None:
    """Ids and prefixes that look like each other's, with every number of images."""
    names = [
        "cat",
        "cat-1",
        "cat.png",
        "cat.1",
        "cat_1",
        "1",
        "failed",
        "cat.failed",
        "cat.json",
        "cat.claim",
        "..",
    ]
    found: dict[str, tuple[str, str]] = {}
    for job_id in names:
        for s3_prefix in ("", "cat/", "cat-1/", "1/", "cat/1/"):
            for images in (1, 4):
                job = Job(id=job_id, prompt="b", images=images, s3_prefix=s3_prefix)
                for key in keys.image_keys("images/", job):
                    assert found.setdefault(key, (job_id, s3_prefix)) == (job_id, s3_prefix)
        for name in (keys.record_key, keys.failure_key, keys.claim_key):
            assert found.setdefault(name("images/", job_id), (job_id, "")) == (job_id, "")


def test_the_schema_beside_the_worker_is_the_jobs_own() -> None:
    """`flux-worker schema > worker/job.schema.json` writes it anew."""
    file = Path(__file__).parents[3] / "worker/job.schema.json"
    assert file.read_text(encoding="utf-8") == schema()
    jsonschema.Draft202012Validator.check_schema(json.loads(schema()))
    validator = jsonschema.Draft202012Validator(json.loads(schema()))
    validator.validate(GOOD | {"metadata": {"a": [1]}, "seed": None})
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(GOOD | {"width": 1000})
