"""The evidence is worth something: each thing that must not happen is planted once and found."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from . import evidence
from .fleet import Life
from .orders import Orders

JOB = {"id": "one", "prompt": "a cat", "width": 256, "height": 272, "steps": 1, "format": "jpg"}
ORDERS = Orders([], {"one": [JOB]}, {"bad"}, 1)


def picture(size: tuple[int, int] = (256, 272), kind: str = "JPEG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size).save(data, format=kind)
    return data.getvalue()


def stored(data: bytes, content_type: str = "application/json") -> evidence.Stored:
    return evidence.Stored(data, content_type, 100.0)


@pytest.fixture
def found() -> dict[str, evidence.Stored]:
    """A bucket as it has to be."""
    record = {
        "job": JOB | {"seed": 7},
        "keys": ["images/one.jpg"],
        "content_type": "image/jpeg",
        "sha256": [hashlib.sha256(picture()).hexdigest()],
    }
    return {
        "images/one.jpg": stored(picture(), "image/jpeg"),
        "images/one.json": stored(json.dumps(record).encode()),
        "images/bad=failed.json": stored(b"{}"),
    }


def event(kind: str, **detail: Any) -> dict[str, Any]:
    return {"detail-type": kind, "detail": detail}


READY = event("FluxImageReady", id="one", keys=["images/one.jpg"], seed=7)
FAILED = [event("FluxImageFailed", id=name, reason="why") for name in ("bad", None)]


def test_what_is_right_passes(found: dict[str, evidence.Stored]) -> None:
    records = evidence.every_job_has_one_set_of_objects(ORDERS, found)
    counts = evidence.everything_was_announced(ORDERS, records, [READY, READY, *FAILED])
    assert counts == {"FluxImageReady": 2, "FluxImageFailed": 2}


def change_record(found: dict[str, evidence.Stored], **job: Any) -> None:
    record = json.loads(found["images/one.json"].data)
    record["job"] |= job
    found["images/one.json"] = stored(json.dumps(record).encode())


@pytest.mark.parametrize(
    "plant",
    [
        pytest.param(lambda found: found.pop("images/one.json"), id="no-record"),
        pytest.param(lambda found: found.update({"images/one=claim": stored(b"")}), id="claim-left"),
        pytest.param(lambda found: found.update({"images/one.png": stored(b"")}), id="second-image"),
        pytest.param(lambda found: found.pop("images/bad=failed.json"), id="refusal-not-written"),
        pytest.param(lambda found: change_record(found, prompt="a dog"), id="another-job"),
        pytest.param(
            lambda found: found.update({"images/one.jpg": stored(picture((256, 256)), "image/jpeg")}),
            id="wrong-size",
        ),
        pytest.param(
            lambda found: found.update({"images/one.jpg": stored(picture(kind="PNG"), "image/png")}),
            id="wrong-format",
        ),
        pytest.param(
            lambda found: found.update(
                {"images/one.jpg": replace(found["images/one.jpg"], data=picture()[:-9])}
            ),
            id="cut-short",
        ),
    ],
)
def test_objects(found: dict[str, evidence.Stored], plant: Callable[[Any], object]) -> None:
    plant(found)
    with pytest.raises((AssertionError, OSError, KeyError)):
        evidence.every_job_has_one_set_of_objects(ORDERS, found)


@pytest.mark.parametrize(
    "arrived",
    [
        pytest.param(FAILED, id="never-announced"),
        pytest.param([READY, FAILED[0]], id="nameless-never-told"),
        pytest.param([READY, FAILED[1]], id="refusal-never-told"),
        pytest.param(
            [READY, *FAILED, event("FluxImageFailed", id="one", reason="why")], id="good-one-failed"
        ),
        pytest.param([READY, *FAILED, event("FluxImageReady", id="who", keys=[], seed=1)], id="never-asked"),
        pytest.param([event("FluxImageReady", id="one", keys=[], seed=7), *FAILED], id="other-keys"),
    ],
)
def test_events(found: dict[str, evidence.Stored], arrived: list[dict[str, Any]]) -> None:
    records = evidence.every_job_has_one_set_of_objects(ORDERS, found)
    with pytest.raises(AssertionError):
        evidence.everything_was_announced(ORDERS, records, arrived)


@pytest.mark.parametrize("seed", [pytest.param(7, id="first-drawn"), pytest.param(9, id="second-drawn")])
@pytest.mark.parametrize("reason", [pytest.param("seed: not as", id="told"), pytest.param("no", id="untold")])
def test_two_jobs_of_one_id(found: dict[str, evidence.Stored], seed: int, reason: str) -> None:
    """Either may be the one that is drawn; the other has to be told of, by the field that differs."""
    orders = replace(ORDERS, asked={"one": [JOB, JOB | {"seed": 9}]})
    change_record(found, seed=seed)
    records = evidence.every_job_has_one_set_of_objects(orders, found)
    arrived = [event("FluxImageReady", id="one", keys=["images/one.jpg"], seed=seed), *FAILED]
    arrived.append(event("FluxImageFailed", id="one", reason=reason))
    if "seed" in reason:
        evidence.everything_was_announced(orders, records, arrived)
        return
    with pytest.raises(AssertionError):
        evidence.everything_was_announced(orders, records, arrived)


LOST = "stopped working on the job: another worker took the job over"


def life(*said: tuple[float, str], killed: float | None = None) -> Life:
    """A worker's log about the job, by the seconds of its lines."""
    lines = [
        {"time": datetime.fromtimestamp(at, UTC).isoformat(), "message": message, "job": "one"}
        for at, message in said
    ]
    return Life(None, Path("log"), 0.0, lines, killed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lives", "wrong"),
    [
        pytest.param([life((10, "drawing"), (20, "drawn"))], None, id="once"),
        pytest.param(
            [life((10, "drawing"), killed=15), life((20, "drawing"), (25, "drawn"))], None, id="after-a-kill"
        ),
        pytest.param(
            [life((10, "drawing"), (15, "handed back: SIGTERM")), life((20, "drawing"), (25, "drawn"))],
            None,
            id="after-it-was-handed-back",
        ),
        pytest.param(
            [life((10, "drawing"), (15, LOST), (20, "drawing"), (25, "drawn"))], None, id="after-a-loss"
        ),
        pytest.param(
            [life((10, "drawing"), (15, "drawn"), (16, LOST)), life((20, "drawing"), (25, "drawn"))],
            None,
            id="lost-when-it-was-drawn",
        ),
        pytest.param([life((10, "drawing"))], "neither finished", id="forgotten"),
        pytest.param(
            [life((10, "drawing"), (20, "drawing"), (25, "drawn"))], "neither finished", id="begun-anew"
        ),
        pytest.param(
            [life((10, "drawing"), (20, LOST)), life((15, "drawing"), (25, "drawn"))],
            "at the same time",
            id="before-the-loss",
        ),
        pytest.param(
            [life((10, "drawing"), (20, "drawn")), life((15, "drawing"), (25, "drawn"))],
            "at the same time",
            id="at-the-same-time",
        ),
        pytest.param(
            [life((10, "drawing"), killed=20), life((15, "drawing"), (25, "drawn"))],
            "at the same time",
            id="before-the-kill",
        ),
        pytest.param(
            [life((10, "drawing"), (20, "drawn")), life((30, "drawing"), (35, "drawn"))],
            "nobody was killed",
            id="again-without-need",
        ),
        pytest.param([life((110, "drawing"), (120, "drawn"))], "record was there", id="after-its-record"),
    ],
)
def test_drawings(found: dict[str, evidence.Stored], lives: list[Life], wrong: str | None) -> None:
    fleet: Any = SimpleNamespace(lives=lambda: lives)
    if wrong is None:
        evidence.nothing_was_drawn_twice_without_need(list(evidence.drawings(fleet)), found)
        return
    with pytest.raises(AssertionError, match=wrong):
        evidence.nothing_was_drawn_twice_without_need(list(evidence.drawings(fleet)), found)
