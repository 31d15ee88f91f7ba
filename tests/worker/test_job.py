"""What a job may ask for; everything else is refused with a reason, never adjusted."""

from __future__ import annotations

import json

import pytest

from flux_worker.errors import InvalidJob
from flux_worker.job import Job, parse

GOOD: dict[str, object] = {"id": "a-1", "prompt": "a cat"}


def test_defaults_are_flux_devs_own() -> None:
    job = parse(json.dumps(GOOD))
    assert job.model_dump() == GOOD | {
        "width": 1024,
        "height": 1024,
        "steps": 28,
        "guidance": 3.5,
        "seed": None,
    }


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"width": 256, "height": 1440}, id="smallest-and-largest-side"),
        pytest.param({"steps": 1}, id="one-step"),
        pytest.param({"guidance": 0}, id="whole-number-guidance"),
        pytest.param({"seed": 2**53 - 1}, id="largest-seed"),
        pytest.param({"seed": None}, id="null-seed"),
        pytest.param({"id": "A.b_c-9" * 18}, id="long-id"),
        pytest.param({"prompt": "кот 🐈 猫\n\ttwo lines"}, id="any-unicode"),
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
        pytest.param({"height": 512.0}, "height", id="fraction"),
        pytest.param({"steps": 0}, "steps", id="no-steps"),
        pytest.param({"steps": 51}, "steps", id="too-many-steps"),
        pytest.param({"steps": True}, "steps", id="true-as-number"),
        pytest.param({"guidance": 10.1}, "guidance", id="too-much-guidance"),
        pytest.param({"guidance": float("nan")}, "guidance", id="nan"),
        pytest.param({"seed": -1}, "seed", id="negative-seed"),
        pytest.param({"seed": 2**53}, "seed", id="seed-beyond-json"),
        pytest.param({"negative_prompt": "dogs"}, "negative_prompt", id="unknown-field"),
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
    ],
)
def test_garbage_is_refused_in_a_reason_that_fits_an_event(body: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        parse(body)
    assert 0 < len(caught.value.reason) <= 1_000
    caught.value.reason.encode()


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(InvalidJob, match=r"prompt: .*width: .*steps: "):
        parse('{"id": "a", "prompt": "", "width": 7, "steps": 99}')


def test_a_missing_seed_is_chosen_and_a_given_one_kept() -> None:
    job = Job(id="a", prompt="b")
    assert job.seeded().seed is not None
    assert job.seeded().seed != job.seeded().seed
    assert Job(id="a", prompt="b", seed=0).seeded().seed == 0
