"""A real `flux-worker serve` against SQS, S3 and EventBridge (moto), observed by sd_notify."""

from __future__ import annotations

import hashlib
import io
import json
import re
import time
from typing import Any

import pytest
from PIL import Image

from .conftest import VISIBILITY_SECONDS, until

LONG_PROMPT = "ein Haus am Meer — 海 " * 12  # more than CLIP reads, less than T5 does
SMALL = {"width": 256, "height": 256, "steps": 2}
REVISION = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"


def job(name: str, **parameters: object) -> dict[str, object]:
    return {"id": name, "prompt": "a cat on a roof"} | SMALL | parameters


def pictures(aws: Any, detail: dict[str, Any], content_type: str = "image/png") -> list[Any]:
    found = []
    for key in detail["keys"]:
        stored = aws.client("s3").get_object(Bucket=detail["bucket"], Key=key)
        assert stored["ContentType"] == content_type
        found.append(Image.open(io.BytesIO(stored["Body"].read())))
    return found


def drawn_once(worker: Any, name: str) -> bool:
    """Drawn again only where its claim was lost, as on a host that pauses for longer than that lasts."""
    told = [line["message"] for line in worker.lines() if line.get("job") == name]
    lost = sum(message.startswith("stopped working on the job") for message in told)
    return 1 <= told.count("drawing") <= 1 + lost


