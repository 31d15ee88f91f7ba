"""The record of a finished job: a JSON object in S3, written after the images, so it proves they exist."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, JsonValue

from ..encode import EncodedImage
from ..jobspec.job import Job
from ..jobspec.keys import image_keys

if TYPE_CHECKING:
    from ..inference.images import GeneratedImages


class Model(BaseModel):
    """The model that was used: see `images.Origin`."""

    model_config = ConfigDict(frozen=True)

    repo: str
    revision: str
    precision: str
    device: str
    versions: dict[str, str]


class Timings(BaseModel):
    """Seconds: for all images, for one step, and between sending and receiving the job."""

    model_config = ConfigDict(frozen=True)

    draw: float
    step: float
    queue: float | None


class Record(BaseModel):
    """The images of a job, where they are and how they were made. `job` has its seed and quality set."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)  # it holds the prompt

    job: Job
    bucket: str
    keys: list[str]
    content_type: str
    sha256: list[str]
    model: Model
    seconds: Timings
    drawn_at: datetime

    @classmethod
    def of(
        cls,
        generated: GeneratedImages,
        files: list[EncodedImage],
        *,
        bucket: str,
        prefix: str,
        queue_seconds: float | None,
    ) -> Record:
        """The record of images that will be stored in this bucket under this prefix."""
        return cls(
            job=generated.job.model_copy(update=generated.job.parameters()),
            bucket=bucket,
            keys=image_keys(prefix, generated.job),
            content_type=files[0].content_type,
            sha256=[hashlib.sha256(file.data).hexdigest() for file in files],
            model=Model(**asdict(generated.origin)),
            seconds=Timings(
                draw=round(generated.seconds, 3),
                step=round(generated.step_seconds, 4),
                queue=None if queue_seconds is None else round(queue_seconds, 1),
            ),
            drawn_at=datetime.now(UTC),
        )

    def differs(self, job: Job) -> list[str]:
        """The fields in which a job of the same id differs; metadata does not count."""
        drawn, asked = self.job.parameters(), job.parameters()
        return [name for name in asked if asked[name] != drawn[name]]

    def detail(self, sidecar: str, metadata: dict[str, JsonValue]) -> dict[str, Any]:
        """The detail of the event FluxImageReady: no prompt, no pixels."""
        place = {"id": self.job.id, "bucket": self.bucket, "keys": self.keys, "sidecar": sidecar}
        parameters = self.job.parameters()
        del parameters["prompt"]
        drawn = {
            "seconds": self.seconds.draw,
            "model_revision": self.model.revision,
            "precision": self.model.precision,
        }
        return place | parameters | drawn | {"metadata": metadata}
