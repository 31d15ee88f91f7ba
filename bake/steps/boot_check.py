"""Boot the new AMI and let it draw one image: the proof that the image works.

The instance gets queues, a bucket and a bus of its own, all throw-away, so that no job of anybody else's
is ever taken and nobody else sees this one.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bake.aws import Aws
from bake.errors import BakeError
from bake.plan import Plan
from bake.run import Run
from bake.ssh import Session
from bake.steps.launch import launch, log_in
from bake.undo import Undo

# Pixels; a worker whose sizes are compiled draws no others, and is asked for the smallest of them.
SIZE = (256, 256)
STEPS = 4
# Seconds to wait for the worker: longer than its unit gives it (TimeoutStartSec=), and a restart.
READY, READY_ON_NEURON = 1800, 3900
# Seconds to wait for an instance where AWS has none: the image is made by then, and hours may be in it.
CAPACITY = 1800
INSTANCE_ENV = "/etc/flux-worker/instance.env"
PNG_HEADER = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Drawing:
    """What the booted image drew: the PNG's size in pixels, where it was in S3, where it is kept now.

    `device` is the worker's backend that drew it: cuda, neuron or cpu.
    """

    width: int
    height: int
    s3: str
    file: Path
    ready_seconds: float
    precision: str
    device: str


@dataclass(frozen=True)
class Wiring:
    """The throw-away queues, bucket and bus of one boot check; queues by URL."""

    jobs: str
    results: str
    bucket: str
    bus: str

    def environment(self, region: str, extra: Mapping[str, str]) -> str:
        """The worker's `instance.env`."""
        facts = {
            "AWS_REGION": region,
            "FLUX_QUEUE_URL": self.jobs,
            "FLUX_BUCKET": self.bucket,
            "FLUX_EVENT_BUS": self.bus,
            **extra,
        }
        return "".join(f"{key}={value}\n" for key, value in facts.items())


def boot_check(plan: Plan, aws: Aws, run: Run, undo: Undo, image: str) -> Drawing:
    """Launch `image`, wait for READY, send one job, and check the PNG that comes back."""
    wiring = wire(aws, run, undo)
    width, height = size_of(plan.drivers.compiled)
    files = {INSTANCE_ENV: wiring.environment(plan.profile.worker.region, plan.sources.worker)}
    types = plan.profile.worker_types
    instance = launch(
        plan, aws, run, undo, role="boot-check", image=image, types=types, files=files, patience=CAPACITY
    )
    with log_in(instance, run) as session:
        seconds = wait_until_ready(session, aws, run, READY_ON_NEURON if plan.drivers.compiled else READY)
        check_units(session)
        job = {
            "id": f"boot-check-{run.id}",
            "prompt": "a lighthouse at dawn",
            "width": width,
            "height": height,
            "steps": STEPS,
            "seed": 7,
        }
        aws.sqs.send_message(QueueUrl=wiring.jobs, MessageBody=json.dumps(job))
        run.progress.status("waiting for the first image")
        try:
            detail = aws.wait(
                "the event of the first image", lambda: _receive(aws, wiring.results), timeout=600
            )
        except BaseException:
            _keep_journal(session, run)
            raise
        _keep_journal(session, run)
    check_precision(detail, plan.profile.weights.precision)
    drawing = fetch(aws, run, detail, seconds, (width, height))
    check_device(drawing, plan.drivers.drawn_on)
    return drawing


def size_of(compiled: Sequence[str]) -> tuple[int, int]:
    """Width and height in pixels to ask for; `compiled` are the sizes that the image can draw, if not all."""
    sizes = [(int(width), int(height)) for width, height in (size.split("x") for size in compiled)]
    return min(sizes, key=lambda size: size[0] * size[1], default=SIZE)


def check_precision(detail: Mapping[str, Any], wanted: str) -> None:
    """Raise BakeError where the booted worker drew with other weights than the profile says."""
    if detail["precision"] != wanted:
        raise BakeError(
            f"the first image was drawn in {detail['precision']}, and weights.precision is {wanted}",
            hint="look at FLUX_MODEL_DIR in /etc/flux-worker/worker.env of the image",
        )


def check_device(drawing: Drawing, wanted: str | None) -> None:
    """Raise BakeError where the worker drew on something else than the accelerator that is there.

    Without a usable driver it draws on the CPU, and that would look like a slow success.
    """
    if wanted is not None and drawing.device != wanted:
        raise BakeError(
            f"the first image was drawn on {drawing.device}, and this instance type has {wanted}",
            hint="the worker finds no accelerator it can use: see the driver's lines in "
            "logs/boot-check.journal.log",
        )


def check_units(session: Session) -> None:
    """Raise BakeError where a daemon of the driver failed: a builder without a GPU could not try it."""
    listed = session.run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "nvidia-*").stdout
    if listed.strip():
        raise BakeError(f"the driver does not start on the new image:\n{listed.strip()}")


def wait_until_ready(session: Session, aws: Aws, run: Run, timeout: float) -> float:
    """Wait for the worker's READY=1 (`Type=notify`: only then is the unit active); seconds since boot."""

    def look() -> str | None:
        output = session.run(
            "systemctl", "show", "flux-worker", "-p", "ActiveState,SubState,StatusText,NRestarts"
        ).stdout
        facts = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
        run.progress.status(f"worker: {facts.get('StatusText') or facts.get('SubState')}")
        if facts.get("ActiveState") == "failed" or int(facts.get("NRestarts") or 0) > 2:
            _keep_journal(session, run)
            journal = session.run(
                "journalctl", "-u", "flux-worker", "-n", "20", "-o", "cat", sudo=True
            ).stdout
            raise BakeError(f"the worker does not start on the new image:\n{journal.strip()}")
        return "ready" if facts.get("ActiveState") == "active" else None

    try:
        aws.wait("the worker's READY", look, timeout=timeout)
    except BaseException:
        _keep_journal(session, run)
        raise
    return _seconds_since_boot(session)


