"""What is authorised is what is done: requests that could be read in two ways."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from .conftest import REGION, Cloud, refusal
from .signed import FORM, ask, form, headers_of, send

STS = [("Action", "GetCallerIdentity"), ("Version", "2011-06-15")]


def queue(cloud: Cloud, name: str) -> str:
    return str(cloud.client("sqs").create_queue(QueueName=name)["QueueUrl"])


def queues(cloud: Cloud) -> list[str]:
    urls = cloud.client("sqs").list_queues().get("QueueUrls", [])
    return [url.rpartition("/")[2] for url in urls]


@pytest.mark.parametrize(
    ("target", "service"),
    [
        ("AmazonSNS.Publish", "sqs"),
        ("AmazonSimpleNotificationService.Publish", "sqs"),
        ("AWSEvents.PutEvents", "sqs"),
        ("DynamoDB_20120810.ListTables", "events"),
        ("AmazonSQS.ListQueues", "events"),
        ("AmazonSQS.ListQueues", "ec2"),
        ("AmazonSQS.ListQueues", "iam"),
        ("", "sqs"),
        (".", "sqs"),
        ("AmazonSQS", "sqs"),
        ("AmazonSQS.", "sqs"),
        ("AmazonSQS.SNS.Publish", "sqs"),
    ],
)
def test_a_target_of_another_service(cloud: Cloud, target: str, service: str) -> None:
    status, content = ask(cloud, service, target, {})
    assert status in {400, 401, 403}, content


def test_the_right_target(cloud: Cloud) -> None:
    assert ask(cloud, "sqs", "AmazonSQS.ListQueues", {})[0] == 200


def test_a_message_that_looks_like_an_action_is_a_message(cloud: Cloud) -> None:
    """moto takes an Action out of any body."""
    url = queue(cloud, "flux-a")
    for body in ("x&Action=DeleteQueue&y=", "&Action=PurgeQueue&"):
        cloud.client("sqs").send_message(QueueUrl=url, MessageBody=body)
    assert "flux-a" in queues(cloud)
    got = cloud.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert {message["Body"] for message in got} == {"x&Action=DeleteQueue&y=", "&Action=PurgeQueue&"}


@pytest.mark.parametrize("path", ["/?Action=DeleteQueue", "/?Action=DeleteQueue&Version=2012-11-05"])
def test_an_action_in_the_query_of_a_json_call(cloud: Cloud, path: str) -> None:
    url = queue(cloud, "flux-b")
    status, _ = ask(cloud, "sqs", "AmazonSQS.ReceiveMessage", {"QueueUrl": url}, path)
    assert (status, "flux-b" in queues(cloud)) == (400, True)


def test_a_form_with_a_target(cloud: Cloud) -> None:
    url = queue(cloud, "flux-c")
    body = f"Action=DeleteQueue&QueueUrl={url}".encode()
    headers = {"Content-Type": FORM, "X-Amz-Target": "AmazonSQS.ReceiveMessage"}
    assert send(cloud, "sqs", "POST", "/", body, headers=headers)[0] == 400
    body = json.dumps({"QueueUrl": url}).encode()  # JSON that says it is a form is JSON
    assert send(cloud, "sqs", "POST", "/", body, headers=headers)[0] == 200
    assert "flux-c" in queues(cloud)


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param([*STS, ("Action", "AssumeRole")], id="second"),
        pytest.param([("Action", "AssumeRole"), *STS], id="first"),
        pytest.param([("Version", "2011-06-15")], id="none"),
        pytest.param([("Action", ""), ("Version", "2011-06-15")], id="empty"),
        pytest.param([("Action", "GetCallerIdentity"), ("Version", "2010-05-08")], id="IAM's version"),
    ],
)
def test_two_actions_or_none(cloud: Cloud, pairs: list[tuple[str, str]]) -> None:
    assert form(cloud, "sts", pairs)[0] in {400, 403}


def test_an_action_in_query_and_body(cloud: Cloud) -> None:
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    headers = {"Content-Type": FORM}
    assert send(cloud, "sts", "POST", "/?Action=AssumeRole", body, headers=headers)[0] == 400
    assert send(cloud, "sts", "POST", "/", body, headers=headers)[0] == 200
    assert send(cloud, "sts", "GET", "/?Action=GetCallerIdentity&Version=2011-06-15")[0] == 200


@pytest.mark.parametrize(
    "target",
    [
        "/moto-api/data.json",
        "/moto-api/reset",
        "/moto-api/config",
        "/recorder/reset-recording",
        "/latest/meta-data/iam/security-credentials/",
        "/latest/api/token",
        "/favicon.ico",
        "/service/monitoring/operation/ListMetrics",
        "/sns_eu-west-1/",
        "/.well-known/jwks.json",
    ],
)
@pytest.mark.parametrize("service", ["sqs", "ec2", "s3", "sts"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_motos_own_paths_lead_nowhere(cloud: Cloud, target: str, service: str, method: str) -> None:
    status, content = send(cloud, service, method, target)
    assert status in {400, 403, 404}, content
    assert cloud.send(method, target)[0] in {400, 401, 403, 404}


def test_headers_that_moto_obeys(cloud: Cloud) -> None:
    """An account, and a region in the user agent."""
    queue(cloud, "flux-d")
    headers = {"X-Moto-Account-Id": "999999999999", "User-Agent": "x region/us-east-1"}
    more = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "AmazonSQS.ListQueues", **headers}
    status, content = send(cloud, "sqs", "POST", "/", b"{}", headers=more)
    assert (status, "flux-d" in content, "999999999999" in content) == (200, True, False)


def test_a_compressed_body(cloud: Cloud) -> None:
    headers = {"X-Amz-Target": "AmazonSQS.ListQueues", "Content-Encoding": "gzip"}
    assert send(cloud, "sqs", "POST", "/", b"{}", headers=headers)[0] == 400


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b"\xff", b'{"a":' + b"[" * 100_000], ids=repr)
def test_json_that_is_none(cloud: Cloud, body: bytes) -> None:
    headers = {"X-Amz-Target": "AmazonSQS.ListQueues", "Content-Type": "application/x-amz-json-1.0"}
    assert send(cloud, "sqs", "POST", "/", body, headers=headers)[0] == 400


@pytest.fixture
def bucket(cloud: Cloud) -> str:
    name = f"flux-{uuid.uuid4().hex[:8]}"
    where: Any = {"LocationConstraint": REGION}
    cloud.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration=where)
    return name


@pytest.mark.parametrize(
    "query",
    [
        "acl&policy",
        "uploads&tagging",
        "acl&acl",
        "website&versions",
        "foo=bar",
        "Action=DeleteBucket",
        "list-type=1",
    ],
)
def test_subresources_that_contradict_each_other(cloud: Cloud, bucket: str, query: str) -> None:
    status, content = send(cloud, "s3", "GET", f"/{bucket}?{query}")
    assert (status, "Conflicting query string parameters" in content) == (400, True)


@pytest.mark.parametrize("method", ["OPTIONS", "PATCH", "POST", "TRACE", "get"])
def test_methods_that_s3_does_not_have(cloud: Cloud, bucket: str, method: str) -> None:
    assert send(cloud, "s3", method, f"/{bucket}/key")[0] in {400, 403, 405, 501}


@pytest.mark.parametrize(
    "target",
    ["//{}/key", "/%2F{}/key", "/../{}/key", "/{}%2Fkey", "/.{}", "/%66lux", "/{};x/key", "/{}%00"],
)
def test_buckets_that_are_written_strangely(cloud: Cloud, bucket: str, target: str) -> None:
    cloud.client("s3").put_object(Bucket=bucket, Key="key", Body=b"here")
    status, content = send(cloud, "s3", "GET", target.format(bucket))
    assert (status in {400, 403}, "here" in content) == (True, False)


KEYS = [
    "a//b",
    "a/../b",
    "./a",
    "ü/日本.png",
    "a b+c",
    "100%",
    "a%2Fb",
    "a;b",
    "a?b&c=d#e",
    "~!*'()$@,:=",
    "/a",
    "a/",
    "x.cn-north-1.amazonaws.com",
]


@pytest.mark.parametrize("key", KEYS, ids=ascii)
def test_keys_of_all_kinds(cloud: Cloud, bucket: str, key: str) -> None:
    """Stored, listed, fetched, copied and deleted by the name that they have."""
    s3 = cloud.client("s3")
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    assert cloud.send("GET", cloud.presigned("get_object", Bucket=bucket, Key=key)) == (200, key.encode())
    s3.delete_object(Bucket=bucket, Key=key)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_a_semicolon_that_is_not_encoded_is_a_part_of_the_key(cloud: Cloud, bucket: str) -> None:
    assert send(cloud, "s3", "PUT", f"/{bucket}/a;b", b"x")[0] == 200
    listed = cloud.client("s3").list_objects_v2(Bucket=bucket)["Contents"]
    assert [one["Key"] for one in listed] == ["a;b"]
    assert send(cloud, "s3", "GET", f"/{bucket}/;x")[0] == 404  # an object that is not there, not the bucket


@pytest.mark.parametrize(
    "query", ["prefix=a%20b", "prefix=a+b", "prefix=&delimiter=", "prefix", "delimiter=%2F"]
)
def test_queries_of_all_kinds(cloud: Cloud, bucket: str, query: str) -> None:
    target = f"/{bucket}?{query.replace('+', '%20')}"
    headers = headers_of(cloud, "s3", "GET", target)
    assert cloud.send("GET", f"/{bucket}?{query}", headers)[0] == 200


@pytest.mark.parametrize(
    "source",
    [
        "flux://x/{}/key",
        "//x/{}/key",
        "{}/key?versionId=1&x",
        "{}/key#x",
        "{}/a;b",
        "{}",
        "http://h/{}/key",
        "",
    ],
)
def test_a_copys_source_is_bucket_and_key(cloud: Cloud, bucket: str, source: str) -> None:
    s3 = cloud.client("s3")
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    headers = {"x-amz-copy-source": source.format(bucket)}
    assert send(cloud, "s3", "PUT", f"/{bucket}/copy", headers=headers)[0] == 400
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "key"})
    assert s3.head_object(Bucket=bucket, Key="copy")["ContentLength"] == 1


def test_a_form_is_no_way_around_s3s_operations(cloud: Cloud, bucket: str) -> None:
    headers = {"Content-Type": FORM}
    status, content = send(cloud, "s3", "PUT", f"/{bucket}", b"policy=x&acl=public-read", headers=headers)
    assert status >= 400, content
    assert refusal(cloud.client("s3").get_bucket_policy, Bucket=bucket)[0] == "NoSuchBucketPolicy"
