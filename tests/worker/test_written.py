"""What a worker stores and announces is what the schemas beside it say."""

from __future__ import annotations

import json
from typing import Any

from tests.worker.worker_harness import BODY, FakeModel, WorkerHarness
from tests.worker.written import assert_event, assert_written, of_key


def objects(harness: WorkerHarness) -> dict[str, Any]:
    """What readers parse of all that is in the bucket, by key."""
    s3 = harness.aws.client("s3")
    return {
        key: json.loads(s3.get_object(Bucket=harness.aws.bucket, Key=key)["Body"].read())
        for key in harness.stored()
        if of_key(key)
    }


def broken(_step: int) -> None:
    raise RuntimeError("no numbers")


def test_results_failures_and_events_are_as_the_schemas_say(harness: WorkerHarness) -> None:
    wrong = '{"id": "two", "prompt": "a cat", "width": 1000}'
    with harness.worker() as worker:
        worker.handle(harness.message())
        worker.handle(harness.message(BODY.replace("}", ', "metadata": {"a": [null]}}')))
        worker.handle(harness.message(wrong))
        worker.handle(harness.message(BODY.replace("a cat", "a dog")))
    for message in [harness.message(BODY.replace("one", "three")), harness.message("no job")]:
        with harness.worker(model=FakeModel(broken), max_receives=1) as worker:
            worker.handle(message)
    stored = objects(harness)
    assert list(stored) == ["images/one.json", "images/three=failed.json", "images/two=failed.json"]
    for key, content in stored.items():
        assert_written(of_key(key) or "", content)
    events = harness.events()
    told = [(event["detail"]["id"], event["detail"].get("dead_lettered")) for event in events]
    assert told == [("one", None), ("one", None), ("two", None), ("one", None), ("three", True), (None, True)]
    for event in events:
        assert_event(event)
