"""Notices on an event bus of the user's: an image was baked or promoted, or a bake failed.

A rule of theirs sends them on, such as to SNS. EventBridge tells nobody when no rule takes an event.
https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from bake.aws import Aws, call_errors, unanswered
from bake.errors import BakeError
from bake.iam.subject import partition_of
from bake.redaction import redact_all

if TYPE_CHECKING:
    from bake.report.model import Report

Kind = Literal["FluxImageBaked", "FluxBakeFailed", "FluxImagePromoted"]
SOURCE = "bake"
LONGEST = 4000  # characters of a text; EventBridge takes 256 KB an event, with everything


def send(aws: Aws, bus: str, kind: Kind, detail: dict[str, Any]) -> None:
    """Put one event on a bus in AWS_REGION. Raises BakeError where EventBridge does not take it.

    `detail` is without its secrets afterwards. Its `image`, an AMI's id in `region`, is the event's resource.
    """
    told = {key: _short(value) for key, value in redact_all(detail).items()}
    image, region = told.get("image"), told.get("region") or aws.region
    entry: Any = {
        "EventBusName": bus,
        "Source": SOURCE,
        "DetailType": kind,
        "Detail": json.dumps(told),
        "Resources": [f"arn:{partition_of(region)}:ec2:{region}::image/{image}"] if image else [],
    }
    try:
        answer = aws.events.put_events(Entries=[entry])
    except call_errors() as error:
        raise BakeError(f"{kind} is not on the bus {bus}: {unanswered(error)}") from error
    if answer["FailedEntryCount"]:  # a call that failed for an event is still answered with success
        (failed,) = answer["Entries"]
        why = f"{failed.get('ErrorCode')}: {failed.get('ErrorMessage')}"
        raise BakeError(f"{kind} is not on the bus {bus}: {why}")


def of_report(report: Report, region: str, url: str | None) -> tuple[Kind, dict[str, Any]]:
    """What is told at the end of a run; `url` is where its report lies for others than this machine."""
    verdict, image = report.verdict, report.image
    kind: Kind = "FluxImageBaked" if verdict.state == "good" else "FluxBakeFailed"
    return kind, {
        "profile": report.run.profile,
        "run": report.run.id,
        "command": report.run.command,
        "venue": report.venue.name,
        "verdict": verdict.state,
        "sentence": verdict.sentence,
        "plan": report.run.plan,
        "region": region,
        "image": image.id if image and verdict.state != "bad" else None,
        "name": image.name if image and verdict.state != "bad" else None,
        "digest": image.tags.get("bake:digest") if image else None,
        "error": verdict.error,
        "hint": verdict.hint,
        "exit_code": verdict.exit_code,
        "left_behind": list(verdict.left_behind),
        "report": url,
    }


def of_refusal(profile: str, region: str, venue: str, error: BakeError) -> tuple[Kind, dict[str, Any]]:
    """What is told of a bake that did not start: there is neither a run nor a report."""
    return "FluxBakeFailed", {
        "profile": profile,
        "venue": venue,
        "verdict": "refused",
        "sentence": "nothing was started",
        "region": region,
        "error": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }


def of_promotion(profile: str, venue: str, why: str, told: Mapping[str, Any]) -> tuple[Kind, dict[str, Any]]:
    """What is told when a channel serves another AMI; `told` names the channel, the AMI and the region."""
    return "FluxImagePromoted", {"profile": profile, "venue": venue, "because": why, **told}


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[: LONGEST - 1]}…"
    return [_short(one) for one in value[:100]] if isinstance(value, list) else value
