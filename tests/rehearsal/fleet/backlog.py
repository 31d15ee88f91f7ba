"""A backlog of jobs that a fleet is to serve, and what is to be found of it afterwards."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bake.wiring import queue_policy
from tests.worker.stress.evidence import PREFIX, bodies
from tests.worker.stress.messages import SentMessages

from .resources import Clients

_AT_ONCE = 10  # messages in one call, at most


@dataclass(frozen=True)
class Places:
    """A fleet's queue and dead letters by their URLs, its bucket and bus, and a queue of the bus's events."""

    jobs: str
    dead: str
    bucket: str
    bus: str
    events: str


@contextmanager
def listening(clients: Clients, bus: str) -> Iterator[str]:
    """A queue that gets all events of a bus."""
    sqs, events, name = clients("sqs"), clients("events"), f"heard-{secrets.token_hex(4)}"
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = json.dumps({"source": ["flux.worker"]})
    rule = events.put_rule(Name=name, EventBusName=bus, EventPattern=pattern)["RuleArn"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": queue_policy(arn, rule)})
    events.put_targets(Rule=name, EventBusName=bus, Targets=[{"Id": "queue", "Arn": arn}])
    yield url
    events.remove_targets(Rule=name, EventBusName=bus, Ids=["queue"])
    events.delete_rule(Name=name, EventBusName=bus)
    sqs.delete_queue(QueueUrl=url)


def small_jobs(count: int) -> SentMessages:
    """Jobs of the smallest image that a worker draws."""
    jobs: dict[str, list[dict[str, Any]]] = {}
    for number in range(count):
        name = f"job-{number}"
        about = {"prompt": f"a lighthouse, number {number}", "width": 256, "height": 256, "steps": 4}
        jobs[name] = [{"id": name, **about, "format": "png"}]
    return SentMessages([json.dumps(job) for [job] in jobs.values()], jobs, set(), 0)


def send(clients: Clients, queue: str, sent: SentMessages) -> None:
    """Send all messages."""
    sqs = clients("sqs")
    for start in range(0, len(sent.bodies), _AT_ONCE):
        some = enumerate(sent.bodies[start : start + _AT_ONCE])
        entries = [{"Id": str(number), "MessageBody": body} for number, body in some]
        assert not sqs.send_message_batch(QueueUrl=queue, Entries=entries).get("Failed")


def done(clients: Clients, bucket: str) -> int:
    """How many jobs have their record."""
    pages = clients("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=PREFIX)
    return sum(one["Key"].endswith(".json") for page in pages for one in page.get("Contents", []))


def keep_versions(clients: Clients, bucket: str) -> None:
    """Let the bucket keep what is written over, so that `stored` sees it."""
    clients("s3").put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def stored(clients: Clients, bucket: str) -> Counter[str]:
    """How often each image was stored, in a bucket with versions."""
    found: Counter[str] = Counter()
    for page in clients("s3").get_paginator("list_object_versions").paginate(Bucket=bucket):
        found.update(one["Key"] for one in page.get("Versions", []) if one["Key"].endswith(".png"))
    return found


def heard(clients: Clients, events: str) -> list[dict[str, Any]]:
    """The events so far."""
    return [json.loads(body) for body in bodies(clients("sqs"), events)]
