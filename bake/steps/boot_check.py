"""Boot the new AMI and let it draw one image: the proof that the image works.

The instance gets queues, a bucket and a bus of its own, all throw-away, so that no job of anybody else's
is ever taken and nobody else sees this one.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bake.aws import Aws
from bake.creation import tags
from bake.errors import BakeError, ConnectionLost, NotVerified, TimedOut
from bake.plan import Plan
from bake.retries import error_code
from bake.run import Run
from bake.ssh import Session
from bake.steps.launch import Instance, WrongMachine, launch, log_in
from bake.undo import Undo
from bake.wiring import Wiring, wire

# Pixels; a worker whose sizes are compiled draws no others, and is asked for the smallest of them.
SIZE = (256, 256)
STEPS = 4
# Seconds to wait for the worker: longer than its unit gives it (TimeoutStartSec=), and a restart.
READY, READY_ON_NEURON = 1800, 3900
# Seconds to wait for an instance where AWS has none: the image is made by then, and hours may be in it.
CAPACITY = 1800
# Seconds from a job to its event, and to read an object.
EVENT, OBJECT = 600, 300
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


class ImageIsBad(NotVerified):
    """The image ran on a machine that was up, and failed there: it is not kept."""


def boot_check(plan: Plan, aws: Aws, run: Run, undo: Undo, image: str) -> Drawing:
    """Launch `image`, wait for READY, send one job, and check the PNG that comes back.

    Raises ImageIsBad where the image failed; any other error says nothing about the image.
    """
    name = f"bake-{run.id}"
    known = {tag["Key"]: tag["Value"] for tag in tags(plan, run, name)}
    wiring = wire(aws, run.id, known, undo)
    files = {INSTANCE_ENV: wiring.environment(plan.profile.worker.region, plan.sources.worker)}
    types = plan.profile.worker_types
    instance = launch(
        plan, aws, run, undo, role="boot-check", image=image, types=types, files=files, patience=CAPACITY
    )
    size = size_of(plan.drivers.compiled)
    with _log_in(instance, run) as session:
        try:
            seconds = wait_until_ready(session, aws, run, READY_ON_NEURON if plan.drivers.compiled else READY)
            check_units(session)
            detail = _draw(session, aws, run, wiring, size)
        except Exception:  # where somebody interrupts, the removals come first
            _keep_journal(session, run)
            raise
        _keep_journal(session, run)
    check_precision(detail, plan.profile.weights.precision)
    drawing = fetch(aws, run, detail, seconds, size)
    check_device(drawing, plan.drivers.drawn_on)
    return drawing


def _log_in(instance: Instance, run: Run) -> Session:
    try:
        return log_in(instance, run)
    except WrongMachine as error:
        raise ImageIsBad(error.message, hint=error.hint) from error


def _draw(session: Session, aws: Aws, run: Run, wiring: Wiring, size: tuple[int, int]) -> dict[str, Any]:
    """Send one job and wait for its event; the event's detail."""
    job = {
        "id": f"boot-check-{run.id}",
        "prompt": "a lighthouse at dawn",
        "width": size[0],
        "height": size[1],
        "steps": STEPS,
        "seed": 7,
    }
    aws.sqs.send_message(QueueUrl=wiring.jobs, MessageBody=json.dumps(job))
    run.progress.status("waiting for the first image")
    try:
        return aws.wait("the event of the first image", lambda: _receive(aws, wiring.results), timeout=EVENT)
    except TimedOut as error:
        _raise_if_failed(_service(session), session)
        raise BakeError(
            f"{error.message}; the worker is up",
            hint="may the instance profile use the queue, bucket and bus named bake-*? "
            "See logs/boot-check.journal.log",
        ) from error


def size_of(compiled: Sequence[str]) -> tuple[int, int]:
    """Width and height in pixels to ask for; `compiled` are the sizes that the image can draw, if not all."""
    sizes = [(int(width), int(height)) for width, height in (size.split("x") for size in compiled)]
    return min(sizes, key=lambda size: size[0] * size[1], default=SIZE)


def check_precision(detail: Mapping[str, Any], wanted: str) -> None:
    """Raise ImageIsBad where the booted worker drew with other weights than the profile says."""
    if detail["precision"] != wanted:
        raise ImageIsBad(
            f"the first image was drawn in {detail['precision']}, and weights.precision is {wanted}",
            hint="look at FLUX_MODEL_DIR in /etc/flux-worker/worker.env of the image",
        )


def check_device(drawing: Drawing, wanted: str | None) -> None:
    """Raise ImageIsBad where the worker drew on something else than the accelerator that is there.

    Without a usable driver it draws on the CPU, and that would look like a slow success.
    """
    if wanted is not None and drawing.device != wanted:
        raise ImageIsBad(
            f"the first image was drawn on {drawing.device}, and this instance type has {wanted}",
            hint="the worker finds no accelerator it can use: see the driver's lines in "
            "logs/boot-check.journal.log",
        )


def check_units(session: Session) -> None:
    """Raise ImageIsBad where a daemon of the driver failed: a builder without a GPU could not try it."""
    listed = session.run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "nvidia-*").stdout
    if listed.strip():
        raise ImageIsBad(f"the driver does not start on the new image:\n{listed.strip()}")


