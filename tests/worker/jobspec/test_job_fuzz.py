"""Any message is either a valid job or refused with a reason that fits into an event."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from flux_worker.errors import InvalidJob
from flux_worker.jobspec import keys
from flux_worker.jobspec.job import Job, parse, schema

# A busy host is no reason to fail.
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SCHEMA = jsonschema.Draft202012Validator(json.loads(schema()))
ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
EXACT = 2**53 - 1

# What the rules allow, written down once more and without the worker's code.
ids = st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True)
sides = st.integers(16, 90).map(lambda n: 16 * n)
# Cs: lone surrogates are not Unicode text and can't be sent.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=300)
prefix_parts = st.from_regex(r"[A-Za-z0-9!_*'()-]{1,20}", fullmatch=True)
prefixes = st.lists(prefix_parts, max_size=5).map(lambda parts: "".join(f"{part}/" for part in parts))
plain = st.none() | st.booleans() | st.integers(-EXACT, EXACT) | st.floats(-1e9, 1e9) | texts
metadata = st.dictionaries(
    texts.filter(lambda key: len(key) < 40),
    st.recursive(plain, lambda inner: st.lists(inner, max_size=3), max_leaves=5),
    max_size=3,
).filter(lambda found: len(json.dumps(found)) < 4_000)
OPTIONAL: dict[str, st.SearchStrategy[Any]] = {
    "width": sides,
    "height": sides,
    "steps": st.integers(1, 50),
    "guidance": st.floats(0, 10),
    "seed": st.integers(0, EXACT - 3),
    "images": st.integers(1, 4),
    "max_sequence_length": st.integers(1, 512),
    "s3_prefix": prefixes,
    "metadata": metadata,
}


@st.composite
def jobs(draw: st.DrawFn) -> dict[str, Any]:
    """A job that keeps every rule, with or without what is optional."""
    job = {"id": draw(ids), "prompt": draw(texts.filter(lambda text: text.strip() != ""))}
    job |= draw(st.fixed_dictionaries({}, optional=OPTIONAL))
    kind = draw(st.sampled_from([None, "png", "jpg", "webp"]))
    if kind:
        job["format"] = kind
    if kind in ("jpg", "webp") and draw(st.booleans()):
        job["quality"] = draw(st.integers(1, 100))
    return job


def below_or_above(low: int, high: int) -> st.SearchStrategy[Any]:
    return st.integers(-(2**70), low - 1) | st.integers(high + 1, 2**70)


def deep(levels: int) -> dict[str, Any]:
    found: Any = 1
    for _ in range(levels):
        found = {"in": found}
    return found  # type: ignore[no-any-return]


not_a_number = st.none() | st.booleans() | texts | st.lists(st.integers(), max_size=2) | st.just({})
not_text = st.none() | st.booleans() | st.integers() | st.floats() | st.lists(texts, max_size=2) | st.just({})
BROKEN: dict[str, st.SearchStrategy[Any]] = {
    "id": not_text | st.just("") | texts.filter(lambda text: not ID.fullmatch(text)) | st.just("x" * 129),
    "prompt": not_text | st.sampled_from(["", " \t\n", "a\0b", "\u2003", "x" * 10_001]),
    "width": not_a_number | below_or_above(256, 1440) | st.integers(256, 1440).filter(lambda n: n % 16),
    "height": not_a_number | below_or_above(256, 1440) | st.sampled_from([1024.5, float("inf"), "1024"]),
    "steps": not_a_number | below_or_above(1, 50) | st.floats(1.1, 1.9),
    "guidance": not_a_number
    | st.floats(max_value=-1e-9)
    | st.floats(min_value=10.001)
    | st.just(float("nan")),
    "seed": not_a_number.filter(lambda value: value is not None) | below_or_above(0, EXACT),
    "images": not_a_number | below_or_above(1, 4),
    "format": not_text | st.sampled_from(["", "PNG", "jpeg", "gif", "png "]),
    "quality": not_a_number.filter(lambda value: value is not None) | below_or_above(1, 100) | st.just(90.5),
    "max_sequence_length": not_a_number | below_or_above(1, 512),
    "s3_prefix": not_text
    | st.sampled_from(["/", "/a/", "a", "../", "a/../b/", "./", "a//b/", "a\\b/", "a b/", "é/"])
    | st.just("x" * 256 + "/"),
    "metadata": st.none()
    | st.booleans()
    | texts
    | st.lists(texts, max_size=2)
    | st.sampled_from([{"big": "x" * 4_096}, deep(9), {"huge": 2**60}, {"inf": float("inf")}]),
}


def refused(body: str) -> InvalidJob | None:
    """The refusal, held against its own rules; None where the body is a job."""
    try:
        job = parse(body)
    except InvalidJob as error:
        assert 0 < len(error.reason) <= 1_000
        assert len(error.reason.splitlines()) == 1
        error.reason.encode()
        assert error.job_id is None or ID.fullmatch(error.job_id)
        return error
    assert isinstance(job, Job)
    SCHEMA.validate(json.loads(body))
    return None


anything = st.recursive(
    plain | st.floats() | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
near_jobs = st.dictionaries(
    st.sampled_from([*Job.model_fields, "colour"]), anything | ids | prefixes | sides, max_size=14
)


@FUZZ
@given(
    st.text(max_size=400)
    | st.binary(max_size=400).map(lambda data: data.decode("latin-1"))
    | anything.map(json.dumps)
    | near_jobs.map(json.dumps)
)
@example('{"id": "a", "prompt": "\\ud800"}')
@example('{"id": "a", "prompt": "b", "prompt": "c"}')
@example('{"id": "a", "prompt": "b", "guidance": 1e999}')
@example("[" * 50_000)
@example('{"id": "a", "prompt": "b", "metadata": ' + '{"a":' * 5_000 + "1" + "}" * 5_001)
@example("9" * 5_000)
@example("\ufeff{}")
def test_any_text_is_a_job_or_refused(body: str) -> None:
    refused(body)


@FUZZ
@given(jobs())
def test_what_keeps_the_rules_is_taken_as_it_stands(job: dict[str, Any]) -> None:
    taken = parse(json.dumps(job))
    assert taken.model_dump().items() >= job.items()
    assert parse(json.dumps(job, ensure_ascii=False)) == taken
    assert refused(json.dumps(job)) is None
    seeds = {parse(json.dumps(job)).seeded().seed for _ in range(2)}
    assert len(seeds) == 1
    assert None not in seeds


@FUZZ
@given(jobs(), st.data())
def test_one_wrong_field_is_refused_by_its_name(job: dict[str, Any], data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(BROKEN)))
    if field in ("quality", "format"):
        job = {key: value for key, value in job.items() if key != "quality"}
    if field == "quality":
        job["format"] = "jpg"
    job[field] = data.draw(BROKEN[field])
    error = refused(json.dumps(job))
    assert error
    assert error.reason.startswith(field)
    assert error.job_id == (None if field == "id" else job["id"])


@FUZZ
@given(jobs(), texts)
def test_unknown_fields_are_refused(job: dict[str, Any], name: str) -> None:
    assume(name not in Job.model_fields)
    error = refused(json.dumps(job | {name: 1}))
    assert error
    assert "Extra inputs" in error.reason
    assert error.job_id == job["id"]


@FUZZ
@given(jobs(), jobs(), st.booleans())
@example({"id": "a", "prompt": "b"}, {"id": "a.json", "prompt": "b"}, False)
@example({"id": "a", "prompt": "b", "images": 2}, {"id": "a-1", "prompt": "b"}, False)
@example({"id": "a", "prompt": "b"}, {"id": "a.failed", "prompt": "b"}, False)
@example({"id": "a", "prompt": "b"}, {"id": "a", "prompt": "b", "s3_prefix": "a/"}, False)
def test_no_two_jobs_share_an_object(one: dict[str, Any], other: dict[str, Any], same_place: bool) -> None:
    if same_place:
        other["s3_prefix"] = one.get("s3_prefix", "")
    assume(one["id"] != other["id"])
    first, second = (places(parse(json.dumps(job))) for job in (one, other))
    assert not set(first) & set(second)


@FUZZ
@given(jobs())
def test_keys_are_ones_that_s3_takes_and_lie_below_the_prefix(job: dict[str, Any]) -> None:
    found = places(parse(json.dumps(job)))
    assert len(set(found)) == len(found) == 3 + job.get("images", 1)
    for key in found:
        assert key.startswith("images/")
        assert len(key.encode()) <= 1_024
        assert not {"", ".", ".."} & set(key.split("/"))


def places(job: Job) -> list[str]:
    """Every key that this job may ever have an object under."""
    named = [name("images/", job.id) for name in (keys.record_key, keys.failure_key, keys.claim_key)]
    return [*named, *keys.image_keys("images/", job)]


@FUZZ
@given(jobs(), st.data())
def test_leaving_out_what_is_the_default_asks_for_the_same(job: dict[str, Any], data: st.DataObject) -> None:
    """The parameters decide whether the same id asks for the same job again."""
    taken = parse(json.dumps(job))
    stated = taken.model_dump(exclude_none=True)
    kept = data.draw(st.sets(st.sampled_from(sorted(stated))))
    shorter = {key: value for key, value in stated.items() if key in job or key in kept}
    assert parse(json.dumps(shorter)).parameters() == taken.parameters()
    stated["seed"] = taken.seeded().seed
    assert parse(json.dumps(stated)).parameters() == taken.parameters()
