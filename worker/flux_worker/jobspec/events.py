"""What a worker says of a job: both events, and the stored failure. No prompt and no pixels (R-GIT-S3).

What is sent is made of these models, and so are the schemas that callers read it by (`flux-worker schema`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from .job import Format

READY: Literal["FluxImageReady"] = "FluxImageReady"
FAILED: Literal["FluxImageFailed"] = "FluxImageFailed"


class Said(BaseModel):
    """A fact that is sent once and never changed; to give it a field that it does not have is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def content(self) -> dict[str, Any]:
        """The fields, ready for `json.dumps`; one that has a default is left out where it has that value.

        Not by pydantic's own JSON, which refuses a lone surrogate, as an exception's text may hold one.
        """
        return self.model_dump(exclude_defaults=True)


class ImageReady(Said):
    """The images of a job are in S3, and so is their record."""

    model_config = ConfigDict(title="FluxImageReady")

    id: str
    """The job's id. The same job may be announced more than once."""
    bucket: str
    """The bucket of the images and of the record."""
    keys: list[str]
    """The key of each image."""
    sidecar: str
    """The key of the record."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    steps: int
    guidance: float
    seed: int
    """Of the first image; each after it has a seed one higher."""
    images: int
    """How many there are."""
    format: Format
    quality: int | None
    """Null for png."""
    max_sequence_length: int
    s3_prefix: str
    seconds: float
    """How long the model took for all images."""
    model_revision: str
    """The model's commit."""
    precision: str
    """bf16 or int8."""
    metadata: dict[str, JsonValue]
    """That of the message which is announced."""


class ImageFailed(Said):
    """A job can never run, or its message goes to the dead-letter queue."""

    model_config = ConfigDict(title="FluxImageFailed")

    id: str | None
    """The job's id; null if the message has no usable one."""
    bucket: str
    """The bucket of the stored failure."""
    sidecar: str | None
    """The key of the stored failure; null if there is no id, or if the id has a record."""
    reason: str
    """One line for people."""
    dead_lettered: bool = False
    """Whether the message goes to the dead-letter queue: the job itself may be fine. Left out where false."""


class StoredFailure(Said):
    """Why a job failed, as an object in S3. It goes when the job succeeds later."""

    model_config = ConfigDict(title="FluxStoredFailure")

    id: str
    """The job's id."""
    reason: str
    """One line for people."""
    failed_at: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """No two failures of a job are alike."""
    dead_lettered: bool = False
    """Whether the message went to the dead-letter queue: the job itself may be fine. Left out where false."""

    @classmethod
    def now(cls, job_id: str, reason: str, *, dead_lettered: bool) -> Self:
        """The failure of this moment."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        return cls(id=job_id, reason=reason, failed_at=moment, dead_lettered=dead_lettered)


class _Event(BaseModel):
    """What EventBridge puts around a detail.

    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    version: str
    id: str
    """EventBridge's own id of the event, not the job's."""
    source: Literal["flux.worker"]
    account: str
    time: datetime
    region: str
    resources: list[str]


class ImageReadyEvent(_Event):
    """The event FluxImageReady, as a queue or a function receives it from EventBridge."""

    model_config = ConfigDict(title="FluxImageReadyEvent")

    detail_type: Annotated[Literal["FluxImageReady"], Field(alias="detail-type")]
    detail: ImageReady


class ImageFailedEvent(_Event):
    """The event FluxImageFailed, as a queue or a function receives it from EventBridge."""

    model_config = ConfigDict(title="FluxImageFailedEvent")

    detail_type: Annotated[Literal["FluxImageFailed"], Field(alias="detail-type")]
    detail: ImageFailed
