"""What counts the jobs each minute: a function of some twenty lines, in the region of the instances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bake import iam
from bake.fleet.request import Fleet
from bake.fleet.resource import Resources, resource
from bake.iam import Statement, Trust

CODE = Path(__file__).with_name("count_jobs.py.txt")
RUNTIME = "python3.13"
SECONDS, MEMORY = 30, 128  # MB
LOGS_KEPT = 7  # days


def resources(fleet: Fleet) -> Resources:
    """The function, what starts it, its role and its log."""
    rule = {
        "Description": f"Count the jobs of {fleet.name}",
        "ScheduleExpression": "rate(1 minute)",
        "Targets": [{"Id": "count", "Arn": {"Fn::GetAtt": ["CountJobs", "Arn"]}}],
    }
    started_by = {
        "FunctionName": {"Ref": "CountJobs"},
        "Action": "lambda:InvokeFunction",
        "Principal": "events.amazonaws.com",
        "SourceArn": {"Fn::GetAtt": ["CountJobsRule", "Arn"]},
    }
    return {
        "CountJobsLog": resource("AWS::Logs::LogGroup", {"RetentionInDays": LOGS_KEPT, "Tags": fleet.tags}),
        "CountJobsRole": resource("AWS::IAM::Role", _role(fleet)),
        "CountJobs": resource("AWS::Lambda::Function", _function(fleet)),
        "CountJobsRule": resource("AWS::Events::Rule", rule),
        "CountJobsPermission": resource("AWS::Lambda::Permission", started_by),
    }


def _function(fleet: Fleet) -> dict[str, Any]:
    return {
        "Description": f"Count the jobs of {fleet.name}",
        "Runtime": RUNTIME,
        "Handler": "index.handler",
        "Role": {"Fn::GetAtt": ["CountJobsRole", "Arn"]},
        "Timeout": SECONDS,
        "MemorySize": MEMORY,
        "Environment": {
            "Variables": {
                "QUEUE_URL": fleet.profile.worker.queue,
                "QUEUE_REGION": fleet.jobs_region,
                "NAMESPACE": fleet.namespace,
            },
        },
        "LoggingConfig": {"LogGroup": {"Ref": "CountJobsLog"}},
        "Code": {"ZipFile": CODE.read_text(encoding="utf-8")},
        "Tags": fleet.tags,
    }


def _role(fleet: Fleet) -> dict[str, Any]:
    only = {"StringEquals": {"cloudwatch:namespace": fleet.namespace}}
    statements = [
        Statement("Count", "the jobs", ("sqs:GetQueueAttributes",), (fleet.queue_arn,)),
        Statement("Tell", "their number", ("cloudwatch:PutMetricData",), ("*",), only),
    ]
    document = iam.document(statements)
    document["Statement"].append(
        {
            "Sid": "Log",
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": {"Fn::GetAtt": ["CountJobsLog", "Arn"]},
        }
    )
    return {
        "Description": f"Counts the jobs of {fleet.name}",
        "AssumeRolePolicyDocument": Trust("lambda.amazonaws.com").as_dict(),
        "Policies": [{"PolicyName": "count", "PolicyDocument": document}],
        "Tags": fleet.tags,
    }
