"""A worker's queue, bucket and event bus: its `instance.env`, and the throw-away ones of a boot check."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from bake.aws import Aws, ClientError
from bake.creation import EXPIRES_TAG, Found, Resource, tag_of, unless_absent
from bake.retries import ABSENT, error_code
from bake.undo import Undo

Tags = Mapping[str, str]


@dataclass(frozen=True)
class Wiring:
    """The queues (by URL), bucket and bus of one boot check."""

    jobs: str
    results: str
    bucket: str
    bus: str

    @property
    def things(self) -> frozenset[tuple[str, str]]:
        """Kind and id of each, as `bake sweep` and a resumed run list them; bucket and bus have one name."""
        queues = (("queue", self.jobs), ("queue", self.results))
        return frozenset((*queues, ("bucket", self.bucket), ("event bus", self.bus)))

    def renew(self, aws: Aws, until: str) -> None:
        """Move the expiry in the tags of the queues, the bucket, the bus and its rule."""
        for queue in (self.jobs, self.results):
            aws.sqs.tag_queue(QueueUrl=queue, Tags={EXPIRES_TAG: until})
        moved: Any = [{"Key": EXPIRES_TAG, "Value": until}]
        kept = aws.s3.get_bucket_tagging(Bucket=self.bucket)["TagSet"]  # putting replaces all
        others: Any = [tag for tag in kept if tag["Key"] != EXPIRES_TAG]
        aws.s3.put_bucket_tagging(Bucket=self.bucket, Tagging={"TagSet": others + moved})
        arns = [aws.events.describe_event_bus(Name=self.bus)["Arn"]]
        arns += [rule["Arn"] for rule in aws.events.list_rules(EventBusName=self.bus)["Rules"]]
        for arn in arns:
            aws.events.tag_resource(ResourceARN=arn, Tags=moved)

    def environment(self, region: str, extra: Mapping[str, str]) -> str:
        """The worker's `instance.env`."""
        return environment_text({**worker_settings(region, self.jobs, self.bucket, self.bus), **extra})


def worker_settings(region: str, queue: str, bucket: str, bus: str) -> dict[str, str]:
    """The settings that every worker needs; `queue` is a URL."""
    return {"AWS_REGION": region, "FLUX_QUEUE_URL": queue, "FLUX_BUCKET": bucket, "FLUX_EVENT_BUS": bus}


def stream_settings(stream: str | None) -> dict[str, str]:
    """Where a worker reads weights from beside its volume (`weights.stream`); nothing where it does not."""
    return {"FLUX_STREAM": stream} if stream is not None else {}


def environment_text(settings: Mapping[str, str]) -> str:
    """`KEY=value` lines that systemd and a shell read alike."""
    return "".join(f"{key}={shlex.quote(value)}\n" for key, value in settings.items())


def wire(aws: Aws, run: str, tags: Tags, undo: Undo) -> Wiring:
    """Create two queues, a bucket, a bus, and the rule that sends the worker's events to the second queue."""
    name = tags["Name"]
    jobs = _queue(aws, run, f"{name}-jobs", tags, undo)
    results = _queue(aws, run, f"{name}-results", tags, undo)
    _bucket(aws, run, name, tags, undo)
    _bus(aws, run, name, tags, undo)
    _rule(aws, name, results, tags)
    return Wiring(jobs, results, name, name)


def _queue(aws: Aws, run: str, name: str, tags: Tags, undo: Undo) -> str:
    def make() -> str:
        return aws.sqs.create_queue(QueueName=name, tags=dict(tags))["QueueUrl"]

    def find() -> Found | None:
        url = unless_absent(lambda: aws.sqs.get_queue_url(QueueName=name)["QueueUrl"])
        if url is None:
            return None
        found = unless_absent(lambda: aws.sqs.list_queue_tags(QueueUrl=url))
        return None if found is None else Found(url, tag_of(found.get("Tags", {})))

    def by_hand(url: str | None) -> str:
        look = aws.command("sqs", "get-queue-url", "--queue-name", name, region=aws.worker_region)
        return remove_queue_by_hand(aws, url or f"$({look} --query QueueUrl --output text)")

    url, _ = Resource(
        "queue",
        name,
        run,
        aws,
        make,
        find,
        remove=lambda found: unless_absent(lambda: aws.sqs.delete_queue(QueueUrl=found)),
        by_hand=by_hand,
    ).create(undo)
    return url


def remove_queue_by_hand(aws: Aws, url: str) -> str:
    """The command that removes a queue; `url` may be a substitution of the shell."""
    return f"{aws.command('sqs', 'delete-queue', region=aws.worker_region)} --queue-url {url}"


