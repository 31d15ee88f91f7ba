"""Make the int8 checkpoint on the builder, compare its images with bfloat16's, remove its source."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bake import units
from bake.errors import BakeError, NotVerified
from bake.layout import BAKE, RANGES, VENV
from bake.planning.plan import Plan
from bake.progress import readable
from bake.run import Run
from bake.ssh import Session
from bake.steps.mount_scratch import unmount_scratch
from bake.steps.prefetch import Events

UNIT = "bake-quantize"
PICTURES = f"{BAKE}/pictures"
PROVENANCE, COMPARISON = "quantization.json", "comparison.json"
FACTS = "facts/int8.json"
# Two unrelated images have a PSNR of about 10 dB.
LOWEST_PSNR = 20.0
RUN_AGAIN = "the run directory has the logs of bake-quantize; fix that and bake again"


@dataclass(frozen=True)
class Checkpoint:
    """The int8 model on the image: bytes, seconds to make it, and peak RAM in bytes without mapped files.

    `provenance` has commit, method, versions and the hash of each file read or written. `comparison` compares
    one image with bfloat16's (`psnr` in dB, None if no pixel differs). `source_removed` is in bytes.
    """

    folder: str
    bytes: int
    seconds: float
    peak_ram: int
    provenance: Mapping[str, Any]
    comparison: Mapping[str, Any]
    source_removed: int


def quantize(session: Session, plan: Plan, run: Run) -> Checkpoint | None:
    """Quantize the downloaded model; None if the worker serves bfloat16.

    Raises BakeError if that fails, NotVerified if the source is not the locked one or the images differ.
    """
    if plan.weights.model_dir is None:
        return None
    with run.progress.step("quantize"):
        last = _make(session, plan, plan.weights.model_dir, run)
        provenance = _read(session, f"{plan.weights.model_dir}/{PROVENANCE}")
        check_source(plan, provenance)
        comparison = _read(session, f"{plan.weights.model_dir}/{COMPARISON}")
        _keep_pictures(session, run)
        check_likeness(comparison["psnr"])
        removed = _remove_source(session, plan, run)
        made = last["quantized"]
        checkpoint = Checkpoint(
            plan.weights.model_dir,
            made["bytes"],
            made["seconds"],
            made["peak_ram"],
            provenance,
            comparison,
            removed,
        )
        run.keep(FACTS, json.dumps(asdict(checkpoint), indent=1) + "\n")
        return checkpoint


def _make(session: Session, plan: Plan, folder: str, run: Run) -> Mapping[str, Mapping[str, Any]]:
    """Run `provision/quantize.py` as root, so that the worker can't change its model."""
    device = "cuda" if plan.verify.drivers.on_builder else "cpu"
    argv = (f"{VENV}/bin/python", f"{BAKE}/quantize.py", snapshot(plan), folder, PICTURES, device, RANGES)
    unit = units.start(session, UNIT, *argv, directory=BAKE)
    events = Events()

    def look() -> None:
        for event in events.take(unit.output("out", after=events.read)):
            _tell(event, run)

    with run.progress.unit("quantize"):
        result = unit.wait(look, seconds=1.0, talks=True)
    unit.save_logs(run, result)
    if "refused" in events.last:
        reason = events.last["refused"]["reason"]
        raise BakeError(f"the weights were not quantized: {reason}", hint=RUN_AGAIN)
    result.check()
    return events.last


def _tell(event: Mapping[str, Any], run: Run) -> None:
    match event["event"]:
        case "progress":
            run.progress.transfer("int8", event["done"], event["total"])
        case "quantized":
            run.progress.note(
                f"int8 checkpoint of {readable(event['bytes'])} in {event['seconds']:.0f} s, "
                f"{readable(event['peak_ram'])} of RAM at most"
            )
        case "drawing":
            where = f"drawing in {event['precision']} on {event['device']}"
            run.progress.status(f"{where}: step {event['step']} of {event['steps']}")
        case "compared":
            run.progress.note(f"int8 draws like bf16: PSNR {decibels(event['psnr'])}")


def decibels(psnr: float | None) -> str:
    """Format a PSNR."""
    return "infinite: no pixel differs" if psnr is None else f"{psnr:.1f} dB"


def snapshot(plan: Plan) -> str:
    """Return the folder of the downloaded snapshot."""
    return f"{repository(plan)}/snapshots/{plan.profile.weights.revision}"


def repository(plan: Plan) -> str:
    """Return the downloaded repository's folder, in the Hugging Face cache or on the instance store."""
    return f"{plan.weights.download_cache}/models--{plan.profile.weights.repo.replace('/', '--')}"


def _read(session: Session, file: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(session.run("cat", file).stdout)
    return content


def check_source(plan: Plan, provenance: Mapping[str, Any]) -> None:
    """Raise NotVerified unless the source files have the locked sha256."""
    assert plan.weights.lock is not None  # what is not locked is not baked
    read = provenance["inputs"]
    wrong = [
        path
        for path, file in plan.weights.lock.files.items()
        if file.sha256 and (path not in read or read[path]["sha256"] != file.sha256)
    ]
    if wrong:
        raise NotVerified(
            f"int8 was not made of the locked files: {', '.join(wrong)}",
            hint="the disk of the builder gave other bytes than were verified; bake again on another builder",
        )


def check_likeness(psnr: float | None) -> None:
    """Raise NotVerified if int8 generates another image than bfloat16."""
    if psnr is not None and psnr < LOWEST_PSNR:
        raise NotVerified(
            f"int8 does not draw what bf16 draws: PSNR {psnr:.1f} dB, at least {LOWEST_PSNR:.0f} are wanted",
            hint="bf16.png and int8.png are in the run directory; in bf16 the model needs a larger GPU",
        )


def _keep_pictures(session: Session, run: Run) -> None:
    for name in ("bf16.png", "int8.png"):
        content = session.run("base64", f"{PICTURES}/{name}").stdout
        run.keep(name, base64.b64decode(content))


def _remove_source(session: Session, plan: Plan, run: Run) -> int:
    """Remove the repository from the cache if the profile says so; the checkpoint is all that is loaded.

    It is removed whole: huggingface_hub takes a snapshot without its largest files for a complete one.
    """
    unmount_scratch(session, plan, run)
    if plan.profile.weights.keep_source or plan.profile.weights.scratch:
        return 0
    assert plan.weights.lock is not None
    removed = sum(file.bytes for file in plan.weights.lock.files.values())
    session.run("rm", "-rf", "--one-file-system", repository(plan), sudo=True)
    run.progress.note(f"removed the bfloat16 files, {readable(removed)}: the image does not need them")
    return removed
