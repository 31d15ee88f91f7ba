"""What bakes have in SQS, S3, EventBridge and its Scheduler: how to list, look at and remove it.

Names with `bake-` are candidates; each is asked for its tags, which decide.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from bake.aws import Aws, ClientError
from bake.background import start
from bake.creation import tag_of, unless_absent
from bake.lifecycle.holding import PREFIX, Holding, concerns, tags_of
from bake.lifecycle.kinds import Kind
from bake.retries import ABSENT, error_code
from bake.wiring import (
    remove_bucket,
    remove_bucket_by_hand,
    remove_bus,
    remove_bus_by_hand,
    remove_queue_by_hand,
)

SIDE_BY_SIDE = 8
SIZE: Any = {"PageSize": 1000}
REFUSED = frozenset({"AccessDenied", "AccessDeniedException", "AllAccessDisabled"})


def _each(bare: Iterable[Holding], look: Callable[[Holding], Holding | None]) -> list[Holding]:
    """Look at all of these, some at a time; without those that are gone or concern no bake.

    A refusal for one, which may be somebody else's, hides none of the others.
    """
    waiting, found = list(bare), []
    while waiting:
        some, waiting = waiting[:SIDE_BY_SIDE], waiting[SIDE_BY_SIDE:]
        answers = [start(partial(_unless_refused, held, look)) for held in some]
        found += [answer.result() for answer in answers]
    return [held for held in found if held is not None and concerns(held.name, held.tags)]


def _unless_refused(held: Holding, look: Callable[[Holding], Holding | None]) -> Holding | None:
    try:
        return look(held)
    except ClientError as error:
        if error_code(error) not in REFUSED:
            raise
        return replace(held, unread=f"AWS answers {error_code(error)}")


def queues(aws: Aws, one: str | None = None) -> list[Holding]:
    """Queues, by URL."""
    urls = [one] if one is not None else _queue_urls(aws)
    return _each((_queue(aws, url) for url in urls), lambda held: _with_queue_tags(aws, held))


def _queue_urls(aws: Aws) -> Iterator[str]:
    # SQS tells of further pages only where a size is asked for.
    pages = aws.sqs.get_paginator("list_queues").paginate(QueueNamePrefix=PREFIX, PaginationConfig=SIZE)
    for page in pages:
        yield from page.get("QueueUrls", [])


def _queue(aws: Aws, url: str) -> Holding:
    by_hand = remove_queue_by_hand(aws, shlex.quote(url))
    return Holding("queue", url, url.rpartition("/")[2], aws.worker_region, {}, by_hand)


def _with_queue_tags(aws: Aws, held: Holding) -> Holding | None:
    found = unless_absent(lambda: aws.sqs.list_queue_tags(QueueUrl=held.id))
    return None if found is None else replace(held, tags=tags_of(found.get("Tags")))


def _delete_queue(aws: Aws, held: Holding) -> None:
    unless_absent(lambda: aws.sqs.delete_queue(QueueUrl=held.id))


def buckets(aws: Aws, one: str | None = None) -> list[Holding]:
    """Buckets of the worker's region."""
    listed = [{"Name": one}] if one is not None else _listed_buckets(aws)
    return _each((_bucket(aws, raw) for raw in listed), lambda held: _with_bucket_tags(aws, held))


def _listed_buckets(aws: Aws) -> Iterator[Any]:
    region = aws.worker_region
    pages = aws.s3.get_paginator("list_buckets").paginate(Prefix=PREFIX, BucketRegion=region)
    for raw in (raw for page in pages for raw in page.get("Buckets", [])):
        if raw["Name"].startswith(PREFIX) and raw.get("BucketRegion", region) == region:
            yield raw


def _bucket(aws: Aws, raw: Any) -> Holding:
    name, since = raw["Name"], raw.get("CreationDate")
    by_hand = remove_bucket_by_hand(aws, name)
    return Holding("bucket", name, name, aws.worker_region, {}, by_hand, created=since)


def _with_bucket_tags(aws: Aws, held: Holding) -> Holding | None:
    try:
        return replace(held, tags=tags_of(aws.s3.get_bucket_tagging(Bucket=held.id)["TagSet"]))
    except ClientError as error:
        if ABSENT.search(error_code(error)):
            return None
        if error_code(error) == "NoSuchTagSet":
            return held
        raise


