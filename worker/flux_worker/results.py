"""Where results go: images to S3, announcements to EventBridge (never pixels, R-GIT-S3)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import AnnouncementRefused, InvalidJob

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client

    from .model import Drawing

SOURCE = "flux.worker"
READY = "FluxImageReady"
FAILED = "FluxImageFailed"


@dataclass(frozen=True)
class Results:
    """One bucket and one event bus. AWS's errors pass through as botocore raises them."""

    s3: S3Client
    events: EventBridgeClient
    bucket: str
    prefix: str
    event_bus: str

    def upload(self, drawing: Drawing) -> str:
        """Store the image; gives back its key."""
        key = f"{self.prefix}{drawing.job.id}.png"
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=drawing.png(), ContentType="image/png")
        return key

    def announce(self, drawing: Drawing, key: str) -> None:
        """Say where the image is. Raises AnnouncementRefused."""
        job = drawing.job.model_dump(exclude={"prompt"})
        seconds = round(drawing.seconds, 3)
        place = {"bucket": self.bucket, "key": key}
        self._put(READY, job | place | {"seconds": seconds, "model_revision": drawing.revision})

    def announce_failure(self, error: InvalidJob) -> None:
        """Say that a job can never be drawn, and why. Raises AnnouncementRefused."""
        self._put(FAILED, {"id": error.job_id, "reason": error.reason})

    def _put(self, kind: str, detail: dict[str, Any]) -> None:
        answer = self.events.put_events(
            Entries=[
                {
                    "Source": SOURCE,
                    "DetailType": kind,
                    "Detail": json.dumps(detail),
                    "EventBusName": self.event_bus,
                }
            ]
        )
        # PutEvents answers 200 even where it took nothing.
        if answer["FailedEntryCount"]:
            entry = answer["Entries"][0]
            raise AnnouncementRefused(f"{entry.get('ErrorCode')}: {entry.get('ErrorMessage')}")
