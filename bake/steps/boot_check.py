"""Boot the new AMI and generate one image with it: the proof that the AMI works.

The instance gets its own temporary queues, bucket and bus. So it never takes somebody else's job, and nobody
else sees this one.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bake import background
from bake.aws import Aws, ClientError
from bake.checks.baseline import Baseline
from bake.checks.case_list import BOOT_CHECK as CASES
from bake.checks.cases import Case, Cases, recording
from bake.checks.result import Check
from bake.checks.waivers import waive
from bake.errors import BakeError, NotVerified, TimedOut
from bake.layout import INSTANCE_ENV, WORKER_ENV
from bake.planning.plan import Plan
from bake.retries import error_code
from bake.run import Run
from bake.ssh import Session
from bake.steps.check_power import check_power
from bake.steps.check_worker_rights import ask_rights, check_receives, judge_rights
from bake.steps.connect import WrongMachine, check_source, log_in
from bake.steps.first_boot import check_first_boot
from bake.steps.launch import Instance, LaunchSpec, launch
from bake.steps.measure_cold_start import judge_cold_start, measure_cold_start, show_cold_start
from bake.steps.record_inventory import record_inventory
from bake.steps.survey import Survey
from bake.steps.verify import expectations, run_checks
from bake.steps.volume_initialization import Watched, volume_initialization
from bake.steps.wait_for_worker import ImageIsBad, raise_if_failed, services, wait_until_ready
from bake.steps.wire_boot_check import BOOT_CHECK, new_wiring
from bake.undo import Undo
from bake.wiring import Wiring

# Pixels. A worker with compiled sizes generates no others, and gets a job of the smallest one.
SIZE = (256, 256)
STEPS = 4
PROMPT, SEED = "a lighthouse at dawn", 7
FACTS = "facts/boot-check.json"
# Seconds without progress; longer than the unit's TimeoutStartSec= and a restart.
STALL, STALL_ON_NEURON = 1800, 3900
# Seconds to wait for capacity: by now the AMI exists, and may have taken hours.
CAPACITY = 1800
# Seconds from a job to its event, and for reading an object.
EVENT, OBJECT = 600, 300
# Exits with 0 if there is an NVSwitch: a PCI bridge of NVIDIA's.
HAS_NVSWITCH = """for device in /sys/bus/pci/devices/*; do
  [ "$(cat "$device/vendor" "$device/class" | xargs)" = "0x10de 0x068000" ] && exit 0; done; exit 1"""
PROBE = "FluxProbe"
PNG_HEADER = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Drawing:
    """The first image: the PNG's size in pixels, its place in S3, and the file that keeps it now.

    `device` is the backend that generated it: cuda, neuron or cpu. `seconds` is how long that took, as the
    worker says; `memory_bytes` its largest resident memory.
    """

    width: int
    height: int
    s3: str
    file: Path
    ready_seconds: float
    precision: str
    device: str
    sha256: str = ""
    prompt: str = PROMPT
    seed: int = SEED
    steps: int = STEPS
    seconds: float | None = None
    instance: str = ""
    instance_type: str | None = None
    memory_bytes: int | None = None


def boot_check(
    plan: Plan,
    aws: Aws,
    run: Run,
    undo: Undo,
    image: str,
    survey: Survey | None = None,
    wiring: Wiring | None = None,
) -> Drawing:
    """Launch `image`, wait for READY, send one job, and check the PNG that comes back.

    `survey` is of the base AMI, if there was one; `wiring` is made now unless it was before the builder. What
    an earlier attempt of the run has checked is not checked again. Raises ImageIsBad if the AMI failed; any
    other error says nothing about the AMI.
    """
    return run.once(BOOT_CHECK, Drawing, lambda: _boot_check(plan, aws, run, undo, image, survey, wiring))


def _boot_check(
    plan: Plan, aws: Aws, run: Run, undo: Undo, image: str, survey: Survey | None, wiring: Wiring | None
) -> Drawing:
    with (
        run.progress.step(BOOT_CHECK),
        recording(run, "booted", "boot-check", CASES, plan.verify.waivers) as cases,
    ):
        wiring = wiring or new_wiring(plan, aws, run, undo)
        files = {INSTANCE_ENV: wiring.environment(plan.profile.worker.region, plan.launch.settings)}
        spec = LaunchSpec("boot-check", image, plan.profile.worker_types, files, patience=CAPACITY)
        instance = launch(spec, plan, aws, run, undo)
        kind = check_source(instance, image, aws, cases)
        with _log_in(instance, plan, aws, run, cases) as session:
            try:
                seconds = _start(session, plan, aws, run, cases, survey, Watched(aws, instance))
                drawing, detail = _first_image(session, plan, aws, run, wiring, seconds, cases)
                filled = volume_initialization(aws, instance)
                start = measure_cold_start(session, instance, kind, drawing.seconds, plan, run, filled)
                judge_cold_start(start, cases)
                recorded = background.start(lambda: record_inventory(session, plan, run, "booted"))
                memory = check_first_boot(session, cases)
                found = _checks(session, plan, aws, run, instance, survey)
                recorded.result()
            except Exception:  # not after an interrupt: then the removals come first
                _keep_journal(session, run)
                raise
            _keep_journal(session, run)
        drawing = replace(drawing, instance=instance.id, instance_type=kind, memory_bytes=memory)
        run.keep(FACTS, json.dumps(asdict(drawing), indent=1, default=str) + "\n")
        show_cold_start(start, run)
        wanted = plan.profile.weights.precision
        with cases.case("worker.precision") as case:
            case(wanted, detail["precision"], "the worker's event")
            check_precision(detail, wanted)
        with cases.case("worker.device") as case:
            case(plan.verify.drivers.drawn_on, drawing.device, "the image's record in S3")
            check_device(drawing, plan.verify.drivers.drawn_on)
        own = waive(cases.results(), plan.verify.waivers, aws.now().date())
        raise_if_wrong((*own, *found))
        return drawing


def _log_in(instance: Instance, plan: Plan, aws: Aws, run: Run, cases: Cases) -> Session:
    try:
        return log_in(instance, plan, aws, run, cases)
    except WrongMachine as error:
        raise ImageIsBad(error.message, hint=error.hint) from error


def _start(
    session: Session,
    plan: Plan,
    aws: Aws,
    run: Run,
    cases: Cases,
    survey: Survey | None,
    volume: Watched,
) -> float:
    """Wait for the worker, and check what it needs before a job waits in vain; return seconds since boot."""
    asked = background.start(lambda: ask_rights(session))  # needs the network alone, while the model loads
    with cases.case("system.stays_on") as case:
        case(
            "nothing, or the base AMI's own", check_power(session, run, _baseline(survey)), "the probe power"
        )
    with cases.case("worker.ready") as case:
        stall = STALL_ON_NEURON if plan.verify.drivers.compiled else STALL
        limit = 3600 * plan.profile.worker.start_hours
        seconds = wait_until_ready(session, aws, run, stall=stall, limit=limit, volume=volume)
        case("READY=1", f"active {seconds} s after the boot", "systemctl show flux-worker.service")
    with cases.case("performance.ready_time") as case:
        by = "UserspaceTimestampMonotonic and ActiveEnterTimestampMonotonic"
        case.holds(seconds <= limit, f"at most {limit:.0f} s (worker.start_hours)", f"{seconds} s", by)
    with cases.case("drivers.daemons") as case:
        check_units(session, run.progress.note, case)
    with cases.case("worker.rights") as case:
        judge_rights(asked.result(), run, case)
    with cases.case("worker.receives") as case:
        case("it receives", check_receives(session, aws), "StatusText of flux-worker.service")
    return seconds


def _baseline(survey: Survey | None) -> Baseline | None:
    return survey.baseline if survey else None


def _first_image(
    session: Session, plan: Plan, aws: Aws, run: Run, wiring: Wiring, seconds: float, cases: Cases
) -> tuple[Drawing, dict[str, Any]]:
    size = size_of(plan.verify.drivers.compiled)
    with cases.case("worker.first_image") as case:
        detail = _draw(session, aws, run, wiring, size)
        drawing = fetch(aws, run, detail, seconds, size)
        png = f"PNG of {drawing.width} x {drawing.height}, sha256 {drawing.sha256}"
        case(f"one PNG of {size[0]} x {size[1]}", png, f"the event FluxImageReady and {drawing.s3}")
    return drawing, detail


def _checks(
    session: Session, plan: Plan, aws: Aws, run: Run, instance: Instance, survey: Survey | None
) -> tuple[Check, ...]:
    """Repeat the checks that a boot may change; without a record of the base AMI nobody knows whose it is."""
    if survey is None:
        run.progress.note("the booted machine is not compared with the base AMI: only a bake records that")
        return ()
    expect = expectations(plan, aws, instance, survey.baseline)
    expect = replace(expect, moment="booted", device=plan.verify.drivers.on_worker)
    return run_checks(session, plan, aws, run, expect, "checks").checks


def raise_if_wrong(checks: Sequence[Check]) -> None:
    """Raise NotVerified for failed checks of an image that has drawn: it is not good, and not thrown away."""
    failed = [one for one in checks if one.outcome == "failed"]
    if failed:
        lines = [f"  {one.id}: {one.about.title}: {one.reason.splitlines()[0]}" for one in failed]
        raise NotVerified(
            "\n".join(["the image has drawn, and is not what it should be:", *lines]),
            hint="the report has what was expected and found; a waiver of the profile may accept it",
        )


def _draw(session: Session, aws: Aws, run: Run, wiring: Wiring, size: tuple[int, int]) -> dict[str, Any]:
    """Send one job, wait for its event and return the event's detail."""
    job = {
        "id": f"boot-check-{run.id}",
        "prompt": PROMPT,
        "width": size[0],
        "height": size[1],
        "steps": STEPS,
        "seed": SEED,
    }
    aws.sqs.send_message(QueueUrl=wiring.jobs, MessageBody=json.dumps(job))
    run.progress.status("waiting for the first image")
    try:
        return aws.wait("the event of the first image", lambda: _receive(aws, wiring.results), timeout=EVENT)
    except TimedOut as error:
        found = services(session)
        for facts in found:
            raise_if_failed(facts, session)
        said = "; ".join(facts.get("StatusText", "") for facts in found)
        raise BakeError(
            f"{error.message}; the worker is up and says: {said}",
            hint="may the instance profile use the queue, bucket and bus named bake-*? "
            "See logs/boot-check.journal.log",
        ) from error


def size_of(compiled: Sequence[str]) -> tuple[int, int]:
    """Return the width and height to ask for, in pixels; `compiled` are the only possible sizes, if any."""
    sizes = [(int(width), int(height)) for width, height in (size.split("x") for size in compiled)]
    return min(sizes, key=lambda size: size[0] * size[1], default=SIZE)


def check_precision(detail: Mapping[str, Any], wanted: str) -> None:
    """Raise ImageIsBad if the worker used another precision than the profile says."""
    if detail["precision"] != wanted:
        raise ImageIsBad(
            f"the first image was drawn in {detail['precision']}, and weights.precision is {wanted}",
            hint=f"look at FLUX_MODEL_DIR in {WORKER_ENV} of the image",
        )


def check_device(drawing: Drawing, wanted: str) -> None:
    """Raise ImageIsBad if the worker used another backend than the plan says.

    Without a usable driver a worker that chooses by itself falls back to the CPU: a success, but a slow one.
    """
    if drawing.device != wanted:
        raise ImageIsBad(
            f"the first image was drawn on {drawing.device}, and the plan says {wanted}",
            hint="the worker finds no accelerator it can use: see the driver's lines in "
            "logs/boot-check.journal.log",
        )


def check_units(session: Session, note: Callable[[str], None], case: Case | None = None) -> None:
    """Raise ImageIsBad if a daemon of the driver failed, which a builder without a GPU could not try.

    A Deep Learning AMI enables the fabric manager for all types. Without NVSwitch it fails, harmlessly.
    """
    listed = session.run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "nvidia-*").stdout
    failed = [line.strip() for line in listed.splitlines() if line.strip()]
    fabric = [line for line in failed if line.startswith("nvidia-fabricmanager.service ")]
    if fabric and session.run("sh", "-c", HAS_NVSWITCH, check=False).exit_code:
        note("nvidia-fabricmanager.service failed, as it does without NVSwitch: the base AMI enables it")
        failed.remove(fabric[0])
    if case is not None:
        case("none", failed, "systemctl list-units --failed nvidia-*")
    if failed:
        raise ImageIsBad("the driver does not start on the new image:\n" + "\n".join(failed))


def _keep_journal(session: Session, run: Run) -> None:
    """Keep the journal, however the check ended, unless the machine no longer answers."""
    with suppress(BakeError):
        journal = session.run("journalctl", "-b", "--no-pager", sudo=True, check=False).stdout
        run.keep("logs/boot-check.journal.log", journal)


def _receive(aws: Aws, queue: str) -> dict[str, Any] | None:
    messages = aws.sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=2).get("Messages", [])
    if not messages:
        return None
    event = json.loads(messages[0]["Body"])
    if event["detail-type"] == PROBE:  # sent by the check of rights
        aws.sqs.delete_message(QueueUrl=queue, ReceiptHandle=messages[0]["ReceiptHandle"])
        return None
    if event["detail-type"] != "FluxImageReady":
        raise ImageIsBad(f"the first image failed: {event['detail'].get('reason')}")
    return dict(event["detail"])


def fetch(
    aws: Aws, run: Run, detail: dict[str, Any], seconds: float, asked: tuple[int, int] = SIZE
) -> Drawing:
    """Fetch the object named by the event, and check that it is a PNG of the `asked` width and height."""
    [key] = detail["keys"]
    where = f"s3://{detail['bucket']}/{key}"
    content = _object(aws, detail["bucket"], key)
    file = run.keep("first-image.png", content)
    width, height = png_size(content, where)
    if (width, height) != asked:
        raise ImageIsBad(f"{where} has {width} x {height} pixels, {asked[0]} x {asked[1]} were asked for")
    record = json.loads(_object(aws, detail["bucket"], detail["sidecar"]))
    return Drawing(
        width,
        height,
        where,
        file,
        seconds,
        detail["precision"],
        device=record["model"]["device"],
        sha256=hashlib.sha256(content).hexdigest(),
        seconds=record.get("seconds", {}).get("draw"),
    )


def _object(aws: Aws, bucket: str, key: str) -> bytes:
    """Read an object, and again if the connection breaks in the middle."""

    def read() -> bytes:
        try:
            return aws.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error_code(error) == "NoSuchKey":
                raise ImageIsBad(f"the worker announced s3://{bucket}/{key}, which is not there") from error
            raise

    return aws.wait(f"s3://{bucket}/{key}", read, timeout=OBJECT)


def png_size(content: bytes, where: str) -> tuple[int, int]:
    """Read width and height in pixels from the IHDR chunk (PNG specification, 11.2.1)."""
    if not content.startswith(PNG_HEADER) or content[12:16] != b"IHDR":
        raise ImageIsBad(f"{where} is not a PNG ({len(content)} bytes)")
    width, height = struct.unpack(">II", content[16:24])
    return width, height
