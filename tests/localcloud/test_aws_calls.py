"""Which call a request is, and which faults can be asked for."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder

from bake.errors import UsageError
from bake.localcloud.api.faults import calls
from bake.localcloud.api.faults.faults import AwsFault, AwsFaults, parse_fault
from bake.localcloud.api.faults.operations import rest_operation


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({"kind": "bang"}, "kind: Input should be 'refuse'", id="kind"),
        pytest.param({"tims": 1}, "tims: Extra inputs", id="unknown"),
        pytest.param({"times": 0, "after": -1}, "times: .*; after: ", id="all-at-once"),
        pytest.param({"kind": "lost", "code": "X"}, "a lost fault has no answer", id="no-answer"),
        pytest.param({"probability": 0}, "probability", id="probability"),
    ],
)
def test_a_wrong_fault_is_refused_in_words(fields: dict[str, Any], message: str) -> None:
    fault = {"service": "ec2", "action": "*", "kind": "error", **fields}
    for content in (fault, json.dumps(fault)):
        with pytest.raises(UsageError, match=message):
            parse_fault(content)


@pytest.mark.parametrize(
    ("service", "action", "message", "hint"),
    [
        pytest.param("ecc2", "RunInstances", "no service ecc2", "did you mean ec2?", id="service"),
        pytest.param("ec2", "RunInstance", "no operation RunInstance", "mean RunInstances?", id="action"),
        pytest.param("s3", "putobject", "no operation putobject", "did you mean PutObject?", id="case"),
        pytest.param("sqs", "Zap*", r"no operation Zap\*", "as botocore does", id="pattern"),
    ],
)
def test_what_aws_has_not_is_refused(service: str, action: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        AwsFaults().plant(service, action, "error")
    assert hint in str(error.value.hint)


def test_a_service_is_known_by_botocores_name_too() -> None:
    assert AwsFaults().plant("cloudwatch", "PutMetricData", "error").fault.service == "monitoring"
    assert AwsFaults().plant("s[qn]s", "*", "error").fault.service == "s[qn]s"


def test_a_fault_survives_the_wire() -> None:
    for fault in (
        AwsFault(service="ec2", action="*", kind="throttle", seconds=75),
        AwsFault(service="ec2", action="*", kind="not-found"),
        AwsFault(service="ec2", action="*", kind="error", seconds=3, times=2),
        AwsFault(service="ec2", action="*", kind="timeout"),
    ):
        assert parse_fault(fault.model_dump_json()) == fault


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "expected"),
    [
        ("GET", "/", {}, (), "ListBuckets"),
        ("PUT", "/b/", {}, (), "CreateBucket"),
        ("PUT", "/b", {"tagging": ""}, (), "PutBucketTagging"),
        ("PUT", "/b", {"lifecycle": ""}, (), "PutBucketLifecycleConfiguration"),
        ("GET", "/b", {}, (), "ListObjects"),
        ("GET", "/b", {"list-type": "2", "prefix": "x"}, (), "ListObjectsV2"),
        ("GET", "/b", {"uploads": ""}, (), "ListMultipartUploads"),
        ("HEAD", "/b", {}, (), "HeadBucket"),
        ("HEAD", "/b/k", {}, (), "HeadObject"),
        ("GET", "/b/k/l", {}, (), "GetObject"),
        ("GET", "/b/k/", {}, (), "GetObject"),
        ("PUT", "/b/k", {}, ("x-amz-copy-source",), "CopyObject"),
        ("PUT", "/b/k", {"partNumber": "1", "uploadId": "u"}, (), "UploadPart"),
        ("POST", "/b/k", {"uploads": ""}, (), "CreateMultipartUpload"),
        ("POST", "/b/k", {"uploadId": "u"}, (), "CompleteMultipartUpload"),
        ("DELETE", "/b/k", {"uploadId": "u"}, (), "AbortMultipartUpload"),
        ("POST", "/b", {"delete": ""}, (), "DeleteObjects"),
        ("PATCH", "/b", {}, (), ""),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_requests_to_s3_have_their_operations_name(
    method: str, path: str, query: dict[str, str], headers: tuple[str, ...], expected: str
) -> None:
    assert rest_operation("s3", method, path, query, frozenset(headers))[0] == expected


def test_a_body_in_chunks_is_read_and_put_back() -> None:
    body = b"Action=DescribeRegions&A.1=b"
    environ = EnvironBuilder(method="POST", input_stream=io.BytesIO(body)).get_environ()
    del environ["CONTENT_LENGTH"]
    environ |= {"wsgi.input_terminated": True}
    environ["HTTP_AUTHORIZATION"] = "AWS4-HMAC-SHA256 Credential=K/20260101/eu-west-1/ec2/aws4_request, S=1"
    call = calls.read(environ)
    assert (call.service, call.action, call.parameters) == ("ec2", "DescribeRegions", {"A.1": "b"})
    assert environ["wsgi.input"].read() == body
