"""Put the served weights into the bucket of `weights.stream`, as far as it lacks them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bake import units
from bake.aws import Aws, call_errors, unanswered
from bake.layout import BAKE, TOOLS
from bake.planning.plan import Plan
from bake.progress import readable
from bake.run import Run
from bake.ssh import Session
from bake.steps.prefetch import Events
from bake.steps.quantize import Checkpoint, snapshot
from bake.undo import Undo
from bake.weights.flux import WeightFile
from bake.weights.mirror import Mirror

UNIT = "bake-fill-stream"
FACTS = "facts/stream.json"


@dataclass(frozen=True)
class Filled:
    """Paths of the files that were in the bucket, that came there, and that it lacks after the bake."""

    place: str
    there: tuple[str, ...]
    uploaded: tuple[str, ...]
    lacking: tuple[str, ...]


def fill_stream(
    session: Session, plan: Plan, aws: Aws, run: Run, undo: Undo, checkpoint: Checkpoint | None
) -> Filled | None:
    """Upload what the bucket lacks, from the builder by signed URLs; None without `weights.stream`.

    It fails nothing: a worker that does not find its weights there reads its volume alone.
    """
    uri = plan.profile.weights.stream
    if uri is None:
        return None
    with run.progress.step("fill stream"):
        try:
            filled = _fill(Filling(session, plan, run, Mirror.open(uri, aws)), undo, served(plan, checkpoint))
        except call_errors() as error:
            run.progress.note(f"{uri} gets no weights, workers read their volume alone: {unanswered(error)}")
            return None
        run.keep(FACTS, json.dumps(asdict(filled), indent=1) + "\n")
        return filled


def served(plan: Plan, checkpoint: Checkpoint | None) -> dict[str, WeightFile]:
    """The weights that the worker loads, by their path in the model's folder."""
    if checkpoint is not None:
        outputs: Mapping[str, Any] = checkpoint.provenance["outputs"]
        files = {path: WeightFile(one["bytes"], sha256=one["sha256"]) for path, one in outputs.items()}
    else:
        files = dict(plan.weights.lock.files) if plan.weights.lock is not None else {}
    return {path: file for path, file in files.items() if path.endswith(".safetensors") and file.sha256}


@dataclass(frozen=True)
class Filling:
    """All that an upload from the builder needs."""

    session: Session
    plan: Plan
    run: Run
    mirror: Mirror

    def upload(self, urls: Mapping[str, Any], files: Mapping[str, WeightFile]) -> None:
        """Upload from the model's folder; raises AWS's error, or that of the unit."""
        folder = self.plan.weights.model_dir or snapshot(self.plan)
        given = {"mirror": urls, "files": {path: file.as_dict() for path, file in files.items()}}
        argv = (f"{TOOLS}/python", "-m", "prefetch.upload", folder)
        user = self.plan.system.user
        stdin = json.dumps(given).encode()
        unit = units.start(self.session, UNIT, *argv, user=user, directory=BAKE, stdin=stdin)
        events = Events()

        def look() -> None:
            for event in events.take(unit.output("out", after=events.read)):
                self._tell(event)

        result = unit.wait(look, seconds=1.0, talks=False)
        unit.save_logs(self.run, result)
        result.check()

    def _tell(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "uploaded":
            self.mirror.complete(event["sha256"], event["etags"])
            self.run.progress.note(f"{self.mirror.place}: {event['file']}, {readable(event['bytes'])}")
        elif event["event"] == "mirror":
            self.run.progress.note(f"{event['file']}: {event['why']}")


def _fill(filling: Filling, undo: Undo, files: Mapping[str, WeightFile]) -> Filled:
    mirror, progress = filling.mirror, filling.run.progress
    look = ("list-multipart-uploads", "--bucket", mirror.place.bucket)
    by_hand = mirror.aws.command("s3api", *look, region=mirror.region)
    undo.add(f"unfinished uploads to {mirror.place}", mirror.abort, by_hand=by_hand)
    urls = mirror.document(files.values())
    there = tuple(path for path, file in files.items() if file.sha256 in urls["get"])
    missing = {path: file for path, file in files.items() if path not in there}
    if mirror.read_only:
        progress.note(f"{mirror.place} is only read from: AWS answers {mirror.read_only}")
    elif missing:
        filling.upload({**urls, "get": {}}, missing)
    lacking = tuple(
        path for path, file in missing.items() if mirror.read_only or file.sha256 in mirror.uploads
    )
    mirror.abort()  # what was not completed, before the bucket's owner pays for it
    uploaded = tuple(path for path in missing if path not in lacking)
    if lacking:
        progress.note(f"{mirror.place} lacks {', '.join(lacking)}: workers read these from EBS alone")
    else:
        progress.note(f"{mirror.place} has all {len(files)} files of the weights")
    return Filled(str(mirror.place), there, uploaded, lacking)