def buses(aws: Aws, one: str | None = None) -> list[Holding]:
    """Event buses, by name, with their rules; in use by a rule that is not of the same run."""
    names = [one] if one is not None else _bus_names(aws)
    return _each((_bus(aws, name) for name in names), lambda held: _with_bus_tags(aws, held))


def _bus_names(aws: Aws) -> Iterator[str]:
    more: dict[str, str] = {}
    while True:  # boto3 has no pages of this call
        answer = aws.events.list_event_buses(NamePrefix=PREFIX, **more)  # type: ignore[arg-type]
        yield from (raw["Name"] for raw in answer.get("EventBuses", []))
        if not answer.get("NextToken"):
            return
        more = {"NextToken": answer["NextToken"]}


def _bus(aws: Aws, name: str) -> Holding:
    return Holding("event bus", name, name, aws.worker_region, {}, remove_bus_by_hand(aws, name))


def _with_bus_tags(aws: Aws, held: Holding) -> Holding | None:
    raw = unless_absent(lambda: aws.events.describe_event_bus(Name=held.id))
    tags = None if raw is None else _event_tags(aws, raw["Arn"])
    if tags is None:
        return None
    found = replace(held, tags=tags)
    return replace(found, used_by=_rules_of_others(aws, found)) if found.run else found


def _rules_of_others(aws: Aws, bus: Holding) -> tuple[str, ...]:
    pages = aws.events.get_paginator("list_rules").paginate(EventBusName=bus.id)
    rules = unless_absent(lambda: [rule for page in pages for rule in page["Rules"]]) or []
    tagged = ((rule["Name"], _event_tags(aws, rule["Arn"])) for rule in rules)
    return tuple(f"rule {name}" for name, tags in tagged if tags is not None and tag_of(tags) != bus.run)


def _event_tags(aws: Aws, arn: str) -> dict[str, str] | None:
    found = unless_absent(lambda: aws.events.list_tags_for_resource(ResourceARN=arn))
    return None if found is None else tags_of(found.get("Tags"))


def schedule_groups(aws: Aws, one: str | None = None) -> list[Holding]:
    """Groups of EventBridge Scheduler: their schedules have no tags, and go with them."""
    names = [one] if one is not None else _group_names(aws)
    return _each((_group(aws, name) for name in names), lambda held: _with_group_tags(aws, held))


def _group_names(aws: Aws) -> Iterator[str]:
    for page in aws.scheduler.get_paginator("list_schedule_groups").paginate(NamePrefix=PREFIX):
        yield from (raw["Name"] for raw in page["ScheduleGroups"] if raw["Name"].startswith(PREFIX))


def _group(aws: Aws, name: str) -> Holding:
    by_hand = aws.command("scheduler", "delete-schedule-group", "--name", name)
    return Holding("schedule group", name, name, aws.region, {}, by_hand)


def _with_group_tags(aws: Aws, held: Holding) -> Holding | None:
    raw = unless_absent(lambda: aws.scheduler.get_schedule_group(Name=held.id))
    if raw is None or raw.get("State") == "DELETING":
        return None
    found = unless_absent(lambda: aws.scheduler.list_tags_for_resource(ResourceArn=raw["Arn"]))
    if found is None:
        return None
    state, since = raw.get("State", ""), raw.get("CreationDate")
    return replace(held, tags=tags_of(found.get("Tags")), status=state, created=since)


def _delete_schedules(aws: Aws, held: Holding) -> None:
    """Delete the group; Scheduler then deletes what is in it."""
    try:
        unless_absent(lambda: aws.scheduler.delete_schedule_group(Name=held.id))
    except ClientError as error:
        if error_code(error) != "ConflictException":  # it is being deleted already
            raise


SCHEDULE_GROUPS = Kind("schedule group", "schedule groups", schedule_groups, _delete_schedules)
KINDS = (
    Kind("event bus", "event buses", buses, lambda aws, held: remove_bus(aws, held.id)),
    Kind("queue", "queues", queues, _delete_queue),
    Kind("bucket", "buckets", buckets, lambda aws, held: remove_bucket(aws, held.id)),
)
