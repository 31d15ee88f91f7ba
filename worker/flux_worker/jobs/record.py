"""The record of a finished job: a JSON object in S3, written after the images, so it proves they exist."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, JsonValue

from ..encode import EncodedImage
from ..jobspec.events import ImageReady
from ..jobspec.job import Job
from ..jobspec.keys import image_keys

if TYPE_CHECKING:
    from ..inference.images import GeneratedImages


class Model(BaseModel):
    """The model that drew them."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    repo: str
    revision: str
    """The commit."""
    precision: str
    """bf16 or int8."""
    device: str
    versions: dict[str, str]
    """Of the packages that matter, by name."""


class Timings(BaseModel):
    """How long it took, in seconds."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    draw: float
    """For all images."""
    step: float
    """For one step."""
    queue: float | None
    """Between sending and receiving the job; null if SQS did not tell."""


class Record(BaseModel):
    """The images of a job, where they are and how they were made."""

    model_config = ConfigDict(
        frozen=True,
        hide_input_in_errors=True,  # it holds the prompt
        use_attribute_docstrings=True,
        title="FluxRecord",
    )

    job: Job
    """With its seed, and with its quality where the format has one."""
    bucket: str
    """The bucket of the images and of this record."""
    keys: list[str]
    """The key of each image."""
    content_type: str
    """Of each image, such as image/png."""
    sha256: list[str]
    """Of each image, as hexadecimal digits."""
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
        parameters = self.job.parameters()
        del parameters["prompt"]
        return ImageReady(
            id=self.job.id,
            bucket=self.bucket,
            keys=self.keys,
            sidecar=sidecar,
            **parameters,
            seconds=self.seconds.draw,
            model_revision=self.model.revision,
            precision=self.model.precision,
            metadata=metadata,
        ).content()
