"""The JSON Schema and the parser accept the same jobs; the exceptions are listed here and in the schema."""

from __future__ import annotations

import json
import re
import sys
from typing import Annotated, Any

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError

from flux_worker.errors import InvalidJob
from flux_worker.jobspec import json_schema
from flux_worker.jobspec.job import Job, parse, schema

SCHEMA = json.loads(schema())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
GOOD: dict[str, Any] = {"id": "a-1", "prompt": "a cat"}
EXACT = 2**53 - 1


def accepted(body: str) -> bool:
    try:
        parse(body)
    except InvalidJob:
        return False
    return True


def whole_numbers(value: Any) -> list[int]:
    """Those that are written in digits alone: Python reads the others as floats."""
    if isinstance(value, dict | list):
        inside = value.values() if isinstance(value, dict) else value
        return [number for item in inside for number in whole_numbers(item)]
    return [value] if isinstance(value, int) else []


def unsaid(body: str, job: dict[str, Any]) -> set[str]:
    """Which of the reasons that the schema's description names this job gives; nothing else is excused."""
    metadata = job.get("metadata", {})
    compact = json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")
    found = {
        "a message of more than 256 KiB": len(body.encode()) > 256 * 1024,
        "metadata of more than 4 KiB": len(compact) > 4_096,
        "a whole number beyond 2^53 - 1": any(abs(number) > EXACT for number in whole_numbers(metadata)),
        "a lone surrogate": re.search("[\ud800-\udfff]", json.dumps(job, ensure_ascii=False)) is not None,
    }
    return {name for name, given in found.items() if given}


def assert_agreed(body: str) -> None:
    job = json.loads(body)
    valid = VALIDATOR.is_valid(job)
    reasons = unsaid(body, job) if isinstance(job, dict) else set()
    assert all(reason in SCHEMA["description"] for reason in reasons)
    if accepted(body):
        assert valid, [error.message for error in VALIDATOR.iter_errors(job)]
    else:
        assert not valid or reasons, "the schema takes what the parser refuses"


whole = st.sampled_from([0, 1, 2, 4, 5, 16, 28, 50, 51, 90, 100, 101, 255, 256, 512, 513, 1024, 1440, 1456])
limits = st.sampled_from([EXACT - 3, EXACT - 2, EXACT - 1, EXACT, EXACT + 1, 2**63, 2**64, 10**20, 10**400])
numbers = whole | limits | st.integers() | limits.map(lambda number: -number)
floats = (
    whole.map(float)
    | st.sampled_from([1e3, 1.024e3, 0.5, 3.5, 10.5, -0.0, 1e-400, 1e16, 1e300, float(EXACT), 1023.999999])
    | st.floats(allow_nan=False, allow_infinity=False)
)
blanks = st.text(
    "".join(map(chr, [*range(9, 14), *range(28, 33), 0x85, 0xA0, 0x200B, 0x2003, 0x3000, 0xFEFF]))
)
ids = st.sampled_from(["", "a", "a\n", "\na", "a b", "a/b", "é", "..", "x" * 128, "x" * 129, "A.b_c-9"])
prefixes = st.lists(
    st.sampled_from(["a", ".", "..", "...", "", "(x)!*'", "é", "a b", "a\n", "\n", "=", "x" * 300])
)
paths = st.builds(
    lambda parts, end: "/".join(parts) + end, prefixes, st.sampled_from(["", "/", "/\n", "\n", "//"])
)
surrogates = st.sampled_from(["\ud800", "a\udfffb", "\ud83d\ude00"])
texts = (
    st.text(max_size=20)
    | blanks
    | blanks.map(lambda text: text + "\0")
    | ids
    | paths
    | surrogates
    | st.sampled_from(
        ["cat\0", "\0", "cat\n", "x" * 10_000, "x" * 10_001, "猫" * 10_000, "png", "PNG", "jpg\n", "1024"]
    )
)
plain = st.none() | st.booleans() | numbers | floats | texts
nested = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def deep(draw: st.DrawFn) -> Any:
    """About as deep as metadata may be."""
    found = draw(plain | st.just([]) | st.just({}))
    for _ in range(draw(st.integers(5, 9))):
        found = [found] if draw(st.booleans()) else {"in": found}
    return {"a": found}


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "id": ids | plain,
    "prompt": texts | plain,
    "seed": limits | floats | nested,
    "images": st.sampled_from([1, 2, 3, 4, 2.0, 4.0, 1.5, True]) | nested,
    "format": st.sampled_from(["png", "jpg", "webp"]) | nested,
    "quality": st.none() | whole | floats | nested,
    "guidance": floats | numbers | nested,
    "s3_prefix": paths | plain,
    "metadata": deep() | st.dictionaries(st.text(max_size=4), nested, max_size=3) | nested,
    "colour": plain,
}
NUMBERED = dict.fromkeys(
    ["width", "height", "steps", "max_sequence_length"], whole | floats | numbers | nested
)
near_jobs = st.fixed_dictionaries({}, optional=FIELDS | NUMBERED)
changed = st.dictionaries(st.sampled_from(sorted(FIELDS | NUMBERED)), st.none(), max_size=3).flatmap(
    lambda names: st.fixed_dictionaries({name: (FIELDS | NUMBERED)[name] for name in names})
)
FUZZ = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FUZZ
@given(near_jobs | changed.map(lambda fields: GOOD | fields) | nested, st.booleans())
@example(GOOD | {"width": 1024.0}, True)
@example(GOOD | {"prompt": " \u2003\n"}, True)
@example(GOOD | {"prompt": "a\0"}, True)
@example(GOOD | {"id": "a\n"}, True)
@example(GOOD | {"s3_prefix": "a/../"}, True)
@example(GOOD | {"s3_prefix": "a/\n"}, True)
@example(GOOD | {"quality": 90}, True)
@example(GOOD | {"images": 2.0, "seed": EXACT}, True)
@example(GOOD | {"metadata": {"a": [[[[[[[[]]]]]]]]}}, True)
@example(GOOD | {"metadata": {"a": float("inf")}}, True)
def test_the_schema_and_the_parser_agree(job: Any, escaped: bool) -> None:
    try:
        body = json.dumps(job, ensure_ascii=escaped)
        body.encode()
    except UnicodeEncodeError:
        return  # no message
    assert_agreed(body)


