"""Each check of the evidence finds the fault that it looks for."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from . import evidence
from .fleet import Life
from .lives import ASIDE, FAULT, LOST, PROVEN, life
from .messages import SentMessages

JOB = {"id": "one", "prompt": "a cat", "width": 256, "height": 272, "steps": 1, "format": "jpg"}
ORDERS = SentMessages([], {"one": [JOB]}, {"bad"}, 1, frozenset({"forbidden"}), frozenset({"poison"}))


def picture(size: tuple[int, int] = (256, 272), kind: str = "JPEG") -> bytes:
    data = io.BytesIO()
    image = Image.new("RGB", size)
    image.paste((200, 100, 0), (0, 0, size[0] // 2, size[1]))
    image.save(data, format=kind)
    return data.getvalue()


def black() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (256, 272)).save(data, format="JPEG")
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
DEAD = [event("FluxImageFailed", id=name, dead_lettered=True) for name in ("forbidden", "poison")]


def test_what_is_right_passes(found: dict[str, evidence.Stored]) -> None:
    records = evidence.every_job_has_one_set_of_objects(ORDERS, found)
    counts = evidence.everything_was_announced(ORDERS, records, [READY, READY, *FAILED, *DEAD])
    assert counts == {"FluxImageReady": 2, "FluxImageFailed": 4}


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
            lambda found: found.update({"images/one.jpg": stored(black(), "image/jpeg")}), id="black"
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
    "received",
    [
        pytest.param([*FAILED, *DEAD], id="never-announced"),
        pytest.param([READY, FAILED[0], *DEAD], id="nameless-never-told"),
        pytest.param([READY, FAILED[1], *DEAD], id="refusal-never-told"),
        pytest.param([READY, *FAILED, DEAD[0]], id="end-never-told"),
        pytest.param(
            [READY, *FAILED, DEAD[0], event("FluxImageFailed", id="poison", reason="why")],
            id="end-not-called-one",
        ),
        pytest.param(
            [READY, *FAILED, *DEAD, event("FluxImageFailed", id="one", reason="why")], id="good-one-failed"
        ),
        pytest.param(
            [READY, *FAILED, *DEAD, event("FluxImageReady", id="who", keys=[], seed=1)], id="never-asked"
        ),
        pytest.param([event("FluxImageReady", id="one", keys=[], seed=7), *FAILED, *DEAD], id="other-keys"),
    ],
)
def test_events(found: dict[str, evidence.Stored], received: list[dict[str, Any]]) -> None:
    records = evidence.every_job_has_one_set_of_objects(ORDERS, found)
    with pytest.raises(AssertionError):
        evidence.everything_was_announced(ORDERS, records, received)


@pytest.mark.parametrize(
    ("mark", "right"),
    [
        pytest.param(stored(b'{"failed": true}'), True, id="bare"),
        pytest.param(stored(b'{"token": "a", "failed": true}'), True, id="of-a-claim"),
        pytest.param(stored(b'{"token": "a"}'), False, id="unmarked-claim"),
        pytest.param(None, False, id="none"),
    ],
)
def test_marks(found: dict[str, evidence.Stored], mark: evidence.Stored | None, right: bool) -> None:
    if mark:
        found["images/bad=claim"] = mark
    with contextlib.nullcontext() if right else pytest.raises(AssertionError, match="no mark"):
        evidence.each_failure_is_marked(found)


def test_what_nobody_heard_of_need_not_be_told(found: dict[str, evidence.Stored]) -> None:
    """The answer that brought a message for the last time was lost on the way."""
    records = evidence.every_job_has_one_set_of_objects(ORDERS, found)
    lost = Counter(["poison", None])
    evidence.everything_was_announced(ORDERS, records, [READY, FAILED[0], DEAD[0]], lost)


@pytest.mark.parametrize(
    ("dead", "wrong"),
    [
        pytest.param(["forbidden", "poison"], None, id="the-bad"),
        pytest.param(["forbidden", "poison", "one"], "for no fault", id="a-good-one"),
        pytest.param(["forbidden"], "neither done nor dead", id="one-vanished"),
    ],
)
def test_dead_letters(dead: list[str], wrong: str | None) -> None:
    bodies = ["no json", *(json.dumps({"id": name}) for name in dead)]
    if wrong is None:
        evidence.only_bad_jobs_are_dead_letters(ORDERS, bodies)
        return
    with pytest.raises(AssertionError, match=wrong):
        evidence.only_bad_jobs_are_dead_letters(ORDERS, bodies)


@pytest.mark.parametrize("seed", [pytest.param(7, id="first-drawn"), pytest.param(9, id="second-drawn")])
@pytest.mark.parametrize("reason", [pytest.param("seed: not as", id="told"), pytest.param("no", id="untold")])
def test_two_jobs_of_one_id(found: dict[str, evidence.Stored], seed: int, reason: str) -> None:
    """Either may be the one that is drawn; the other has to be told of, by the field that differs."""
    sent = replace(ORDERS, requested={"one": [JOB, JOB | {"seed": 9}]})
    change_record(found, seed=seed)
    records = evidence.every_job_has_one_set_of_objects(sent, found)
    received = [event("FluxImageReady", id="one", keys=["images/one.jpg"], seed=seed), *FAILED, *DEAD]
    received.append(event("FluxImageFailed", id="one", reason=reason))
    if "seed" in reason:
        evidence.everything_was_announced(sent, records, received)
        return
    with pytest.raises(AssertionError):
        evidence.everything_was_announced(sent, records, received)


@pytest.mark.parametrize(
    ("lives", "wrong"),
    [
        pytest.param([life((10, "drawing"), (20, "drawn"))], None, id="once"),
        pytest.param(
            [life((10, "drawing"), killed=15), life((20, "drawing"), (25, "drawn"))], None, id="after-a-kill"
        ),
        pytest.param(
            [
                life((10, "drawing"), (15, "returned to the queue: SIGTERM")),
                life((20, "drawing"), (25, "drawn")),
            ],
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
        pytest.param(
            [life((10, "drawing"), (15, FAULT)), life((20, "drawing"), (25, "drawn"))],
            None,
            id="after-a-fault",
        ),
        pytest.param(
            [life((10, "drawing"), (15, "drawn"), (16, ASIDE)), life((20, "drawing"), (25, "drawn"))],
            None,
            id="after-it-was-set-aside",
        ),
        pytest.param(
            [
                life(
                    (10, "drawing"), (15, "drawn"), (16, "drawing", "two"), (17, ASIDE), (18, "drawn", "two")
                ),
                life((20, "drawing"), (25, "drawn")),
            ],
            None,
            id="set-aside-while-the-next-was-drawn",
        ),
        pytest.param(
            [
                life(
                    (10, "drawing"), (15, "drawn"), (16, "drawing", "two"), (17, "drawn", "two"), (18, LOST)
                ),
                life((20, "drawing"), (25, "drawn")),
            ],
            None,
            id="lost-after-the-next-was-drawn",
        ),
        pytest.param(
            [
                life((10, "drawing"), (15, "drawn"), (16, "drawing", "two"), (18, LOST, "two")),
                life((20, "drawing"), (25, "drawn")),
            ],
            "nobody was killed",
            id="the-next-was-lost",
        ),
        pytest.param(
            [
                life((10, "drawing"), (15, "drawn"), (16, "done"), (18, LOST)),
                life((20, "drawing"), (25, "drawn")),
            ],
            "nobody was killed",
            id="lost-after-it-was-done",
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
        evidence.nothing_was_generated_twice_needlessly(list(evidence.drawings(fleet)), found)
        return
    with pytest.raises(AssertionError, match=wrong):
        evidence.nothing_was_generated_twice_needlessly(list(evidence.drawings(fleet)), found)


@pytest.mark.parametrize(
    ("lives", "wasted"),
    [
        pytest.param([life((10, FAULT))], 1, id="once"),
        pytest.param([life((10, FAULT), (20, "drawn"), (30, FAULT))], 2, id="another-was-drawn"),
        pytest.param([life((10, FAULT), (20, PROVEN), (30, FAULT))], 2, id="the-warm-up-was-drawn"),
        pytest.param([life((10, FAULT)), life((20, FAULT))], 2, id="two-workers"),
        pytest.param([life((10, FAULT), (20, FAULT))], None, id="twice-in-a-row"),
    ],
)
def test_receives_burnt(lives: list[Life], wasted: int | None) -> None:
    fleet: Any = SimpleNamespace(lives=lambda: lives)
    if wasted:
        assert evidence.wasted_receives(fleet, ORDERS) == {"one": wasted}
        return
    with pytest.raises(AssertionError, match="failed twice"):
        evidence.wasted_receives(fleet, ORDERS)


@pytest.mark.parametrize(
    ("pending", "faulty", "right"),
    [
        pytest.param("forbidden", False, True, id="forbidden"),
        pytest.param("one", False, False, id="never-delivered"),
        pytest.param("one", True, True, id="of-a-sick-worker-and-drawn-elsewhere"),
        pytest.param("two", True, False, id="of-a-sick-worker-and-lost"),
    ],
)
def test_what_is_kept(found: dict[str, evidence.Stored], pending: str, faulty: bool, right: bool) -> None:
    entry = Path(f"{pending}.entry")
    fleet: Any = SimpleNamespace(outbox=lambda healthy=False: [] if healthy and faulty else [entry])
    if right:
        assert evidence.undeliverable_results(fleet, ORDERS, found) == 1
        return
    with pytest.raises(AssertionError, match="is left"):
        evidence.undeliverable_results(fleet, ORDERS, found)
