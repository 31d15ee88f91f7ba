"""Wait for what AWS makes or shows late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bake.aws import Aws
from bake.retries import ABSENT, SETTLING_BY_MESSAGE, RetryPolicy


def usable(aws: Aws, volume: str) -> str:
    """Wait until a new volume is made: none can be copied before."""
    volumes = aws.ec2.describe_volumes
    aws.wait(volume, lambda: volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available" or None)
    return volume


class Patience(RetryPolicy):
    """A client takes "not found" about what it has just created for "not yet", and nothing else."""

    def _again(
        self,
        error: Mapping[str, Any],
        status: int,
        exception: BaseException | None,
        operation: str,
        context: Mapping[str, Any],
        now: float,
    ) -> bool:
        late = ABSENT.search(str(error.get("Code", ""))) or operation in SETTLING_BY_MESSAGE
        return bool(late and status < 500) and super()._again(
            error, status, exception, operation, context, now
        )
