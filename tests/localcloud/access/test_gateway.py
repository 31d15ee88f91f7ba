"""Who is let in: every row of the table of refusals, by real clients."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import timedelta
from typing import Any

import pytest
from botocore import UNSIGNED
from botocore.exceptions import ClientError

from bake.localcloud.api.access.keys import Keys

from .conftest import INSTANCE, REGION, Cloud, refusal

# A call of each service that has nothing to say about anybody's instances or objects.
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "ec2": ("describe_regions", {}),
    "s3": ("list_buckets", {}),
    "sqs": ("list_queues", {}),
    "events": ("list_event_buses", {}),
    "sts": ("get_caller_identity", {}),
    "iam": ("list_roles", {}),
    "kms": ("list_keys", {}),
    "ssm": ("describe_parameters", {}),
    "secretsmanager": ("list_secrets", {}),
    "scheduler": ("list_schedule_groups", {}),
    "service-quotas": ("list_aws_default_service_quotas", {"ServiceCode": "vpc"}),
}
JSON = ("events", "kms", "ssm", "secretsmanager", "scheduler", "service-quotas")
QUERY = ("sts", "iam")


def call(client: Any) -> Any:
    operation, parameters = CALLS[client.meta.service_model.service_name]
    return getattr(client, operation)(**parameters)


def row(ec2: str, s3: str, query: str, sqs: str, json: str) -> dict[str, tuple[str, int]]:
    """The code and status of each service, written "Code 400"."""
    columns = {"ec2": ec2, "s3": s3, "sqs": sqs}
    columns |= dict.fromkeys(QUERY, query) | dict.fromkeys(JSON, json)
    return {service: (text.split()[0], int(text.split()[1])) for service, text in columns.items()}


REFUSED = {
    "unsigned": row(
        "AuthFailure 401",
        "AccessDenied 403",
        "MissingAuthenticationToken 403",
        "MissingAuthenticationTokenException 403",
        "MissingAuthenticationTokenException 400",
    ),
    "unknown": row(
        "AuthFailure 401",
        "InvalidAccessKeyId 403",
        "InvalidClientTokenId 403",
        "InvalidClientTokenId 403",
        "UnrecognizedClientException 400",
    ),
    "wrong secret": row(
        "SignatureDoesNotMatch 403",
        "SignatureDoesNotMatch 403",
        "SignatureDoesNotMatch 403",
        "InvalidSignatureException 403",
        "InvalidSignatureException 400",
    ),
    "late": row(
        "RequestExpired 400",
        "RequestTimeTooSkewed 403",
        "SignatureDoesNotMatch 403",
        "InvalidSignatureException 403",
        "InvalidSignatureException 400",
    ),
    "expired session": row(
        "RequestExpired 400",
        "ExpiredToken 400",
        "ExpiredToken 403",
        "ExpiredTokenException 403",
        "ExpiredTokenException 400",
    ),
    "wrong token": row(
        "AuthFailure 401",
        "InvalidToken 400",
        "InvalidClientTokenId 403",
        "InvalidClientTokenId 403",
        "UnrecognizedClientException 400",
    ),
}


@pytest.mark.parametrize("service", CALLS)
def test_the_owner_is_let_in(cloud: Cloud, service: str) -> None:
    assert call(cloud.client(service))["ResponseMetadata"]["HTTPStatusCode"] == 200


@pytest.mark.parametrize("service", [service for service in CALLS if service != "scheduler"])
def test_a_call_without_a_signature(cloud: Cloud, service: str) -> None:
    """Without one nothing tells the Scheduler's REST from S3's."""
    client = cloud.client(service, signature_version=UNSIGNED)
    assert refusal(lambda: call(client))[:2] == REFUSED["unsigned"][service]


@pytest.mark.parametrize("service", CALLS)
def test_a_key_that_nobody_has(cloud: Cloud, service: str) -> None:
    client = cloud.client(service, Keys().owner)
    assert refusal(lambda: call(client))[:2] == REFUSED["unknown"][service]


@pytest.mark.parametrize("service", CALLS)
def test_an_id_alone_is_no_secret(cloud: Cloud, service: str) -> None:
    client = cloud.client(service, dataclasses.replace(cloud.keys.owner, secret="rehearsal"))
    code, status, message = refusal(lambda: call(client))
    assert (code, status) == REFUSED["wrong secret"][service]
    assert "The request signature we calculated does not match" in message


@pytest.mark.parametrize("service", CALLS)
@pytest.mark.parametrize("minutes", [16, -16], ids=["too late", "too early"])
def test_a_clock_that_is_wrong(cloud: Cloud, service: str, minutes: int) -> None:
    cloud.clock.moved = timedelta(minutes=minutes)
    code, status, message = refusal(lambda: call(cloud.client(service)))
    assert (code, status) == REFUSED["late"][service]
    if code.startswith(("Signature", "InvalidSignature")):
        assert ("Signature expired: " if minutes > 0 else "Signature not yet current: ") in message


@pytest.mark.parametrize("minutes", [14, -14])
def test_a_clock_that_is_nearly_right(cloud: Cloud, minutes: int) -> None:
    cloud.clock.moved = timedelta(minutes=minutes)
    assert call(cloud.client("sts"))["Account"]


@pytest.mark.parametrize("service", CALLS)
def test_a_session_after_its_time(cloud: Cloud, service: str) -> None:
    cloud.clock.moved = timedelta(hours=-6)
    session = cloud.session(instance="i-0aaaaaaaaaaaaaaaa")
    cloud.living.add("i-0aaaaaaaaaaaaaaaa")
    cloud.clock.moved = timedelta(seconds=1)
    assert refusal(lambda: call(cloud.client(service, session)))[:2] == REFUSED["expired session"][service]


@pytest.mark.parametrize("service", CALLS)
@pytest.mark.parametrize("token", ["x", ""], ids=["another's", "none"])
def test_a_session_without_its_token(cloud: Cloud, service: str, token: str) -> None:
    session = dataclasses.replace(cloud.session(), token=token)
    assert refusal(lambda: call(cloud.client(service, session)))[:2] == REFUSED["wrong token"][service]


def test_the_owners_key_has_no_token(cloud: Cloud) -> None:
    key = dataclasses.replace(cloud.keys.owner, token=cloud.session().token)
    assert refusal(lambda: call(cloud.client("s3", key)))[0] == "InvalidToken"


def test_who_somebody_is(cloud: Cloud) -> None:
    owner = cloud.client("sts").get_caller_identity()
    assert owner["Arn"] == "arn:aws:iam::123456789012:root"
    session = cloud.session()
    identity = cloud.client("sts", session).get_caller_identity()
    assert identity["Arn"] == f"arn:aws:sts::123456789012:assumed-role/flux-rehearsal/{INSTANCE}"
    assert identity["Account"] == "123456789012"


def test_a_terminated_instances_session_ends_with_it(cloud: Cloud) -> None:
    session = cloud.session()
    assert call(cloud.client("sts", session))["Account"]
    cloud.living.clear()
    assert refusal(lambda: call(cloud.client("sts", session)))[0] == "InvalidClientTokenId"


@pytest.mark.parametrize(
    ("service", "operation", "parameters"),
    [
        ("sns", "list_topics", {}),
        ("lambda", "list_functions", {}),
        ("dynamodb", "list_tables", {}),
        ("cloudwatch", "list_metrics", {}),
        ("elasticache", "describe_cache_clusters", {}),
        ("rds", "describe_db_instances", {}),
        ("batch", "describe_job_queues", {}),
        ("route53", "list_hosted_zones", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_services_that_are_not_there(
    cloud: Cloud, service: str, operation: str, parameters: dict[str, Any]
) -> None:
    code, status, message = refusal(getattr(cloud.client(service), operation), **parameters)
    assert (code, status) == ("UnsupportedOperation", 400)
    assert "Not in the local cloud: the service" in message
    assert "ebs, ec2, events, iam, kms, pricing, s3, scheduler, secretsmanager, servicequotas, sqs" in message


def test_the_scheduler_is_called_by_rest(cloud: Cloud) -> None:
    """By REST: names in paths and queries, tags by an ARN in a path."""
    client = cloud.client("scheduler")
    name, tags = f"bake-{uuid.uuid4().hex[:12]}", [{"Key": "bake:run", "Value": "a run/ü"}]
    arn = client.create_schedule_group(Name=name, Tags=tags)["ScheduleGroupArn"]
    listed = client.list_schedule_groups(NamePrefix=name)["ScheduleGroups"]
    assert name in [group["Name"] for group in listed]
    assert client.list_tags_for_resource(ResourceArn=arn)["Tags"] == tags
    assert client.list_schedules(GroupName=name)["Schedules"] == []
    client.delete_schedule_group(Name=name)
    assert refusal(client.get_schedule_group, Name=name)[:2] == ("ResourceNotFoundException", 404)


def test_an_instance_hands_no_role_to_the_scheduler(cloud: Cloud) -> None:
    """Whoever makes a schedule needs the right to pass its role."""
    client = cloud.client("scheduler", cloud.session())
    target = {"Arn": "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances", "RoleArn": "arn:aws:iam::1:role/x"}
    asked = {"ScheduleExpression": "at(2030-01-01T00:00:00)", "FlexibleTimeWindow": {"Mode": "OFF"}}
    code, _, message = refusal(client.create_schedule, Name="x", Target=target, **asked)
    assert code == "AccessDeniedException"
    assert "scheduler:CreateSchedule" in message


HTTP = {
    "Name": "x",
    "InvocationEndpoint": "http://127.0.0.1/",
    "HttpMethod": "GET",
    "ConnectionArn": "x" * 20,
}
API_KEY = {"ApiKeyAuthParameters": {"ApiKeyName": "a", "ApiKeyValue": "b"}}
LAMBDA = "arn:aws:lambda:eu-west-1:123456789012:function:f"
CALLS_LAMBDA = {"Rule": "r", "Targets": [{"Id": "1", "Arn": LAMBDA}]}
CALLS_URL = {"Rule": "r", "Targets": [{"Id": "1", "Arn": "arn:aws:events:x:1:api-destination/x"}]}
RUN = {"DocumentName": "AWS-RunShellScript", "InstanceIds": ["i-0123456789abcdef0"]}
NOTIFY = {"LambdaFunctionConfigurations": [{"LambdaFunctionArn": LAMBDA, "Events": ["s3:ObjectCreated:*"]}]}
NOTIFICATION = {"Bucket": "bucket", "NotificationConfiguration": NOTIFY}


@pytest.mark.parametrize(
    ("service", "operation", "parameters"),
    [
        ("events", "create_api_destination", HTTP),
        (
            "events",
            "create_connection",
            {"Name": "x", "AuthorizationType": "API_KEY", "AuthParameters": API_KEY},
        ),
        ("events", "put_targets", CALLS_LAMBDA),
        (
            "events",
            "put_targets",
            {"Rule": "r", "Targets": [{"Id": "1", "Arn": "arn:aws:events:x:1:api-destination/x"}]},
        ),
        (
            "s3",
            "put_bucket_notification_configuration",
            {"Bucket": "bucket", "NotificationConfiguration": NOTIFY},
        ),
        ("secretsmanager", "rotate_secret", {"SecretId": "x", "RotationLambdaARN": LAMBDA}),
        (
            "ssm",
            "send_command",
            {"DocumentName": "AWS-RunShellScript", "InstanceIds": ["i-0123456789abcdef0"]},
        ),
        ("sts", "assume_role", {"RoleArn": "arn:aws:iam::123456789012:role/r", "RoleSessionName": "ss"}),
        ("iam", "create_access_key", {"UserName": "u"}),
        ("iam", "create_user", {"UserName": "u"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_operations_that_would_reach_elsewhere(
    cloud: Cloud, service: str, operation: str, parameters: dict[str, Any]
) -> None:
    code, status, message = refusal(getattr(cloud.client(service), operation), **parameters)
    assert (code, status) in {("UnsupportedOperation", 400), ("NotImplemented", 400)}
    assert message.startswith("Not in the local cloud: ")


def test_a_service_signed_for_another_region_is_that_regions(cloud: Cloud) -> None:
    name = "only-there"
    cloud.client("sqs", region="eu-central-1").create_queue(QueueName=name)
    assert refusal(cloud.client("sqs").get_queue_url, QueueName=name)[0].endswith("NonExistentQueue")
    assert REGION != "eu-central-1"


def test_a_region_that_aws_does_not_have(cloud: Cloud) -> None:
    assert refusal(cloud.client("ec2", region="eu-west-99").describe_regions)[0] == "IncompleteSignature"


def test_an_error_is_an_exception_of_the_service(cloud: Cloud) -> None:
    client = cloud.client("events", signature_version=UNSIGNED)
    with pytest.raises(ClientError, match="Request is missing Authentication Token"):
        client.list_event_buses()


@pytest.mark.parametrize(
    ("service", "operation", "parameters"),
    [
        ("ec2", "describe_volume_attribute", {"Attribute": "autoEnableIO", "VolumeId": "vol-0"}),
        ("kms", "describe_custom_key_stores", {}),
        ("sqs", "list_message_move_tasks", {"SourceArn": "arn:aws:sqs:eu-west-1:123456789012:flux"}),
        ("service-quotas", "list_services", {}),
        ("iam", "get_context_keys_for_principal_policy", {"PolicySourceArn": "x" * 20}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_moto_lacks_is_refused_for_good(
    cloud: Cloud, service: str, operation: str, parameters: dict[str, Any]
) -> None:
    code, status, message = refusal(getattr(cloud.client(service), operation), **parameters)
    assert (code, status) == ("UnsupportedOperation", 400)
    assert message.startswith("Not in the local cloud: ")


@pytest.mark.parametrize("service", CALLS)
def test_an_error_of_the_cloud_is_answered_as_the_service_answers_its_own(
    cloud: Cloud, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise AttributeError("'Alias' object has no attribute 'name'")

    monkeypatch.setattr("bake.localcloud.api.access.gateway.needs_of", fail)
    client = cloud.client(service, cloud.caller({"Effect": "Allow", "Action": "*", "Resource": "*"}))
    code, status, said = refusal(call, client=client)
    expected = "InternalError" if service in ("ec2", "s3") else "InternalFailure"
    assert (code, status, said) == (expected, 500, "An internal error has occurred")
