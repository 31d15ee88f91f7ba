"""Faults of AWS's calls, as real clients meet them; moto answers what no fault strikes."""

from __future__ import annotations

import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError
from werkzeug.test import Client
from werkzeug.wrappers import Response

from bake.localcloud.api.faults.faults import AwsFaults
from bake.localcloud.api.faults.middleware import Faulty

from .moto_account import PATIENCE, MotoAccount, new, wait

LONG = 3600.0  # a fault that no test waits for


# One call of each protocol: client, method, its parameters, and the operation that a fault names.
CALLS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "ec2": ("ec2", "describe_instances", {}, "DescribeInstances"),
    "query": ("sts", "get_caller_identity", {}, "GetCallerIdentity"),
    "json": ("events", "list_event_buses", {}, "ListEventBuses"),
    "sqs": ("sqs", "list_queues", {}, "ListQueues"),
    "s3": ("s3", "list_buckets", {}, "ListBuckets"),
    "rest-json": ("scheduler", "list_schedules", {}, "ListSchedules"),
    "cbor": ("cloudwatch", "list_dashboards", {}, "ListDashboards"),
}
ANSWERS: dict[str, dict[str, tuple[str, int]]] = {
    "refuse": {
        "ec2": ("UnauthorizedOperation", 403),
        "query": ("AccessDenied", 403),
        "json": ("AccessDeniedException", 400),
        "sqs": ("AccessDenied", 403),
        "s3": ("AccessDenied", 403),
        "rest-json": ("AccessDeniedException", 403),
        "cbor": ("AccessDeniedException", 400),
    },
    "throttle": {
        "ec2": ("RequestLimitExceeded", 503),
        "query": ("Throttling", 400),
        "json": ("ThrottlingException", 400),
        "sqs": ("ThrottlingException", 400),
        "s3": ("SlowDown", 503),
        "rest-json": ("ThrottlingException", 429),
        "cbor": ("ThrottlingException", 400),
    },
    "error": dict.fromkeys(CALLS, ("InternalError", 500)),
    "expired": {
        "ec2": ("RequestExpired", 400),
        "query": ("ExpiredToken", 403),
        "json": ("ExpiredTokenException", 400),
        "sqs": ("ExpiredTokenException", 400),
        "s3": ("ExpiredToken", 400),
        "rest-json": ("ExpiredTokenException", 403),
        "cbor": ("ExpiredTokenException", 400),
    },
}


@pytest.mark.parametrize("protocol", CALLS)
@pytest.mark.parametrize("kind", ANSWERS)
def test_a_call_fails_once_as_its_service_fails(moto_account: MotoAccount, kind: Any, protocol: str) -> None:
    service, method, parameters, action = CALLS[protocol]
    moto_account.faults.plant(service, action, kind)
    assert moto_account.refused(service, method, **parameters) == ANSWERS[kind][protocol]
    moto_account.call(service, method, **parameters)
    [planted] = moto_account.faults.listed()
    assert (planted.struck, planted.left, planted.fault.kind) == (1, 0, kind)


@pytest.mark.parametrize(
    ("service", "method", "parameters", "fields", "expected"),
    [
        pytest.param("ec2", "describe_instances", {}, {"code": "AuthFailure"}, 401, id="ec2"),
        pytest.param("iam", "list_roles", {}, {"code": "LimitExceeded"}, 409, id="by-the-model"),
        pytest.param("sqs", "list_queues", {}, {"code": "OverLimit", "status": 403}, 403, id="by-the-test"),
        pytest.param("s3", "list_buckets", {}, {"code": "BucketAlreadyExists"}, 409, id="s3"),
        pytest.param("ssm", "get_parameter", {"Name": "x"}, {"code": "ParameterNotFound"}, 400, id="json"),
    ],
)
def test_any_code_can_be_asked_for(
    moto_account: MotoAccount,
    service: str,
    method: str,
    parameters: dict[str, Any],
    fields: dict[str, Any],
    expected: int,
) -> None:
    moto_account.faults.plant(service, "*", "refuse", message="so <it> & is", **fields)
    with pytest.raises(ClientError, match="so <it> & is") as error:
        moto_account.call(service, method, **parameters)
    assert error.value.response["Error"]["Code"] == fields["code"]
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == expected


def test_errors_are_the_exceptions_of_their_clients(moto_account: MotoAccount) -> None:
    sqs, s3, iam = (moto_account.client(service) for service in ("sqs", "s3", "iam"))
    moto_account.faults.plant("sqs", "*", "refuse", code="AWS.SimpleQueueService.NonExistentQueue")
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.get_queue_url(QueueName="x")
    moto_account.faults.plant("s3", "ListObjectsV2", "refuse", code="NoSuchBucket")
    with pytest.raises(s3.exceptions.NoSuchBucket):
        s3.list_objects_v2(Bucket="some-bucket")
    moto_account.faults.plant("iam", "GetRole", "refuse", code="NoSuchEntity")
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_role(RoleName="x")


