"""Compare what AWS holds and what the workers logged with what was sent."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from PIL import Image

from .fleet import DONE, FAILED, GIVEN_UP, SET_ASIDE, Fleet, Life, Line
from .messages import SentMessages

PREFIX = "images/"
# How the lines begin that say so.
TRIP, PROVEN = "receiving stopped until the warm-up succeeds", "the warm-up succeeded"
FORMATS = {"png": ("PNG", "image/png"), "jpg": ("JPEG", "image/jpeg"), "webp": ("WEBP", "image/webp")}


@dataclass(frozen=True)
class Stored:
    """One object of the bucket."""

    data: bytes
    content_type: str
    modified: float


@dataclass(frozen=True)
class Drawn:
    """One time that a worker drew a job: from when to when, and why another one may have to draw it."""

    job: str
    life: Life
    start: float
    end: float
    given_up: str = ""

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


def bodies(sqs: Any, queue: str) -> list[str]:
    """What is on a queue, which is emptied: the bus's events, or the dead letters."""
    found = []
    while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
        found += [message["Body"] for message in messages]
        entries = [{"Id": m["MessageId"], "ReceiptHandle": m["ReceiptHandle"]} for m in messages]
        sqs.delete_message_batch(QueueUrl=queue, Entries=entries)
    return found


def every_job_has_one_set_of_objects(
    sent: SentMessages, found: dict[str, Stored], unreported: Mapping[str | None, int] = MappingProxyType({})
) -> dict[str, dict[str, Any]]:
    """Nothing else lies there: no image without a record, no claim. Gives back the records by id.

    `unreported`: by id, jobs whose worker may have died at their last receive, with its claim.
    """
    records = {}
    expected = set()
    for name, variants in sent.requested.items():
        key = f"{PREFIX}{name}.json"
        assert key in found, f"{name} has no record; its objects: {[k for k in found if name in k]}"
        record = records[name] = json.loads(found[key].data)
        expected |= {key, *record["keys"]}
        job = _the_one_drawn(variants, record["job"])
        assert found[key].content_type == "application/json"
        for number, image in enumerate(record["keys"]):
            _is_the_picture(job, record, number, found[image])
    failures = {f"{PREFIX}{name}=failed.json" for name in sent.refused}
    assert not failures - set(found), "refused, and it was not written down why"
    failures |= {f"{PREFIX}{name}=failed.json" for name in sent.dead}
    failures |= {f"{PREFIX}{name}=claim" for name in sent.refused | sent.dead}  # the failure's mark
    # Whoever keeps the images of a forbidden job takes its claim for each further try.
    failures |= {f"{PREFIX}{name}=claim" for name in sent.forbidden | (sent.poison & set(unreported))}
    others = set(found) - expected - failures
    assert not others, f"objects that belong to no job: {sorted(others)}"
    return records


def each_failure_is_marked(found: dict[str, Stored]) -> None:
    """A worker that succeeds later learns by the mark alone that there is a failure to remove."""
    for key in found:
        name, failed, _ = key.partition("=failed.json")
        if failed:
            mark = found.get(f"{name}=claim")
            assert mark and json.loads(mark.data).get("failed"), f"{key} has no mark"


def only_bad_jobs_are_dead_letters(sent: SentMessages, dead: list[str]) -> None:
    """No good job is among the dead letters, and each is that no worker can ever do."""
    ids = [id_in(body) for body in dead]
    named = {name for name in ids if name}
    assert not named - sent.dead, f"dead for no fault of theirs: {sorted(named - sent.dead)}"
    assert not sent.dead - named, f"neither done nor dead: {sorted(sent.dead - named)}"
    assert ids.count(None) <= sent.nameless, "more than was sent"


