"""A real `flux-worker serve` against a real SQS, S3 and EventBridge (moto's), told about by sd_notify."""

from __future__ import annotations

import io
import json
import re
import time
from typing import Any

import pytest
from PIL import Image

LONG_PROMPT = "ein Haus am Meer — 海 " * 12  # more than CLIP reads, less than T5 does
SMALL = {"width": 256, "height": 256, "steps": 2}


def job(name: str, **parameters: object) -> dict[str, object]:
    return {"id": name, "prompt": "a cat on a roof"} | SMALL | parameters


def picture(aws: Any, detail: dict[str, Any]) -> Image.Image:
    stored = aws.client("s3").get_object(Bucket=detail["bucket"], Key=detail["key"])
    assert stored["ContentType"] == "image/png"
    return Image.open(io.BytesIO(stored["Body"].read()))


def test_ready_comes_after_loading_and_a_warm_up(worker: Any) -> None:
    told = worker.told
    assert told.index("STATUS=Loading the model") < told.index("READY=1")
    assert told.index("READY=1") < told.index("STATUS=Waiting for jobs")
    loaded = next(line for line in worker.lines() if line["message"] == "model loaded")
    assert loaded["device"] == "cpu"
    assert loaded["warm_up_seconds"] >= 0


def test_jobs_become_pictures_and_events(worker: Any, aws: Any) -> None:
    aws.send(job("first", seed=7, guidance=2.5))
    aws.send(job("second", width=320, prompt=LONG_PROMPT))
    found = {}
    for _ in range(2):
        event = aws.event()
        assert (event["source"], event["detail-type"]) == ("flux.worker", "FluxImageReady")
        found[event["detail"]["id"]] = event["detail"]
        # The picture is there as soon as it is announced.
        picture(aws, event["detail"])
    first = found["first"]
    assert first.pop("seconds") > 0
    assert first == {
        "id": "first",
        "bucket": aws.bucket,
        "key": "images/first.png",
        "width": 256,
        "height": 256,
        "steps": 2,
        "guidance": 2.5,
        "seed": 7,
        "model_revision": "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21",
    }
    second = picture(aws, found["second"])
    assert second.size == (320, 256)
    parameters = json.loads(second.text["parameters"])  # type: ignore[attr-defined]
    assert parameters["prompt"] == second.text["Description"] == LONG_PROMPT  # type: ignore[attr-defined]
    assert parameters["seed"] == found["second"]["seed"]
    aws.wait_until_empty()


@pytest.mark.parametrize(
    ("body", "job_id", "reason"),
    [
        pytest.param("draw me a cat", None, "Invalid JSON", id="not-json"),
        pytest.param('["a", "list"]', None, "object", id="not-an-object"),
        pytest.param("[" * 100_000, None, "recursion", id="deep"),
        pytest.param(json.dumps(job("odd", colour="red")), "odd", "colour: Extra inputs", id="unknown-field"),
        pytest.param(json.dumps(job("side", width=1000)), "side", "width: .* multiple of 16", id="not-of-16"),
        pytest.param(json.dumps(job("no/id")), None, "id: ", id="bad-id"),
        pytest.param(
            json.dumps(job("long", prompt="cat " * 600)), "long", r"tokens long.* 512", id="long-prompt"
        ),
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
    aws.wait_until_empty()


def test_a_message_stays_hidden_while_it_is_drawn(worker: Any, aws: Any) -> None:
    aws.send(job("slow", width=1024, height=1024, steps=25))
    event = aws.event(90)
    assert event["detail"]["seconds"] > 3.5, "too quick to need its visibility extended"
    aws.wait_until_empty()
    assert sum(line["message"] == "drawing" for line in worker.lines() if line.get("job") == "slow") == 1


def test_what_s3_refuses_comes_back_and_is_drawn_again(worker: Any, aws: Any) -> None:
    s3 = aws.client("s3")
    for stored in s3.list_objects_v2(Bucket=aws.bucket).get("Contents", []):
        s3.delete_object(Bucket=aws.bucket, Key=stored["Key"])
    s3.delete_bucket(Bucket=aws.bucket)
    aws.send(job("homeless", seed=1))

    def failed() -> bool:
        return any(
            "handed over" in line["message"] for line in worker.lines() if line.get("job") == "homeless"
        )

    deadline = time.monotonic() + 30
    while not failed():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert aws.left() == 1
    aws.make_bucket()
    detail = aws.event()["detail"]
    assert detail["id"] == "homeless"
    assert picture(aws, detail).size == (256, 256)
    aws.wait_until_empty()


def test_the_watchdog_hears_of_steps(worker: Any, aws: Any) -> None:
    before = len(worker.told)
    aws.send(job("steps", steps=4))
    aws.event()
    worker.wait_told("STATUS=Waiting for jobs", since=before)
    told = worker.told[before:]
    assert "STATUS=Drawing steps: step 4 of 4" in told
    assert told.count("WATCHDOG=1") >= 4


def test_sigterm_finishes_the_job_in_hand(worker: Any, aws: Any) -> None:
    since = len(worker.told)
    aws.send(job("last", width=512, height=512, steps=20))
    worker.wait_told("STATUS=Drawing last", since=since)
    assert worker.stop() == 0
    assert "STOPPING=1" in worker.told[since:]
    assert aws.event()["detail"]["id"] == "last"
    assert aws.left() == 0


def test_the_log_is_json_lines_with_the_jobs_id(worker: Any) -> None:
    lines = worker.lines()
    assert {"time", "level", "message"} <= set.intersection(*(set(line) for line in lines))
    assert {line["job"] for line in lines if line["message"] == "done"} >= {"first", "second", "last"}
    assert "Meer" not in worker.log.read_text(), "prompts are the users' own"
    assert not any(line["level"] == "critical" or "traceback" in line for line in lines)