def test_no_capacity_is_http_500_and_names_the_type(moto_account: MotoAccount) -> None:
    moto_account.faults.plant("ec2", "RunInstances", "capacity", match="InstanceType=g6e.xlarge")
    launch = {"ImageId": "ami-12345678", "MinCount": 1, "MaxCount": 1}
    moto_account.call("ec2", "run_instances", InstanceType="t3.micro", **launch)
    with pytest.raises(ClientError, match=r"sufficient g6e\.xlarge capacity") as error:
        moto_account.call("ec2", "run_instances", InstanceType="g6e.xlarge", **launch)
    assert error.value.response["Error"]["Code"] == "InsufficientInstanceCapacity"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500


def test_a_head_request_has_a_status_alone(moto_account: MotoAccount) -> None:
    moto_account.faults.plant("s3", "HeadBucket", "refuse", code="NoSuchBucket")
    assert moto_account.refused("s3", "head_bucket", Bucket=new("bucket")) == ("404", 404)


def test_a_presigned_url_fails_like_any_call(moto_account: MotoAccount) -> None:
    s3, bucket = moto_account.client("s3"), new("bucket")
    location: Any = {"LocationConstraint": "eu-west-1"}
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=location)
    s3.put_object(Bucket=bucket, Key="k", Body=b"content")
    url = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "k"})
    moto_account.faults.plant("s3", "GetObject", "throttle")
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(url, timeout=PATIENCE)
    assert (error.value.code, b"<Code>SlowDown</Code>" in error.value.read()) == (503, True)
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        assert answer.read() == b"content"


def names(answer: dict[str, Any], listed: str, name: str) -> set[str]:
    return {one[name] for one in answer[listed]}


CREATED: dict[str, tuple[str, str, Callable[[str], dict[str, Any]], Callable[[MotoAccount, str], bool]]] = {
    "ec2": (
        "ec2",
        "create_key_pair",
        lambda name: {"KeyName": name},
        lambda moto, name: name in names(moto.call("ec2", "describe_key_pairs"), "KeyPairs", "KeyName"),
    ),
    "iam": (
        "iam",
        "create_role",
        lambda name: {"RoleName": name, "AssumeRolePolicyDocument": "{}"},
        lambda moto, name: name in names(moto.call("iam", "list_roles"), "Roles", "RoleName"),
    ),
    "events": (
        "events",
        "create_event_bus",
        lambda name: {"Name": name},
        lambda moto, name: name in names(moto.call("events", "list_event_buses"), "EventBuses", "Name"),
    ),
    "sqs": (
        "sqs",
        "create_queue",
        lambda name: {"QueueName": name},
        lambda moto, name: bool(moto.call("sqs", "list_queues", QueueNamePrefix=name).get("QueueUrls")),
    ),
    "s3": (
        "s3",
        "create_bucket",
        lambda name: {
            "Bucket": name,
            "CreateBucketConfiguration": {"LocationConstraint": "eu-west-1"},
        },
        lambda moto, name: name in names(moto.call("s3", "list_buckets"), "Buckets", "Name"),
    ),
}


@pytest.mark.parametrize("service", CREATED)
def test_a_lost_answer_is_that_of_a_call_that_was_made(moto_account: MotoAccount, service: str) -> None:
    client, method, parameters, exists = CREATED[service]
    name = new()
    moto_account.faults.plant(client, "Create*", "lost")
    with pytest.raises(ConnectionClosedError):
        moto_account.call(client, method, **parameters(name))
    assert exists(moto_account, name)
    assert moto_account.faults.struck() == 1


@pytest.mark.parametrize("service", CREATED)
def test_a_time_out_is_that_of_a_call_that_was_not_made(moto_account: MotoAccount, service: str) -> None:
    client, method, parameters, exists = CREATED[service]
    name = new()
    moto_account.faults.plant(client, "Create*", "timeout", seconds=0.1)
    with pytest.raises(ConnectionClosedError):
        moto_account.call(client, method, **parameters(name))
    assert not exists(moto_account, name)


def test_a_client_that_waits_less_times_out(moto_account: MotoAccount) -> None:
    moto_account.faults.plant("ec2", "DescribeRegions", "timeout", seconds=LONG)
    with pytest.raises(ReadTimeoutError):
        moto_account.client("ec2", read_timeout=0.5).describe_regions()


def test_the_end_of_all_faults_lets_go_of_what_is_held(moto_account: MotoAccount) -> None:
    moto_account.faults.plant("ec2", "DescribeRegions", "timeout", seconds=LONG)
    met: list[BaseException] = []

    def ask() -> None:
        try:
            moto_account.client("ec2", read_timeout=LONG).describe_regions()
        except BaseException as error:
            met.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    wait(lambda: moto_account.faults.struck() == 1)
    assert asking.is_alive()
    assert moto_account.faults.clear() == 1
    asking.join(PATIENCE)
    assert [type(error) for error in met] == [ConnectionClosedError]
    moto_account.call("ec2", "describe_regions")