def _bucket(aws: Aws, run: str, name: str, tags: Tags, undo: Undo) -> None:
    def make() -> str:
        where: Any = {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
        if aws.worker_region != "us-east-1":
            where["LocationConstraint"] = aws.worker_region
        aws.s3.create_bucket(Bucket=name, CreateBucketConfiguration=where)
        return name

    def find() -> Found | None:
        try:
            found = aws.s3.get_bucket_tagging(Bucket=name)["TagSet"]
        except ClientError as error:
            if ABSENT.search(error_code(error)):
                return None
            if error_code(error) in {"NoSuchTagSet", "AccessDenied"}:
                return Found(name, "")  # somebody's, and not this run's
            raise
        return Found(name, tag_of(found))

    Resource(
        "bucket",
        name,
        run,
        aws,
        make,
        find,
        remove=lambda found: remove_bucket(aws, found),
        by_hand=lambda found: remove_bucket_by_hand(aws, name),
    ).create(undo)


def remove_bucket_by_hand(aws: Aws, name: str) -> str:
    """The command that does the same."""
    # `aws s3 rb` also accepts options after the bucket.
    return aws.command("s3", "rb", "--force", f"s3://{name}", region=aws.worker_region)


def remove_bucket(aws: Aws, name: str) -> None:
    """Remove a bucket and what is in it, as far as it still exists."""
    while True:  # a page at a time: what is listed is deleted
        listed = unless_absent(lambda: aws.s3.list_objects_v2(Bucket=name))
        if listed is None:
            return
        for item in listed.get("Contents", []):
            unless_absent(partial(aws.s3.delete_object, Bucket=name, Key=item["Key"]))
        if not listed.get("IsTruncated"):
            break
    unless_absent(lambda: aws.s3.delete_bucket(Bucket=name))


def _bus(aws: Aws, run: str, name: str, tags: Tags, undo: Undo) -> None:
    """Create the bus; its removal also removes its rule and target."""

    def make() -> str:
        aws.events.create_event_bus(Name=name, Tags=_listed(tags))
        return name  # not its ARN: by its name a resumed run finds it, and its journal knows it again

    def find() -> Found | None:
        bus = unless_absent(lambda: aws.events.describe_event_bus(Name=name))
        if bus is None:
            return None
        found = aws.events.list_tags_for_resource(ResourceARN=bus["Arn"])
        return Found(name, tag_of(found.get("Tags", [])))

    Resource(
        "event bus",
        name,
        run,
        aws,
        make,
        find,
        remove=lambda _: remove_bus(aws, name),
        by_hand=lambda _: remove_bus_by_hand(aws, name),
    ).create(undo)


def remove_bus(aws: Aws, name: str) -> None:
    """Remove a bus with its rules; wait for a rule that is not listed yet."""
    aws.wait(f"the end of event bus {name}", lambda: _bus_gone(aws, name), timeout=GONE)


def remove_bus_by_hand(aws: Aws, name: str) -> str:
    """The commands that do the same."""
    on_bus = ("--event-bus-name", name)
    lines = [
        ("remove-targets", *on_bus, "--rule", name, "--ids", TARGET),
        ("delete-rule", *on_bus, "--name", name),
        ("delete-event-bus", "--name", name),
    ]
    return "; ".join(
        aws.command("events", operation, *arguments, region=aws.worker_region)
        for operation, *arguments in lines
    )


def _bus_gone(aws: Aws, name: str) -> bool | None:
    """Remove a bus and its rules, if it has any yet; None if a rule is not listed yet."""
    listed = unless_absent(lambda: aws.events.list_rules(EventBusName=name))
    for rule in listed.get("Rules", []) if listed else []:
        unless_absent(partial(aws.events.remove_targets, Rule=rule["Name"], EventBusName=name, Ids=[TARGET]))
        unless_absent(partial(aws.events.delete_rule, Name=rule["Name"], EventBusName=name))
    try:
        unless_absent(lambda: aws.events.delete_event_bus(Name=name))
    except ClientError as error:
        if error_code(error) == "ValidationException":  # a rule that is not listed yet
            return None
        raise
    return True


TARGET = "results"
GONE = 180  # seconds until a new rule is listed, and its bus can be deleted


def _rule(aws: Aws, name: str, queue: str, tags: Tags) -> None:
    """Create the rule and its target. Both are removed with the bus; putting them twice changes nothing."""
    pattern = json.dumps({"source": ["flux.worker"]})
    rule = aws.events.put_rule(Name=name, EventBusName=name, EventPattern=pattern, Tags=_listed(tags))
    attributes = aws.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    policy = queue_policy(attributes["QueueArn"], rule["RuleArn"])
    aws.sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    aws.events.put_targets(
        Rule=name, EventBusName=name, Targets=[{"Id": TARGET, "Arn": attributes["QueueArn"]}]
    )


def queue_policy(queue_arn: str, rule_arn: str) -> str:
    """Return a queue's policy: EventBridge may write to a queue only if its policy allows the rule."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": rule_arn}},
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _listed(tags: Tags) -> Any:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
