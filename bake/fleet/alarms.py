"""Alarms for people, each in the region of what it looks at."""

from __future__ import annotations

from typing import Any

from bake.fleet.group import LAUNCHING
from bake.fleet.metrics import MINUTE, dimensions, own
from bake.fleet.request import Fleet
from bake.fleet.resource import Resources, resource

# Minutes in which a worker is never ready: longer than a new one may load, so that it is one that stays so.
UNREADY = LAUNCHING // MINUTE + 15
UNCOUNTED = 10  # minutes


def of_jobs(fleet: Fleet) -> Resources:
    """Where the queue is: jobs that wait too long, and dead letters of the stack's own queue."""
    oldest = fleet.profile.fleet.oldest_minutes
    found = {
        "OldJobsAlarm": _alarm(
            fleet,
            fleet.jobs_region,
            f"a job has waited for {oldest} minutes",
            **_sqs("ApproximateAgeOfOldestMessage", fleet.queue_name),
            Threshold=oldest * 60,
            EvaluationPeriods=5,
        )
    }
    if "queue" in fleet.created:
        found["DeadLettersAlarm"] = _alarm(
            fleet,
            fleet.jobs_region,
            "jobs could not be done, and are dead letters",
            **_sqs("ApproximateNumberOfMessagesVisible", f"{fleet.name}-dead"),
            Threshold=0,
            EvaluationPeriods=1,
        )
    return found


def of_workers(fleet: Fleet) -> Resources:
    """Where the instances are: workers that receive nothing, and jobs that nobody counts any more."""
    return {
        "UnreadyAlarm": _alarm(
            fleet,
            fleet.region,
            f"in each minute of {UNREADY} a worker was not ready",
            **own(fleet, "Ready"),
            Statistic="Minimum",
            Period=MINUTE,
            EvaluationPeriods=UNREADY,
            Threshold=1,
            ComparisonOperator="LessThanThreshold",
        ),
        "UncountedAlarm": _alarm(
            fleet,
            fleet.region,
            f"nobody has counted the jobs for {UNCOUNTED} minutes, so that the size stays as it is",
            **own(fleet, "Backlog"),
            Statistic="SampleCount",
            Period=MINUTE,
            EvaluationPeriods=UNCOUNTED,
            Threshold=1,
            ComparisonOperator="LessThanThreshold",
            TreatMissingData="breaching",
        ),
    }


def _sqs(metric: str, queue: str) -> dict[str, Any]:
    return {
        "Namespace": "AWS/SQS",
        "MetricName": metric,
        "Dimensions": dimensions(QueueName=queue),
        "Statistic": "Maximum",
        "Period": MINUTE,
        "ComparisonOperator": "GreaterThanThreshold",
    }


def _alarm(fleet: Fleet, region: str, why: str, **properties: Any) -> dict[str, Any]:
    topics = fleet.topics(region)
    told = {"AlarmActions": topics, "OKActions": topics} if topics else {}
    return resource(
        "AWS::CloudWatch::Alarm",
        {
            "AlarmDescription": f"{fleet.name}: {why}",
            **told,
            "TreatMissingData": "notBreaching",
            **properties,
            "Tags": fleet.tags,
        },
    )
