"""What an instance may do: by its role's policies, judged here and enforced by the gateway."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from moto.iam.models import iam_backends

from bake.localcloud.api.access import s3_actions
from bake.localcloud.api.access.keys import Key, Principal
from bake.localcloud.api.access.needs import Need
from bake.localcloud.api.access.policies import Authoriser
from bake.localcloud.api.access.refusals import Refused
from bake.localcloud.lifecycle import fixtures

from .conftest import REGION, Cloud, refusal

WORKER = Principal("role", "i-1")
QUEUE = f"arn:aws:sqs:{REGION}:123456789012:flux-jobs"


def statement(effect: str, action: Any, resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def allowed(action: str, resource: str, *statements: Any) -> bool:
    documents = [json.dumps({"Statement": one}) for one in statements]
    try:
        Authoriser(lambda role: documents).authorise(WORKER, [Need(action, resource)], REGION)
    except Refused as refused:
        assert refused.kind == "denied"
        return False
    return True


@pytest.mark.parametrize(
    ("expected", "statements"),
    [
        pytest.param(False, [], id="nothing"),
        pytest.param(True, [statement("Allow", "sqs:SendMessage")], id="named"),
        pytest.param(True, [statement("Allow", "SQS:sendmessage")], id="small letters"),
        pytest.param(True, [statement("Allow", ["s3:*", "sqs:Send*"])], id="star"),
        pytest.param(True, [statement("Allow", "sqs:SendMessag?")], id="question mark"),
        pytest.param(True, [statement("Allow", "*")], id="everything"),
        pytest.param(False, [statement("Allow", "sqs:Send")], id="a part"),
        pytest.param(False, [statement("Allow", "sqs.SendMessage")], id="a dot is a dot"),
        pytest.param(False, [statement("Allow", "s3:*")], id="another service"),
        pytest.param(True, [[statement("Allow", "sqs:*"), statement("Deny", "s3:*")]], id="a list"),
        pytest.param(False, [statement("Allow", "*"), statement("Deny", "sqs:Send*")], id="deny"),
        pytest.param(False, [statement("Deny", "sqs:Send*"), statement("Allow", "*")], id="deny first"),
        pytest.param(True, [statement("Allow", "*", QUEUE)], id="the queue"),
        pytest.param(True, [statement("Allow", "*", ["x", "arn:aws:sqs:*:*:flux-*"])], id="queues"),
        pytest.param(False, [statement("Allow", "*", QUEUE + "-2")], id="another queue"),
        pytest.param(False, [statement("Allow", "*", QUEUE.upper())], id="resources have their letters"),
        pytest.param(
            True, [statement("Allow", "*"), statement("Deny", "*", QUEUE + "-2")], id="deny another"
        ),
        pytest.param(
            False,
            [{"Effect": "Allow", "NotAction": "sqs:*", "Resource": "*"}],
            id="all actions but this",
        ),
        pytest.param(
            True,
            [{"Effect": "Allow", "NotAction": "s3:*", "NotResource": "arn:aws:sqs:*:other"}],
            id="all but others",
        ),
        pytest.param(False, [statement("Allow", "*", Condition={"Bool": {}})], id="allowed with a condition"),
        pytest.param(
            False,
            [statement("Allow", "*"), statement("Deny", "*", Condition={"Bool": {}})],
            id="denied with a condition",
        ),
        pytest.param(False, [statement("Allow", "*"), "none"], id="one that can't be read"),
        pytest.param(False, [statement("Allow", "*"), statement("allow", "*")], id="no effect"),
        pytest.param(False, [{"Effect": "Allow", "Action": "*"}], id="no resource"),
        pytest.param(False, [{"Effect": "Allow", "Resource": "*"}], id="no action"),
    ],
)
def test_statements(expected: bool, statements: list[Any]) -> None:
    assert allowed("sqs:SendMessage", QUEUE, *statements) is expected


def test_what_has_no_resource_is_allowed_on_all_only() -> None:
    assert allowed("ec2:DescribeImages", "*", statement("Allow", "ec2:*", "*"))
    assert not allowed("ec2:DescribeImages", "*", statement("Allow", "ec2:*", "arn:aws:ec2:*:*:image/*"))


def test_a_document_that_is_no_json() -> None:
    for document in ("{", "[]", "{}", '{"Statement": 1}', "null"):
        with pytest.raises(Refused):
            Authoriser(lambda role, it=document: [it]).authorise(  # type: ignore[misc]
                WORKER, [Need("sqs:SendMessage", QUEUE)], REGION
            )


def test_many_stars_take_no_time() -> None:
    pattern = "*a" * 12 + "*b"
    assert not allowed("sqs:" + "a" * 60, QUEUE, statement("Allow", "sqs:" + pattern.replace("*a", "**a")))


def test_the_owner_may_do_everything() -> None:
    Authoriser(lambda role: []).authorise(Principal(), [Need("ec2:RunInstances", "*")], REGION)


@pytest.mark.parametrize(
    ("operation", "query", "headers", "needs"),
    [
        ("HeadObject", {}, {}, ["s3:GetObject"]),
        ("GetObject", {"versionId": "1"}, {}, ["s3:GetObjectVersion"]),
        ("DeleteObject", {"versionId": "1"}, {}, ["s3:DeleteObjectVersion"]),
        ("ListParts", {}, {}, ["s3:ListMultipartUploadParts"]),
        ("CreateMultipartUpload", {}, {}, ["s3:PutObject"]),
        ("UploadPart", {}, {}, ["s3:PutObject"]),
        ("CompleteMultipartUpload", {}, {}, ["s3:PutObject"]),
        ("AbortMultipartUpload", {}, {}, ["s3:AbortMultipartUpload"]),
        ("PutObject", {}, {"x-amz-tagging": "a=b"}, ["s3:PutObject", "s3:PutObjectTagging"]),
        ("PutObject", {}, {"x-amz-acl": "private"}, ["s3:PutObject", "s3:PutObjectAcl"]),
        ("PutObjectAcl", {}, {}, ["s3:PutObjectAcl"]),
    ],
)
def test_what_operations_on_objects_need(
    operation: str, query: dict[str, str], headers: dict[str, str], needs: list[str]
) -> None:
    found = s3_actions.needed(operation, "b", "k", query, headers, b"")
    assert list(found) == [Need(action, "arn:aws:s3:::b/k") for action in needs]


@pytest.mark.parametrize(
    ("operation", "action"),
    [
        ("ListObjectsV2", "s3:ListBucket"),
        ("ListObjects", "s3:ListBucket"),
        ("HeadBucket", "s3:ListBucket"),
        ("ListMultipartUploads", "s3:ListBucketMultipartUploads"),
        ("ListObjectVersions", "s3:ListBucketVersions"),
        ("GetBucketEncryption", "s3:GetEncryptionConfiguration"),
        ("DeleteBucket", "s3:DeleteBucket"),
    ],
)
def test_what_operations_on_buckets_need(operation: str, action: str) -> None:
    assert list(s3_actions.needed(operation, "b", "", {}, {}, b"")) == [Need(action, "arn:aws:s3:::b")]


def test_a_copy_needs_its_source() -> None:
    headers = {"x-amz-copy-source": "/other/a%2Fb?versionId=3"}
    assert list(s3_actions.needed("CopyObject", "b", "k", {}, headers, b"")) == [
        Need("s3:PutObject", "arn:aws:s3:::b/k"),
        Need("s3:GetObjectVersion", "arn:aws:s3:::other/a/b"),
    ]


@pytest.mark.parametrize(
    "body", [b"", b"<a>", b"<Delete/>", b"<!DOCTYPE a [<!ENTITY b 'c'>]><Delete><Object/></Delete>"]
)
def test_a_list_to_delete_that_is_none(body: bytes) -> None:
    with pytest.raises(Refused):
        list(s3_actions.needed("DeleteObjects", "b", "", {}, {}, body))


# --- at the gateway ------------------------------------------------------------------------------


@pytest.fixture
def session(cloud: Cloud) -> Key:
    return cloud.session()


@pytest.fixture(scope="module")
def wired(served: Cloud) -> dict[str, str]:
    """The queue, bucket and bus of a worker, and others that are none of its business."""
    tag = uuid.uuid4().hex[:8]
    sqs, s3, events = (served.client(service) for service in ("sqs", "s3", "events"))
    where: Any = {"LocationConstraint": REGION}
    for name in (f"flux-{tag}", f"other-{tag}"):
        sqs.create_queue(QueueName=name)
        s3.create_bucket(Bucket=name, CreateBucketConfiguration=where)
        s3.put_object(Bucket=name, Key="k", Body=b"content")
        events.create_event_bus(Name=name)
    return {name: f"{name}-{tag}" for name in ("flux", "other")}


def url(cloud: Cloud, name: str) -> str:
    return f"{cloud.url}/123456789012/{name}"


def test_the_workers_calls_are_allowed(cloud: Cloud, session: Key, wired: dict[str, str]) -> None:
    """As worker/README.md has them."""
    name = wired["flux"]
    cloud.client("sqs").send_message(QueueUrl=url(cloud, name), MessageBody="job")
    sqs, s3, events = (cloud.client(service, session) for service in ("sqs", "s3", "events"))
    [message] = sqs.receive_message(QueueUrl=url(cloud, name))["Messages"]
    handle = {"QueueUrl": url(cloud, name), "ReceiptHandle": message["ReceiptHandle"]}
    sqs.change_message_visibility(**handle, VisibilityTimeout=30)
    sqs.delete_message(**handle)
    sqs.get_queue_attributes(QueueUrl=url(cloud, name), AttributeNames=["RedrivePolicy"])
    s3.put_object(Bucket=name, Key="images/a.png", Body=b"x", ContentType="image/png", IfNoneMatch="*")
    assert s3.get_object(Bucket=name, Key="images/a.png")["Body"].read() == b"x"
    assert refusal(s3.head_object, Bucket=name, Key="absent")[:2] == ("404", 404)
    s3.delete_object(Bucket=name, Key="images/a.png")
    assert s3.list_objects_v2(Bucket=name)["KeyCount"] == 1
    entry = {"Source": "flux.worker", "DetailType": "t", "Detail": "{}", "EventBusName": name}
    assert events.put_events(Entries=[entry])["FailedEntryCount"] == 0


DENIED_S3 = ("AccessDenied", 403)
DENIED_SQS = ("AccessDenied", 403)
DENIED_JSON = ("AccessDeniedException", 400)


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "answer"),
    [
        ("ec2", "describe_instances", {}, ("UnauthorizedOperation", 403)),
        (
            "ec2",
            "terminate_instances",
            {"InstanceIds": ["i-0123456789abcdef1"]},
            ("UnauthorizedOperation", 403),
        ),
        (
            "ec2",
            "run_instances",
            {"ImageId": "ami-1", "MinCount": 1, "MaxCount": 1},
            ("UnauthorizedOperation", 403),
        ),
        ("ec2", "get_console_output", {"InstanceId": "i-0123456789abcdef1"}, ("UnauthorizedOperation", 403)),
        (
            "iam",
            "put_role_policy",
            {"RoleName": "r", "PolicyName": "p", "PolicyDocument": "{{}}"},
            ("AccessDenied", 403),
        ),
        ("iam", "list_roles", {}, ("AccessDenied", 403)),
        ("sqs", "list_queues", {}, DENIED_SQS),
        ("sqs", "create_queue", {"QueueName": "flux-new"}, DENIED_SQS),
        ("sqs", "send_message", {"QueueUrl": "{flux}", "MessageBody": "x"}, DENIED_SQS),
        ("sqs", "purge_queue", {"QueueUrl": "{flux}"}, DENIED_SQS),
        ("sqs", "receive_message", {"QueueUrl": "{other}"}, DENIED_SQS),
        ("s3", "list_buckets", {}, DENIED_S3),
        ("s3", "get_object", {"Bucket": "{other}", "Key": "k"}, DENIED_S3),
        ("s3", "put_object", {"Bucket": "{other}", "Key": "k"}, DENIED_S3),
        ("s3", "put_object", {"Bucket": "{flux}", "Key": "k", "ACL": "public-read"}, DENIED_S3),
        ("s3", "delete_bucket", {"Bucket": "{flux}"}, DENIED_S3),
        ("s3", "put_bucket_policy", {"Bucket": "{flux}", "Policy": "{{}}"}, DENIED_S3),
        ("s3", "copy_object", {"Bucket": "{flux}", "Key": "k", "CopySource": "{other}/k"}, DENIED_S3),
        ("s3", "delete_objects", {"Bucket": "{other}", "Delete": {"Objects": [{"Key": "k"}]}}, DENIED_S3),
        ("events", "put_events", {"Entries": [{"EventBusName": "{other}"}]}, DENIED_JSON),
        ("events", "put_events", {"Entries": [{"EventBusName": "{flux}"}, {"Source": "s"}]}, DENIED_JSON),
        ("events", "put_targets", {"Rule": "r", "Targets": [{"Id": "1", "Arn": QUEUE}]}, DENIED_JSON),
        ("secretsmanager", "get_secret_value", {"SecretId": "s"}, DENIED_JSON),
        ("ssm", "get_parameter", {"Name": "n"}, DENIED_JSON),
        ("kms", "list_keys", {}, DENIED_JSON),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nothing_else_is(
    cloud: Cloud,
    session: Key,
    wired: dict[str, str],
    service: str,
    operation: str,
    parameters: dict[str, Any],
    answer: tuple[str, int],
) -> None:
    client = cloud.client(service, session)
    found = refusal(getattr(client, operation), **_filled(parameters, wired, cloud))
    assert found[:2] == answer
    if service not in {"ec2", "s3"}:
        assert "is not authorized to perform" in found[2]


def _filled(value: Any, wired: dict[str, str], cloud: Cloud) -> Any:
    if isinstance(value, dict):
        return {
            key: url(cloud, inner.format(**wired)) if key == "QueueUrl" else _filled(inner, wired, cloud)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_filled(inner, wired, cloud) for inner in value]
    return value.format(**wired) if isinstance(value, str) else value


def test_objects_of_ones_own_are_deleted_many_at_a_time(
    cloud: Cloud, session: Key, wired: dict[str, str]
) -> None:
    cloud.client("s3").put_object(Bucket=wired["flux"], Key="a&b", Body=b"x")
    listed = {"Objects": [{"Key": "a&b"}, {"Key": "absent"}]}
    deleted = cloud.client("s3", session).delete_objects(Bucket=wired["flux"], Delete=listed)["Deleted"]
    assert {one["Key"] for one in deleted} == {"a&b", "absent"}


@pytest.mark.parametrize(
    "content", [{"QueueName": "flux-x"}, {"QueueUrl": ["http://h/flux-x"]}, {"QueueUrl": 1}]
)
def test_a_queue_is_named_in_one_way(cloud: Cloud, session: Key, wired: dict[str, str], content: Any) -> None:
    """moto falls back to the path where it finds no queue's URL."""
    from .signed import ask

    path = f"/123456789012/{wired['other']}"
    status, said = ask(cloud, "sqs", "AmazonSQS.ReceiveMessage", content, path, key=session)
    assert status in {400, 403}, said