def id_in(body: str) -> str | None:
    """The id of a job; None where the message is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    name = found.get("id") if isinstance(found, dict) else None
    return name if name and "/" not in name else None


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
    darkest_and_lightest = image.convert("L").getextrema()
    assert darkest_and_lightest[0] != darkest_and_lightest[1], "one colour all over is no picture"
    assert len(record["keys"]) == len(record["sha256"]) == job.get("images", 1)
    if job["format"] == "png":
        parameters = json.loads(image.text["parameters"])  # type: ignore[attr-defined]
        assert parameters["seed"] == record["job"]["seed"] + number
        assert parameters["prompt"] == job["prompt"]
    assert hashlib.sha256(stored.data).hexdigest() == record["sha256"][number], "not the picture recorded"


def everything_was_announced(
    sent: SentMessages,
    records: dict[str, dict[str, Any]],
    received: list[dict[str, Any]],
    unreported: Mapping[str | None, int] = MappingProxyType({}),
) -> Counter[str]:
    """At least one event a message: what was drawn with its keys, what was refused with its reason.

    `unreported`: by id, messages of whose last receive no worker heard or knew, so that none could tell.
    """
    ready, failed = (_details(received, kind) for kind in ("FluxImageReady", "FluxImageFailed"))
    assert set(ready) == set(sent.requested), "announced, but not asked for, or the other way round"
    told_twice = {name for name, variants in sent.requested.items() if len(variants) > 1}
    nobodys = {None} if sent.nameless else set()
    known = told_twice | sent.refused | sent.dead | nobodys
    silent = known - set(failed) - set(unreported)
    assert not silent, f"nobody was told that it failed: {sorted(map(str, silent))}"
    assert not set(failed) - known, "announced as failed, and was not to"
    assert len(failed.get(None, [])) >= sent.nameless - unreported.get(None, 0)
    for name in sent.dead & set(failed):
        assert any(detail.get("dead_lettered") for detail in failed[name]), failed[name]
    for name, variants in sent.requested.items():
        for detail in ready[name]:
            assert detail["keys"] == records[name]["keys"], f"{name} was announced with other keys"
            assert detail["seed"] == records[name]["job"]["seed"]
            assert "prompt" not in detail
        _same_id_is_told_of(variants, records[name]["job"], failed.get(name, []))
    return Counter(event["detail-type"] for event in received)


def _details(received: list[dict[str, Any]], kind: str) -> dict[str | None, list[dict[str, Any]]]:
    found = defaultdict(list)
    for event in received:
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
        drawn: dict[str, Drawn] = {}
        """By job, the last time, until the job is done: it may still be given up while it is delivered."""
        for line in life.lines:
            at = _time(line)
            given_up = _given_up(line)
            if line["message"] == "drawing":
                assert not begun, f"{begun} was neither finished nor given up: {life.log}"
                begun = (line["job"], at)
            elif begun and line.get("job") == begun[0] and (given_up or line["message"] == "drawn"):
                if earlier := drawn.pop(begun[0], None):
                    yield earlier
                drawn[begun[0]], begun = Drawn(begun[0], life, begun[1], at, given_up), None
            elif (job := line.get("job")) in drawn:
                if given_up:  # drawn, and then the claim was lost, or AWS refused
                    drawn[job] = replace(drawn[job], given_up=given_up)
                elif line["message"].startswith(DONE):
                    yield drawn.pop(job)
        yield from drawn.values()
        if begun:
            assert life.killed, f"{begun[0]} was begun and neither finished nor given up: {life.log}"
            yield Drawn(begun[0], life, begun[1], life.killed)


def _given_up(line: Line) -> str:
    """How the line begins that says why a job was not seen through; "" where it says nothing of that."""
    return next((words for words in (*GIVEN_UP, FAILED, SET_ASIDE) if line["message"].startswith(words)), "")


def nothing_was_generated_twice_needlessly(drawn: list[Drawn], found: dict[str, Stored]) -> None:
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
        if f"{PREFIX}{job}.json" not in found:  # that is looked at elsewhere
            continue
        recorded = found[f"{PREFIX}{job}.json"].modified + 1  # S3 tells whole seconds
        assert times[-1].start <= recorded, f"{job} was drawn again although its record was there"


def one_result_waits_at_a_time(fleet: Fleet) -> int:
    """What a worker has drawn is delivered before it draws the job after the next one.

    Gives back how many jobs were drawn while another was delivered.
    """
    beside = 0
    for life in fleet.lives():
        for line, waiting in life.undelivered():
            if line["message"] == "drawing":
                assert len(waiting - {line["job"]}) <= 1, (
                    f"{sorted(waiting)} wait to be delivered: {life.log}"
                )
                beside += bool(waiting)
    return beside


def wasted_receives(fleet: Fleet, sent: SentMessages) -> Counter[str]:
    """By job, how often its drawing failed; a good one never twice on one GPU that drew nothing between.

    Each time it has one receive less before it is among the dead letters.
    """
    wasted: Counter[str] = Counter()
    for life in fleet.lives():
        failed: set[str] = set()
        for line in life.lines:
            if line["message"] == "drawn" or line["message"].startswith(PROVEN):
                failed.clear()
            elif line["message"].startswith(FAILED):
                again = line["job"] in failed and line["job"] not in sent.poison
                assert not again, f"{line['job']} failed twice, and nothing was drawn between: {life.log}"
                failed.add(line["job"])
                wasted[line["job"]] += 1
    return wasted


def undeliverable_results(fleet: Fleet, sent: SentMessages, found: dict[str, Stored]) -> int:
    """What is drawn and was never taken is on a disk still: of forbidden jobs, and nothing else.

    A sick worker that starts no more may also keep what others drew again. Gives back how much is kept.
    """
    parcels = fleet.outbox()
    for pending in parcels:
        job = pending.name.removesuffix(".entry")
        faulty = pending in fleet.outbox() and pending not in fleet.outbox(healthy=True)
        assert job in sent.forbidden or (faulty and f"{PREFIX}{job}.json" in found), f"{pending} is left"
    return len(parcels)


def unheard(
    lost_receives: Iterable[tuple[str, int]], fleet: Fleet, most_receives: int
) -> Counter[str | None]:
    """By id, messages whose last receive may be one that no worker could tell of.

    The answer was lost on the way, the worker was killed, it was not told how many receives there are, or AWS
    refused what it had to tell, which the log says.
    """
    lost = Counter(id_in(body) for body, receive in lost_receives if receive >= most_receives)
    for life in fleet.lives():
        jobs = [line["job"] for line in life.lines if "job" in line]
        if life.killed:
            lost.update(life.last_jobs())
        silent = [line for line in life.lines if line["message"].startswith("not announced")]
        lost.update(line.get("job") for line in silent)
        if any(line["message"].startswith("cannot read the queue's redrive") for line in life.lines):
            lost.update(jobs)
    return lost


def recoveries(fleet: Fleet) -> list[float]:
    """Seconds from each kill to the end of each job that the killed worker had in hand."""
    ends = [
        (line["job"], _time(line)) for life in fleet.lives() for line in life.lines if line["message"] in DONE
    ]
    found = []
    for life in fleet.lives():
        for in_hand in life.in_hand() if life.killed else ():
            after = [end - life.killed for job, end in ends if job == in_hand and end > life.killed]
            found += [min(after)] if after else []  # none: it was done just then
    return found


def _time(line: Line) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()