def said(worker: Any, name: str, text: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not any(text in line["message"] for line in worker.lines() if line.get("job") == name):
        assert time.monotonic() < deadline, worker.log.read_text()
        time.sleep(0.1)


def test_ready_comes_after_loading_and_a_warm_up(worker: Any) -> None:
    worker.wait_told("STATUS=Waiting for jobs")
    told = worker.told
    assert told.index("STATUS=Loading the model") < told.index("STATUS=Drawing a warm-up")
    assert told.index("STATUS=Drawing a warm-up") < told.index("READY=1")
    assert told.index("READY=1") < told.index("STATUS=Waiting for jobs")
    loaded = next(line for line in worker.lines() if line["message"] == "model loaded")
    assert loaded["device"] == "cpu"
    assert loaded["warm_up_seconds"] >= 0
    imports, load, first_draw = loaded["stages"]
    assert [one["name"] for one in loaded["stages"]] == ["imports", "load", "first_draw"]
    assert imports["began"] < imports["ended"] <= load["began"] < load["ended"] <= first_draw["began"]
    assert load["facts"]["weights_bytes"] > 0


def test_a_queue_without_a_dead_letter_queue_is_said_once(worker: Any) -> None:
    assert sum("no dead-letter queue" in line["message"] for line in worker.lines()) == 1


def test_jobs_become_pictures_records_and_events(worker: Any, aws: Any) -> None:
    aws.send(job("first", seed=7, guidance=2.5, metadata={"order": [7, "ö"]}))
    aws.send(job("second", width=320, prompt=LONG_PROMPT))
    found = {}
    for _ in range(2):
        event = aws.event()
        assert (event["source"], event["detail-type"]) == ("flux.worker", "FluxImageReady")
        found[event["detail"]["id"]] = event["detail"]
        # The picture is there as soon as it is announced.
        pictures(aws, event["detail"])
    first = found["first"]
    assert first.pop("seconds") > 0
    assert first == {
        "id": "first",
        "bucket": aws.bucket,
        "keys": ["images/first.png"],
        "sidecar": "images/first.json",
        "width": 256,
        "height": 256,
        "steps": 2,
        "guidance": 2.5,
        "seed": 7,
        "images": 1,
        "format": "png",
        "quality": None,
        "max_sequence_length": 512,
        "s3_prefix": "",
        "model_revision": REVISION,
        "precision": "bf16",
        "metadata": {"order": [7, "ö"]},
    }
    [second] = pictures(aws, found["second"])
    assert second.size == (320, 256)
    parameters = json.loads(second.text["parameters"])
    assert parameters["prompt"] == second.text["Description"] == LONG_PROMPT
    assert parameters["seed"] == found["second"]["seed"]
    aws.wait_until_empty()


def test_the_record_tells_what_was_drawn_by_what(worker: Any, aws: Any) -> None:
    aws.send(job("told", images=2, format="webp", quality=70, s3_prefix="cats/2026/", metadata={"a": None}))
    detail = aws.event()["detail"]
    assert detail["keys"] == ["images/cats/2026/told=1.webp", "images/cats/2026/told=2.webp"]
    drawn = pictures(aws, detail, "image/webp")
    assert [picture.format for picture in drawn] == ["WEBP", "WEBP"]
    assert drawn[0].tobytes() != drawn[1].tobytes(), "each image has a seed of its own"

    s3 = aws.client("s3")
    answer = s3.get_object(Bucket=aws.bucket, Key=detail["sidecar"])
    assert answer["ContentType"] == "application/json"
    record = json.loads(answer["Body"].read())
    assert record["job"] == job(
        "told",
        images=2,
        format="webp",
        quality=70,
        s3_prefix="cats/2026/",
        metadata={"a": None},
        guidance=3.5,
        max_sequence_length=512,
        seed=detail["seed"],
    )
    assert record["keys"] == detail["keys"]
    for key, digest in zip(record["keys"], record["sha256"], strict=True):
        stored = s3.get_object(Bucket=aws.bucket, Key=key)["Body"].read()
        assert hashlib.sha256(stored).hexdigest() == digest
    assert record["model"]["revision"] == REVISION
    assert set(record["model"]["versions"]) >= {"flux_worker", "torch", "diffusers"}
    assert record["seconds"]["draw"] > record["seconds"]["step"] > 0
    assert record["seconds"]["queue"] >= 0
    aws.wait_until_empty()


def test_the_same_job_twice_is_drawn_once_and_announced_twice(worker: Any, aws: Any) -> None:
    aws.send(job("twice", metadata={"try": 1}))
    aws.send(job("twice", metadata={"try": 2}))
    first, second = sorted(
        (aws.event()["detail"] for _ in range(2)), key=lambda detail: detail["metadata"]["try"]
    )
    assert (first["metadata"], second["metadata"]) == ({"try": 1}, {"try": 2})
    assert {name: first[name] for name in first if name != "metadata"}.items() <= second.items()
    aws.wait_until_empty()
    assert drawn_once(worker, "twice")


def test_the_same_id_for_another_job_fails_and_harms_nothing(worker: Any, aws: Any) -> None:
    aws.send(job("taken"))
    ready = aws.event()
    aws.wait_until_empty()
    s3 = aws.client("s3")
    before = s3.get_object(Bucket=aws.bucket, Key="images/taken.json")["Body"].read()
    aws.send(job("taken", prompt="a dog", seed=3))
    failed = aws.event()
    assert failed["detail-type"] == "FluxImageFailed"
    assert failed["detail"]["reason"].startswith("prompt, seed: differs from the finished job")
    assert failed["detail"]["sidecar"] is None
    aws.wait_until_empty()
    stored = [
        item["Key"] for item in s3.list_objects_v2(Bucket=aws.bucket, Prefix="images/taken")["Contents"]
    ]
    assert stored == ["images/taken.json", "images/taken.png"]
    assert s3.get_object(Bucket=aws.bucket, Key="images/taken.json")["Body"].read() == before
    assert ready["detail"]["keys"] == ["images/taken.png"]


@pytest.mark.parametrize(
    ("body", "job_id", "reason"),
    [
        pytest.param("draw me a cat", None, "Invalid JSON", id="not-json"),
        pytest.param('["a", "list"]', None, "object", id="not-an-object"),
        pytest.param("[" * 100_000, None, "recursion", id="deep"),
        pytest.param(json.dumps(job("odd", colour="red")), "odd", "colour: Extra inputs", id="unknown-field"),
        pytest.param(json.dumps(job("side", width=1000)), "side", "width: .* multiple of 16", id="not-of-16"),
        pytest.param(json.dumps(job("no/id")), None, "id: ", id="bad-id"),
        pytest.param(json.dumps(job("long", prompt="cat " * 600)), "long", r"tokens.* 512", id="long-prompt"),
    ],
)
def test_bad_messages_are_announced_and_deleted(
    worker: Any, aws: Any, body: str, job_id: str | None, reason: str
) -> None:
    aws.send(body)
    event = aws.event()
    assert event["detail-type"] == "FluxImageFailed"
    assert event["detail"]["id"] == job_id
    assert re.search(reason, event["detail"]["reason"])
    key = event["detail"]["sidecar"]
    assert key == (f"images/{job_id}=failed.json" if job_id else None)
    if key:
        failure = json.loads(aws.client("s3").get_object(Bucket=aws.bucket, Key=key)["Body"].read())
        assert failure["id"] == job_id
        assert failure["reason"] == event["detail"]["reason"]
    aws.wait_until_empty()


def test_a_job_put_right_leaves_no_trace_of_its_failure(worker: Any, aws: Any) -> None:
    aws.send(job("odd"))  # refused above, for its colour
    assert aws.event()["detail-type"] == "FluxImageReady"
    aws.wait_until_empty()

    def stored() -> list[str]:
        listed = aws.client("s3").list_objects_v2(Bucket=aws.bucket, Prefix="images/odd")["Contents"]
        return [item["Key"] for item in listed]

    until(lambda: stored() == ["images/odd.json", "images/odd.png"], 10, "the failure to be forgotten")


def test_a_message_stays_hidden_while_it_is_drawn(worker: Any, aws: Any) -> None:
    for images in (1, 2, 4):  # a quick host needs more of them to draw for so long
        name = f"slow-{images}"
        aws.send(job(name, width=1024, height=1024, steps=40, images=images))
        detail = aws.event(120)["detail"]
        assert detail["id"] == name
        aws.wait_until_empty()
        assert drawn_once(worker, name)
        if detail["seconds"] > 1.2 * VISIBILITY_SECONDS:
            return
    pytest.fail("too quick to need its visibility extended")


def test_what_eventbridge_refuses_is_kept_and_not_drawn_again(worker: Any, aws: Any) -> None:
    aws.remove_bus()
    aws.send(job("unheard", seed=1))
    said(worker, "unheard", "set aside")
    aws.make_bus()
    detail = aws.event(60)["detail"]
    assert detail["id"] == "unheard"
    assert pictures(aws, detail)[0].size == (256, 256)
    aws.wait_until_empty()
    assert drawn_once(worker, "unheard")


def test_the_watchdog_hears_of_steps(worker: Any, aws: Any) -> None:
    """So few that none is dropped while nobody reads: the socket's buffer holds ten datagrams."""
    before = len(worker.told)
    aws.send(job("steps", steps=2, images=2))
    aws.event()
    worker.wait_told("STATUS=Drawing steps: image 2 of 2, step 2 of 2", since=before)
    assert worker.told[before:].count("WATCHDOG=1") >= 4


def test_sigterm_ends_an_idle_worker_cleanly(worker: Any) -> None:
    def doing() -> str:
        return next(text for text in reversed(worker.told) if text.startswith("STATUS="))

    until(lambda: doing() == "STATUS=Waiting for jobs", 30, "the worker to be idle")
    assert worker.stop() == 0
    until(lambda: "STOPPING=1" in worker.told, 10, "systemd to hear of it")
    assert sum(line["message"] == "stopped: SIGTERM" for line in worker.lines()) == 1


def test_the_log_is_json_lines_with_the_jobs_id(worker: Any) -> None:
    lines = worker.lines()
    assert {"time", "level", "message"} <= set.intersection(*(set(line) for line in lines))
    assert {line["job"] for line in lines if line["message"] == "done"} >= {"first", "second", "steps"}
    assert "Meer" not in worker.log.read_text(), "prompts are the users' own"
    assert not any(line["level"] == "critical" or "traceback" in line for line in lines)


def test_nothing_but_results_is_left(worker: Any, aws: Any, environment: dict[str, str]) -> None:
    from pathlib import Path

    stored = [item["Key"] for item in aws.client("s3").list_objects_v2(Bucket=aws.bucket)["Contents"]]
    claims, failures = (
        {key.removesuffix(ending) for key in stored if key.endswith(ending)}
        for ending in ("=claim", "=failed.json")
    )
    assert claims == failures, "of jobs that failed, the marks"
    outbox = Path(environment["FLUX_STATE_DIR"]) / "outbox"
    assert [file.name for file in outbox.iterdir()] == ["lock"]