@pytest.mark.parametrize("number", ["1e3", "1.024E3", "-0", "1e400", "1e-400", "1024.00", "16e1", "0.1e5"])
@pytest.mark.parametrize("field", ["width", "steps", "guidance", "seed"])
def test_they_agree_however_a_number_is_written(number: str, field: str) -> None:
    assert_agreed(f'{{"id": "a", "prompt": "b", "{field}": {number}}}')
    assert_agreed(f'{{"id": "a", "prompt": "b", "metadata": {{"a": {number}}}}}')


def test_a_whole_float_asks_for_the_same_job() -> None:
    plain = parse(json.dumps(GOOD | {"width": 1024, "steps": 4, "seed": 7, "images": 2}))
    other = parse('{"id":"a-1","prompt":"a cat","width":1.024e3,"steps":4.0,"seed":7.0,"images":2.0}')
    assert other == plain
    assert other.model_dump_json() == plain.model_dump_json()
    assert type(other.width) is int


@pytest.mark.parametrize(
    ("body", "name"),
    [
        pytest.param('{"id": "a", "prompt": "b", "prompt": "c"}', "prompt", id="prompt"),
        pytest.param('{"id": "a", "id": "a", "prompt": "c"}', "id", id="the-same-twice"),
        pytest.param('{"id": "a", "prompt": "b", "metadata": {"x": [{"y": 1, "y": 2}]}}', "y", id="deep"),
        pytest.param(
            '{"id": "a", "prompt": "b", "metadata": {"\\n": 1, "\\n": 2}}', "'\\n'", id="line-break"
        ),
    ],
)
def test_a_name_that_is_given_twice_is_refused(body: str, name: str) -> None:
    """The first reader takes the first, the second the last, and none of them tells."""
    with pytest.raises(InvalidJob) as caught:
        parse(body)
    assert caught.value.reason == f"{name}: is given twice"
    assert caught.value.job_id == "a"


def test_a_hundred_thousand_names_are_read_at_once() -> None:
    assert not accepted('{"id": "a", "prompt": "b", "metadata": {' + ",".join(['"a":1'] * 40_000) + "}}")


def test_blanks_are_pythons() -> None:
    blank = re.compile(f"[{json_schema.BLANKS}]")
    differing = [
        number
        for number in range(sys.maxunicode + 1)
        if bool(blank.match(chr(number))) != chr(number).isspace()
    ]
    assert differing == []


PATTERNS = [json.loads(text) for text in re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', schema())]


def test_patterns_are_such_that_every_engine_reads_them() -> None:
    """Go's and Rust's have no look-around, and each has its own idea of \\s, \\w and \\u."""
    assert len(PATTERNS) >= 5
    for pattern in PATTERNS:
        assert not re.search(r"\(\?|\\[suwbdAZzp]", pattern), pattern


@settings(FUZZ, max_examples=200)
@given(st.sampled_from(PATTERNS), ids | paths | blanks | st.text(max_size=5))
def test_another_engine_reads_the_patterns_in_the_same_way(pattern: str, text: str) -> None:
    """Rust's, which pydantic has; a last line break aside, that other rules refuse."""
    assume(not text.endswith("\n"))
    rust = TypeAdapter(Annotated[str, Field(pattern=pattern)])
    try:
        rust.validate_python(text)
        matched = True
    except ValidationError:
        matched = False
    assert matched == bool(re.search(pattern, text))


def test_the_schema_knows_every_field() -> None:
    assert set(SCHEMA["properties"]) == set(Job.model_fields)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
