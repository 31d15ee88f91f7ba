"""Say in an AMI's tag how fast its boot check read from a new volume, for the plans of later bakes."""

from __future__ import annotations

import time

from pydantic import ValidationError

from bake import hydration, retries
from bake.aws import Aws, call_errors, unanswered
from bake.checks.cold_start import ColdStart, StageName
from bake.hydration import Measured
from bake.image import Image
from bake.run import Run
from bake.steps.measure_cold_start import FACTS

LOOK = 10.0  # seconds


def tag_hydration(aws: Aws, run: Run, image: Image) -> None:
    """Write the tag, if this run's boot check has measured; a tag that can't be written fails nothing."""
    found = _kept(run)
    if found is None or (measured := measured_of(found)) is None:
        return
    tag = {"Key": hydration.TAG, "Value": measured.text()}
    try:
        with retries.until(time.monotonic() + LOOK):
            aws.ec2.create_tags(Resources=[image.id], Tags=[tag])  # type: ignore[list-item]
    except call_errors() as error:
        run.progress.note(
            f"{image.id} has no tag {hydration.TAG}, which later plans read: {unanswered(error)}"
        )


def _kept(run: Run) -> ColdStart | None:
    try:
        return ColdStart.model_validate_json((run.directory / FACTS).read_bytes())
    except (OSError, ValidationError):
        return None


def measured_of(found: ColdStart) -> Measured | None:
    """What a start tells of the volume; None where it read too little from it."""
    if not found.hydration_mb_per_s or found.bytes is None:
        return None
    kernel, userspace = _seconds(found, "kernel"), _seconds(found, "userspace")
    return Measured(
        mb_per_s=found.hydration_mb_per_s,
        bytes=found.bytes,
        libraries=_libraries(found),
        boot=None if kernel is None or userspace is None else kernel + userspace,
        imports=_seconds(found, "imports"),
        first_draw=_seconds(found, "first draw"),
        volume=found.volume,
        rate=found.volume_initialization_rate,
    )


def _seconds(found: ColdStart, name: StageName) -> float | None:
    stage = found.stage(name)
    return None if stage is None else stage.seconds


def _libraries(found: ColdStart) -> int | None:
    """Bytes that were no weights: what the warm-up read as such, and what imports read themselves."""
    warm, imports = found.stage("warm"), found.stage("imports")
    told = warm.facts.get("stages", ()) if warm is not None else ()
    sizes = [one["bytes"] for one in told if one["name"] == "libraries"]
    if imports is not None and imports.bytes is not None:
        sizes.append(imports.bytes)
    return sum(sizes) if sizes else None
