"""Durations in profiles: texts such as 30d and 12h, and what is said of any other value."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from bake.profile.types import LONGEST, Duration, duration_text

ADAPTER: TypeAdapter[timedelta] = TypeAdapter(Duration)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("30d", timedelta(days=30)),
        ("12h", timedelta(hours=12)),
        ("1h", timedelta(hours=1)),
        ("3650d", LONGEST),
        ("87600h", LONGEST),
    ],
)
def test_a_duration_is_days_or_hours(text: str, found: timedelta) -> None:
    assert ADAPTER.validate_python(text) == found


@pytest.mark.parametrize(
    "value",
    ["", "0d", "0h", "-3d", "+3d", "3", "d", "3 d", " 3d", "3d\n", "3D", "1.5d", "3m", "1d12h", "03d", "３d"],
)
def test_another_text_is_told_what_a_duration_looks_like(value: str) -> None:
    assert _error(value)["type"] == "like"
    assert _error(value)["msg"] == "does not look like a duration (30d, 12h)"


@pytest.mark.parametrize("value", [30, 0, -1, 1.5, True, None, [], {}, ["30d"]])
def test_a_number_alone_is_no_duration(value: Any) -> None:
    assert _error(value)["type"] == "like"


@pytest.mark.parametrize("text", ["3651d", "99999d", "87601h", "99999h"])
def test_a_duration_of_more_than_ten_years_is_refused(text: str) -> None:
    assert "must be at most 3650d" in _error(text)["msg"]


@pytest.mark.parametrize("text", ["100000d", "9" * 30 + "d"])
def test_a_number_of_too_many_digits_is_refused(text: str) -> None:
    assert _error(text)["type"] == "like"


@given(st.integers(1, 87600))
def test_the_text_of_a_duration_is_read_as_the_same_duration(hours: int) -> None:
    duration = timedelta(hours=hours)
    text = duration_text(duration)
    assert ADAPTER.validate_python(text) == duration
    assert ADAPTER.dump_python(duration) == text
    assert re.fullmatch(ADAPTER.json_schema()["pattern"], text)


def test_editors_know_a_duration_as_a_text() -> None:
    assert ADAPTER.json_schema()["type"] == "string"
    assert not re.search(ADAPTER.json_schema()["pattern"], "0d")


def _error(value: Any) -> dict[str, Any]:
    with pytest.raises(ValidationError) as caught:
        ADAPTER.validate_python(value)
    return dict(caught.value.errors()[0])