def fails(moto_account: MotoAccount, service: str = "sqs", method: str = "list_queues") -> bool:
    try:
        moto_account.call(service, method)
    except ClientError:
        return True
    return False


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, [True, False, False, False], id="once"),
        pytest.param({"times": 2}, [True, True, False, False], id="twice"),
        pytest.param({"nth": 3}, [False, False, True, False], id="the-third-only"),
        pytest.param({"after": 1, "times": None}, [False, True, True, True], id="from-the-second-on"),
    ],
)
def test_which_calls_fail(moto_account: MotoAccount, fields: dict[str, Any], expected: list[bool]) -> None:
    moto_account.faults.plant("sqs", "ListQueues", "error", **fields)
    assert [fails(moto_account) for _ in expected] == expected
    assert moto_account.faults.struck() == sum(expected)


def test_others_calls_do_not_count(moto_account: MotoAccount) -> None:
    moto_account.faults.plant("sqs", "List*", "error", nth=2)
    assert not fails(moto_account)
    moto_account.call("events", "list_event_buses")
    moto_account.call("sqs", "create_queue", QueueName=new())
    assert fails(moto_account)


def test_a_seed_decides_which_calls_fail(moto_account: MotoAccount) -> None:
    def pattern(seed: int) -> list[bool]:
        moto_account.faults.clear()
        moto_account.faults.plant("sqs", "*", "error", times=None, probability=0.4, seed=seed)
        return [fails(moto_account) for _ in range(24)]

    first = pattern(7)
    dice = random.Random(7)
    assert first == [dice.random() < 0.4 for _ in range(24)]
    assert pattern(7) == first != pattern(8)


def test_a_fault_ends_some_time_after_its_first_strike(moto_account: MotoAccount) -> None:
    moto_account.faults.plant("sqs", "*", "throttle", seconds=0.5)
    assert moto_account.faults.listed()[0].left is None
    begun = time.monotonic()
    assert fails(moto_account)
    wait(lambda: not fails(moto_account))
    assert time.monotonic() - begun >= 0.5
    [planted] = moto_account.faults.listed()
    assert (planted.left, planted.struck >= 1) == (0, True)


def test_the_first_that_was_planted_strikes(moto_account: MotoAccount) -> None:
    moto_account.faults.plant("sqs", "*", "refuse", code="First")
    moto_account.faults.plant("*", "*", "refuse", code="Second")
    codes = [moto_account.refused("sqs", "list_queues")[0] for _ in range(2)]
    assert codes == ["First", "Second"]
    assert [moto_account.faults.struck(number) for number in (1, 2)] == [1, 1]


def test_a_call_that_no_fault_strikes_keeps_its_body(moto_account: MotoAccount) -> None:
    moto_account.faults.plant("s3", "DeleteObject", "error")
    moto_account.faults.plant("*", "DescribeImages", "not-found")
    s3, bucket, content = moto_account.client("s3"), new("bucket"), random.Random(1).randbytes(3_000_000)
    location: Any = {"LocationConstraint": "eu-west-1"}
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=location)
    s3.put_object(Bucket=bucket, Key="a/b c+ü", Body=content)
    assert s3.get_object(Bucket=bucket, Key="a/b c+ü")["Body"].read() == content
    url = moto_account.call("sqs", "create_queue", QueueName=new())["QueueUrl"]
    moto_account.call("sqs", "send_message", QueueUrl=url, MessageBody="grüße")
    [message] = moto_account.call("sqs", "receive_message", QueueUrl=url)["Messages"]
    assert message["Body"] == "grüße"


def test_a_large_upload_hears_that_it_is_refused(moto_account: MotoAccount) -> None:
    moto_account.faults.plant("s3", "PutObject", "refuse")
    body = {"Bucket": "some-bucket", "Key": "k", "Body": bytes(20_000_000)}
    assert moto_account.refused("s3", "put_object", **body) == ("AccessDenied", 403)


def test_motos_own_calls_are_spared(moto_account: MotoAccount) -> None:
    moto_account.faults.plant("*", "*", "error", times=None)
    with urllib.request.urlopen(f"{moto_account.url}/moto-api/config", timeout=PATIENCE) as answer:
        assert answer.status < 300


def test_instances_and_this_host_can_be_told_apart() -> None:
    faults = AwsFaults()
    client = Client(Faulty(Response("done"), faults, is_instance=lambda address: address == "1.1.1.2"))

    def status(address: str) -> int:
        return client.get("/some-bucket", environ_overrides={"REMOTE_ADDR": address}).status_code

    faults.plant("s3", "*", "error", times=None, caller="guests")
    assert [status(address) for address in ("1.1.1.1", "1.1.1.2")] == [200, 500]
    faults.clear()
    faults.plant("s3", "*", "error", times=None, caller="host")
    assert [status(address) for address in ("1.1.1.1", "1.1.1.2")] == [500, 200]