@pytest.fixture
def role() -> Iterator[Any]:
    """The role of instances, its policies as they were in the end."""
    iam = iam_backends["123456789012"]["aws"]
    yield iam.get_role(fixtures.PROFILE)
    role = iam.get_role(fixtures.PROFILE)
    role.policies = {"worker": json.dumps(fixtures.role_policy())}
    role.managed_policies.clear()


def test_the_roles_policy_is_there_to_see_and_to_change(cloud: Cloud, session: Key, role: Any) -> None:
    iam, name = cloud.client("iam"), fixtures.PROFILE
    assert iam.get_role_policy(RoleName=name, PolicyName="worker")["PolicyDocument"] == fixtures.role_policy()
    regions = cloud.client("ec2", session).describe_regions
    assert refusal(regions)[0] == "UnauthorizedOperation"
    more = json.dumps({"Version": "2012-10-17", "Statement": [statement("Allow", "ec2:DescribeRegions")]})
    iam.put_role_policy(RoleName=name, PolicyName="more", PolicyDocument=more)
    assert regions()["Regions"]
    arn = iam.create_policy(
        PolicyName=f"no-{uuid.uuid4().hex[:8]}", PolicyDocument=more.replace("Allow", "Deny")
    )
    iam.attach_role_policy(RoleName=name, PolicyArn=arn["Policy"]["Arn"])
    assert refusal(regions)[0] == "UnauthorizedOperation"
    iam.detach_role_policy(RoleName=name, PolicyArn=arn["Policy"]["Arn"])
    assert regions()["Regions"]


def test_a_role_that_is_gone_may_do_nothing(cloud: Cloud) -> None:
    session = cloud.session(role="no-such-role")
    assert refusal(cloud.client("sqs", session).list_queues)[0] == "AccessDenied"
    assert (
        cloud.client("sts", session)
        .get_caller_identity()["Arn"]
        .endswith("/no-such-role/i-0123456789abcdef0")
    )
