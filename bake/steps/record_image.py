"""Keep what EC2 says of the AMI, for the report."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

from bake import retries
from bake.aws import Aws, call_errors
from bake.image import Image, describe_image
from bake.run import Run
from bake.steps.judge import Outcome
from bake.steps.tag_hydration import tag_hydration

FACTS = "facts/image.json"
LOOK = 10.0  # seconds


def record_image(aws: Aws, run: Run, image: Image, state: Outcome, *, published: bool = False) -> None:
    """Keep `facts/image.json`: the AMI's state, and what EC2 answers about it in three calls.

    A bad image is removed, and a good one still changes until it is `published`: nobody is asked then. What
    EC2 does not tell is null, and fails nothing. One that is kept gets the tag of what its start measured.
    """
    told: dict[str, Any] = {"state": state, "image": asdict(image)}
    run.keep(FACTS, json.dumps(told, indent=1) + "\n")  # an interrupt may come while EC2 is asked
    if state != "bad" and not published:
        tag_hydration(aws, run, image)
    if state == "bad" or (state == "good" and not published):
        return
    with retries.until(time.monotonic() + LOOK):
        told["described"] = _answer(lambda: describe_image(aws, image.id))
        told["snapshots"] = _answer(
            lambda: aws.ec2.describe_snapshots(SnapshotIds=list(image.snapshots or (image.snapshot,)))[
                "Snapshots"
            ]
        )
        told["launch_permissions"] = _answer(
            lambda: aws.ec2.describe_image_attribute(ImageId=image.id, Attribute="launchPermission")[
                "LaunchPermissions"
            ]
        )
    run.keep(FACTS, json.dumps(told, indent=1, default=str) + "\n")


def _answer(ask: Any) -> Any:
    try:
        return ask()
    except call_errors():
        return None
