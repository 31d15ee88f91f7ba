"""What the services hold and what the workers logged, held against what was asked."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

from PIL import Image

from .fleet import Fleet, Life
from .orders import Orders

PREFIX = "images/"
GIVEN_UP = ("handed back", "stopped working")  # how the lines begin that say so
FORMATS = {"png": ("PNG", "image/png"), "jpg": ("JPEG", "image/jpeg"), "webp": ("WEBP", "image/webp")}


@dataclass(frozen=True)
class Stored:
    """One object of the bucket."""

    data: bytes
    content_type: str
    modified: float


@dataclass(frozen=True)
class Drawn:
    """One time that a worker drew a job: from when to when, and whether it gave the job up."""

    job: str
    life: Life
    start: float
    end: float
    given_up: bool = False

    def __str__(self) -> str:
        return f"{self.start:.3f} to {self.end:.3f} ({self.life.log})"


def objects(s3: Any, bucket: str) -> dict[str, Stored]:
    """Everything in the bucket, by its key."""
    found = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            answer = s3.get_object(Bucket=bucket, Key=entry["Key"])
            modified = answer["LastModified"].timestamp()
            found[entry["Key"]] = Stored(answer["Body"].read(), answer["ContentType"], modified)
    return found


def events(sqs: Any, queue: str) -> list[dict[str, Any]]:
    """Everything that arrived on the bus; the queue behind it is emptied."""
    found = []
    while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
        found += [json.loads(message["Body"]) for message in messages]
        entries = [{"Id": m["MessageId"], "ReceiptHandle": m["ReceiptHandle"]} for m in messages]
        sqs.delete_message_batch(QueueUrl=queue, Entries=entries)
    return found


def every_job_has_one_set_of_objects(orders: Orders, found: dict[str, Stored]) -> dict[str, dict[str, Any]]:
    """Nothing else lies there: no image without a record, no claim. Gives back the records by id."""
    records = {}
    expected = set()
    for name, variants in orders.asked.items():
        key = f"{PREFIX}{name}.json"
        assert key in found, f"{name} has no record; its objects: {[k for k in found if name in k]}"
        record = records[name] = json.loads(found[key].data)
        expected |= {key, *record["keys"]}
        job = _the_one_drawn(variants, record["job"])
        assert found[key].content_type == "application/json"
        for number, image in enumerate(record["keys"]):
            _is_the_picture(job, record, number, found[image])
    failures = {f"{PREFIX}{name}=failed.json" for name in orders.refused}
    assert not failures - set(found), "refused, and it was not written down why"
    assert not set(found) - expected - failures, "objects that belong to no job"
    return records


def _the_one_drawn(variants: list[dict[str, Any]], recorded: dict[str, Any]) -> dict[str, Any]:
    """Which of the jobs of an id was drawn: of those that the record answers, the one that says most."""
    answered = [job for job in variants if all(recorded[field] == value for field, value in job.items())]
    assert answered, f"asked for was {variants}, and the record says {recorded}"
    return max(answered, key=len)


def _is_the_picture(job: dict[str, Any], record: dict[str, Any], number: int, stored: Stored) -> None:
    """It decodes, has the size and format asked for, and is the one that the record vouches for."""
    image = Image.open(io.BytesIO(stored.data))
    image.load()
    assert (image.format, stored.content_type) == FORMATS[job["format"]]
    assert stored.content_type == record["content_type"]
    assert image.size == (job["width"], job["height"])
    assert len(record["keys"]) == len(record["sha256"]) == job.get("images", 1)
    if job["format"] == "png":
        parameters = json.loads(image.text["parameters"])  # type: ignore[attr-defined]
        assert parameters["seed"] == record["job"]["seed"] + number
        assert parameters["prompt"] == job["prompt"]
    assert hashlib.sha256(stored.data).hexdigest() == record["sha256"][number], "not the picture recorded"


def everything_was_announced(
    orders: Orders, records: dict[str, dict[str, Any]], arrived: list[dict[str, Any]]
) -> Counter[str]:
    """At least one event a message: what was drawn with its keys, what was refused with its reason."""
    ready, failed = (_details(arrived, kind) for kind in ("FluxImageReady", "FluxImageFailed"))
    assert set(ready) == set(orders.asked), "announced, but not asked for, or the other way round"
    told_twice = {name for name, variants in orders.asked.items() if len(variants) > 1}
    nobodys = {None} if orders.nameless else set()
    assert set(failed) == told_twice | orders.refused | nobodys
    assert len(failed.get(None, [])) >= orders.nameless
    for name, variants in orders.asked.items():
        for detail in ready[name]:
            assert detail["keys"] == records[name]["keys"], f"{name} was announced with other keys"
            assert detail["seed"] == records[name]["job"]["seed"]
            assert "prompt" not in detail
        _same_id_is_told_of(variants, records[name]["job"], failed.get(name, []))
    return Counter(event["detail-type"] for event in arrived)


def _details(arrived: list[dict[str, Any]], kind: str) -> dict[str | None, list[dict[str, Any]]]:
    found = defaultdict(list)
    for event in arrived:
        if event["detail-type"] == kind:
            found[event["detail"]["id"]].append(event["detail"])
    return dict(found)


def _same_id_is_told_of(
    variants: list[dict[str, Any]], recorded: dict[str, Any], failures: list[dict[str, Any]]
) -> None:
    """The reason names what the other job of the same id asked for instead."""
    drawn = _the_one_drawn(variants, recorded)
    for other in variants:
        differing = {field for field in {*other, *drawn} if other.get(field) != drawn.get(field)}
        differing -= {"quality"}  # left out, it may be the same
        if differing:
            assert any(all(field in told["reason"] for field in differing) for told in failures), failures


def drawings(fleet: Fleet) -> Iterator[Drawn]:
    """Every time that anything was drawn, as the workers' logs have it."""
    for life in fleet.lives():
        begun: tuple[str, float] | None = None
        last: Drawn | None = None
        for line in life.lines:
            at = datetime.fromisoformat(line["time"]).timestamp()
            given_up = line["message"].startswith(GIVEN_UP)
            if line["message"] == "drawing":
                assert not begun, f"{begun} was neither finished nor given up: {life.log}"
                begun = (line["job"], at)
            elif begun and line.get("job") == begun[0] and (given_up or line["message"] == "drawn"):
                if last:
                    yield last
                last, begun = Drawn(begun[0], life, begun[1], at, given_up), None
            elif given_up and last and line.get("job") == last.job:
                last = replace(last, given_up=True)  # drawn, and then the claim was lost
        if last:
            yield last
        if begun:
            assert life.killed, f"{begun[0]} was begun and neither finished nor given up: {life.log}"
            yield Drawn(begun[0], life, begun[1], life.killed)


def nothing_was_drawn_twice_without_need(drawn: list[Drawn], found: dict[str, Stored]) -> None:
    """Never by two at a time, and again only after whoever drew it was killed or gave it up."""
    by_job = defaultdict(list)
    for one in sorted(drawn, key=lambda one: one.start):
        by_job[one.job].append(one)
    for job, times in by_job.items():
        for earlier, later in pairwise(times):
            story = f"{job}: {earlier}, then {later}"
            assert later.start >= earlier.end, f"two workers drew at the same time: {story}"
            killed = earlier.life.killed
            needed = earlier.given_up or (killed and killed <= later.start)
            assert needed, f"drawn again, and nobody was killed: {story}"
        recorded = found[f"{PREFIX}{job}.json"].modified + 1  # S3 tells whole seconds
        assert times[-1].start <= recorded, f"{job} was drawn again although its record was there"