def _seconds_since_boot(session: Session) -> float:
    """From the start of the machine's systemd to the worker's READY, by systemd's own clock."""
    booted = session.run("systemctl", "show", "--value", "-p", "UserspaceTimestampMonotonic").stdout
    ready = session.run("systemctl", "show", "--value", "-p", "ActiveEnterTimestampMonotonic", "flux-worker")
    return round((int(ready.stdout) - int(booted)) / 1e6, 1)


def _keep_journal(session: Session, run: Run) -> None:
    journal = session.run("journalctl", "-b", "--no-pager", sudo=True, check=False).stdout
    (run.logs / "boot-check.journal.log").write_text(journal, encoding="utf-8")


def wire(aws: Aws, run: Run, undo: Undo) -> Wiring:
    """Make two queues, a bucket, a bus and the rule that brings the worker's events to the second queue."""
    name = f"bake-{run.id}"
    jobs, _ = _queue(aws, undo, f"{name}-jobs")
    results, results_arn = _queue(aws, undo, f"{name}-results")
    _bucket(aws, undo, name)
    _bus(aws, undo, name, results, results_arn)
    return Wiring(jobs, results, name, name)


def _queue(aws: Aws, undo: Undo, name: str) -> tuple[str, str]:
    with undo.creating():
        url = aws.sqs.create_queue(QueueName=name)["QueueUrl"]
        undo.add(
            f"queue {name}",
            lambda: aws.sqs.delete_queue(QueueUrl=url),
            by_hand=f"aws sqs delete-queue --region {aws.worker_region} --queue-url {url}",
        )
    attributes = aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    return url, attributes["QueueArn"]


def _bucket(aws: Aws, undo: Undo, name: str) -> None:
    def remove() -> None:
        for item in aws.s3.list_objects_v2(Bucket=name).get("Contents", []):
            aws.s3.delete_object(Bucket=name, Key=item["Key"])
        aws.s3.delete_bucket(Bucket=name)

    where: Any = {"CreateBucketConfiguration": {"LocationConstraint": aws.worker_region}}
    with undo.creating():
        aws.s3.create_bucket(Bucket=name, **({} if aws.worker_region == "us-east-1" else where))
        undo.add(f"bucket {name}", remove, by_hand=f"aws s3 rb --force s3://{name}")


def _bus(aws: Aws, undo: Undo, name: str, queue: str, queue_arn: str) -> None:
    region = aws.worker_region
    with undo.creating():
        aws.events.create_event_bus(Name=name)
        undo.add(
            f"event bus {name}",
            lambda: aws.events.delete_event_bus(Name=name),
            by_hand=f"aws events delete-event-bus --region {region} --name {name}",
        )
    with undo.creating():
        rule = aws.events.put_rule(
            Name=name, EventBusName=name, EventPattern=json.dumps({"source": ["flux.worker"]})
        )["RuleArn"]
        undo.add(
            f"rule {name}",
            lambda: aws.events.delete_rule(Name=name, EventBusName=name),
            by_hand=f"aws events delete-rule --region {region} --event-bus-name {name} --name {name}",
        )
    aws.sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": _policy(queue_arn, rule)})
    with undo.creating():
        aws.events.put_targets(Rule=name, EventBusName=name, Targets=[{"Id": "results", "Arn": queue_arn}])
        undo.add(
            f"target of rule {name}",
            lambda: aws.events.remove_targets(Rule=name, EventBusName=name, Ids=["results"]),
            by_hand=f"aws events remove-targets --region {region} --event-bus-name {name} --rule {name} "
            "--ids results",
        )


def _policy(queue_arn: str, rule_arn: str) -> str:
    """EventBridge may write to a queue only if the queue's own policy lets this rule."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": rule_arn}},
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _receive(aws: Aws, queue: str) -> dict[str, Any] | None:
    messages = aws.sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=2).get("Messages", [])
    if not messages:
        return None
    event = json.loads(messages[0]["Body"])
    if event["detail-type"] != "FluxImageReady":
        raise BakeError(f"the first image failed: {event['detail'].get('reason')}")
    return dict(event["detail"])


def fetch(
    aws: Aws, run: Run, detail: dict[str, Any], seconds: float, asked: tuple[int, int] = SIZE
) -> Drawing:
    """Fetch the object that the event names and check that it is a PNG of the `asked` width and height."""
    [key] = detail["keys"]
    where = f"s3://{detail['bucket']}/{key}"
    content = aws.s3.get_object(Bucket=detail["bucket"], Key=key)["Body"].read()
    file = run.directory / "first-image.png"
    file.write_bytes(content)
    width, height = png_size(content, where)
    if (width, height) != asked:
        raise BakeError(f"{where} has {width} x {height} pixels, {asked[0]} x {asked[1]} were asked for")
    record = json.loads(aws.s3.get_object(Bucket=detail["bucket"], Key=detail["sidecar"])["Body"].read())
    return Drawing(width, height, where, file, seconds, detail["precision"], device=record["model"]["device"])


def png_size(content: bytes, where: str) -> tuple[int, int]:
    """Width and height in pixels from the IHDR chunk (PNG specification, 11.2.1)."""
    if not content.startswith(PNG_HEADER) or content[12:16] != b"IHDR":
        raise BakeError(f"{where} is not a PNG ({len(content)} bytes)")
    width, height = struct.unpack(">II", content[16:24])
    return width, height