def wait_until_ready(session: Session, aws: Aws, run: Run, timeout: float) -> float:
    """Wait for the worker's READY=1 (`Type=notify`: only then is the unit active); seconds since boot.

    A worker that is not ready in time is the image's fault, unless it still reads its model from the disk.
    """

    def look() -> str | None:
        try:
            facts = _service(session)
        except ConnectionLost:
            session.reconnect()
            return None
        run.progress.status(f"worker: {facts.get('StatusText') or facts.get('SubState')}")
        _raise_if_failed(facts, session)
        return "ready" if facts.get("ActiveState") == "active" else None

    try:
        aws.wait("the worker's READY", look, timeout=timeout)
    except TimedOut as error:
        if is_reading(session):
            raise BakeError(
                f"{error.message}; the worker still reads its model from the disk",
                hint="a new volume is filled while it is read: a faster volume type or more throughput helps",
            ) from error
        raise ImageIsBad(error.message, hint="see logs/boot-check.journal.log") from error
    return _seconds_since_boot(session)


def _service(session: Session) -> dict[str, str]:
    properties = "LoadState,ActiveState,SubState,StatusText,NRestarts,MainPID"
    output = session.run("systemctl", "show", "flux-worker", "-p", properties).stdout
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


def _raise_if_failed(facts: Mapping[str, str], session: Session) -> None:
    if facts.get("LoadState") != "loaded":
        raise ImageIsBad(f"the new image has no flux-worker.service: systemd says {facts.get('LoadState')}")
    if facts.get("ActiveState") == "failed" or int(facts.get("NRestarts") or 0) > 2:
        journal = session.run("journalctl", "-u", "flux-worker", "-n", "20", "-o", "cat", sudo=True).stdout
        raise ImageIsBad(f"the worker does not start on the new image:\n{journal.strip()}")


def is_reading(session: Session, seconds: float = 5.0) -> bool:
    """Whether the worker brings bytes from its disk right now."""
    before = _bytes_read(session)
    time.sleep(seconds)  # a rate needs two looks
    return _bytes_read(session) > before


def _bytes_read(session: Session) -> int:
    """Bytes that the worker's process has had fetched from a disk, by page faults too (proc(5))."""
    pid = _service(session).get("MainPID", "0")
    shown = session.run("cat", f"/proc/{pid}/io", sudo=True, check=False).stdout
    facts = dict(line.split(": ", 1) for line in shown.splitlines() if ": " in line)
    return int(facts.get("read_bytes", 0))


def _seconds_since_boot(session: Session) -> float:
    """From the start of the machine's systemd to the worker's READY, by systemd's own clock."""
    booted = session.run("systemctl", "show", "--value", "-p", "UserspaceTimestampMonotonic").stdout
    ready = session.run("systemctl", "show", "--value", "-p", "ActiveEnterTimestampMonotonic", "flux-worker")
    return round((int(ready.stdout) - int(booted)) / 1e6, 1)


def _keep_journal(session: Session, run: Run) -> None:
    """Keep it, whatever ended the check; a machine that does not answer any more has none to give."""
    with suppress(BakeError):
        journal = session.run("journalctl", "-b", "--no-pager", sudo=True, check=False).stdout
        run.keep("logs/boot-check.journal.log", journal)


def _receive(aws: Aws, queue: str) -> dict[str, Any] | None:
    messages = aws.sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=2).get("Messages", [])
    if not messages:
        return None
    event = json.loads(messages[0]["Body"])
    if event["detail-type"] != "FluxImageReady":
        raise ImageIsBad(f"the first image failed: {event['detail'].get('reason')}")
    return dict(event["detail"])


def fetch(
    aws: Aws, run: Run, detail: dict[str, Any], seconds: float, asked: tuple[int, int] = SIZE
) -> Drawing:
    """Fetch the object that the event names and check that it is a PNG of the `asked` width and height."""
    [key] = detail["keys"]
    where = f"s3://{detail['bucket']}/{key}"
    content = _object(aws, detail["bucket"], key)
    file = run.keep("first-image.png", content)
    width, height = png_size(content, where)
    if (width, height) != asked:
        raise ImageIsBad(f"{where} has {width} x {height} pixels, {asked[0]} x {asked[1]} were asked for")
    record = json.loads(_object(aws, detail["bucket"], detail["sidecar"]))
    return Drawing(width, height, where, file, seconds, detail["precision"], device=record["model"]["device"])


def _object(aws: Aws, bucket: str, key: str) -> bytes:
    """An object's bytes; a connection that breaks in the middle is no answer, and asked again."""

    def read() -> bytes:
        try:
            return aws.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except Exception as error:
            if error_code(error) == "NoSuchKey":
                raise ImageIsBad(f"the worker announced s3://{bucket}/{key}, which is not there") from error
            raise

    return aws.wait(f"s3://{bucket}/{key}", read, timeout=OBJECT)


def png_size(content: bytes, where: str) -> tuple[int, int]:
    """Width and height in pixels from the IHDR chunk (PNG specification, 11.2.1)."""
    if not content.startswith(PNG_HEADER) or content[12:16] != b"IHDR":
        raise ImageIsBad(f"{where} is not a PNG ({len(content)} bytes)")
    width, height = struct.unpack(">II", content[16:24])
    return width, height
