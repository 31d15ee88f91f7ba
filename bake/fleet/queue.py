"""The queue of jobs, and the one for those that can't be done."""

from __future__ import annotations

from typing import Any

from bake.fleet.request import Fleet
from bake.fleet.resource import KEPT, Resources, only_encrypted, resource

# Receives of a job until it is a dead letter. A worker that dies costs one, and so does a broken worker
# before it stops receiving.
RECEIVES = 5
# Seconds; the worker asks for its own with each receive (FLUX_VISIBILITY_SECONDS). This is for others.
VISIBLE_AGAIN = 120
# Days. What becomes a dead letter keeps its age, so dead letters must be kept for longer than jobs.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html
JOBS_KEPT, DEAD_LETTERS_KEPT = 7, 14
DAY = 24 * 3600
LONG_POLL = 20  # seconds: an empty answer at once would be asked for again, and is paid for


def resources(fleet: Fleet) -> Resources:
    """The two queues with their policies; nothing where the profile names a queue."""
    if "queue" not in fleet.created:
        return {}
    dead = f"{fleet.queue_arn}-dead"
    return {
        "DeadLetters": _queue(
            fleet,
            f"{fleet.name}-dead",
            MessageRetentionPeriod=DEAD_LETTERS_KEPT * DAY,
            RedriveAllowPolicy={"redrivePermission": "byQueue", "sourceQueueArns": [fleet.queue_arn]},
        ),
        "Jobs": {
            **_queue(
                fleet,
                fleet.name,
                MessageRetentionPeriod=JOBS_KEPT * DAY,
                ReceiveMessageWaitTimeSeconds=LONG_POLL,
                RedrivePolicy={
                    "deadLetterTargetArn": {"Fn::GetAtt": ["DeadLetters", "Arn"]},
                    "maxReceiveCount": RECEIVES,
                },
            ),
        },
        "JobsPolicy": _policy("Jobs", fleet.queue_arn),
        "DeadLettersPolicy": _policy("DeadLetters", dead),
    }


def _queue(fleet: Fleet, name: str, **more: Any) -> dict[str, Any]:
    properties = {
        "QueueName": name,
        "SqsManagedSseEnabled": True,
        "VisibilityTimeout": VISIBLE_AGAIN,
        **more,
        "Tags": fleet.tags,
    }
    return {**resource("AWS::SQS::Queue", properties), **KEPT}


def _policy(queue: str, arn: str) -> dict[str, Any]:
    document = only_encrypted("sqs:*", [arn])
    return resource("AWS::SQS::QueuePolicy", {"Queues": [{"Ref": queue}], "PolicyDocument": document})
