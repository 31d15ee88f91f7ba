"""What was changed after it was signed."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from .conftest import REGION, Cloud
from .signed import FORM, IDENTITY, code, headers_of, send


def test_a_body_that_was_changed(cloud: Cloud, bucket: str) -> None:
    headers = headers_of(cloud, "s3", "PUT", f"/{bucket}/changed", b"one")
    assert code(cloud.send("PUT", f"/{bucket}/changed", headers, b"two")) == (
        400,
        "XAmzContentSHA256Mismatch",
    )
    headers = headers_of(cloud, "sts", "POST", "/", IDENTITY, {"Content-Type": FORM})
    answer = cloud.send("POST", "/", headers, IDENTITY + b"&x=y")
    assert code(answer) == (403, "SignatureDoesNotMatch")


def test_a_hash_that_is_not_the_bodys(cloud: Cloud) -> None:
    other = hashlib.sha256(b"other").hexdigest()
    headers = {"Content-Type": FORM, "X-Amz-Content-SHA256": other}
    assert send(cloud, "sts", "POST", "/", IDENTITY, headers=headers)[0] == 403


@pytest.mark.parametrize("unsigned", ["UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"])
def test_only_s3_leaves_the_body_out(cloud: Cloud, unsigned: str) -> None:
    headers = {"Content-Type": FORM, "X-Amz-Content-SHA256": unsigned}
    assert send(cloud, "sts", "POST", "/", IDENTITY, headers=headers)[0] == 403


def s3_headers(cloud: Cloud, target: str, sha256: str | None, **headers: str) -> dict[str, str]:
    """Signed by the plain signer, which takes the hash that it is given."""

    class Told(S3SigV4Auth):
        def payload(self, request: Any) -> str:
            return sha256 or ""

    key = cloud.keys.owner
    request = AWSRequest("PUT", cloud.url + target, headers)
    Told(Credentials(key.id, key.secret), "s3", REGION).add_auth(request)
    return dict(request.headers.items())


def test_an_unsigned_payload_of_s3(cloud: Cloud, bucket: str) -> None:
    target = f"/{bucket}/unsigned"
    assert cloud.send("PUT", target, s3_headers(cloud, target, "UNSIGNED-PAYLOAD"), b"any")[0] == 200


def test_chunks_with_a_trailer(cloud: Cloud, bucket: str) -> None:
    target = f"/{bucket}/chunks"
    more = {"Content-Encoding": "aws-chunked", "X-Amz-Decoded-Content-Length": "5"}
    more["X-Amz-Trailer"] = "x-amz-checksum-crc32"
    headers = s3_headers(cloud, target, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", **more)
    body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
    assert cloud.send("PUT", target, headers, body)[0] == 200
    assert cloud.client("s3").get_object(Bucket=bucket, Key="chunks")["Body"].read() == b"hello"


@pytest.mark.parametrize(
    ("sha256", "answer"),
    [
        ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", (400, "NotImplemented")),
        ("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", (400, "NotImplemented")),
        ("0", (400, "InvalidArgument")),
        ("", (400, "InvalidArgument")),
    ],
)
def test_payloads_that_are_not_taken(cloud: Cloud, bucket: str, sha256: str, answer: tuple[int, str]) -> None:
    target = f"/{bucket}/refused"
    assert code(cloud.send("PUT", target, s3_headers(cloud, target, sha256), b"any")) == answer


def test_a_payload_that_is_not_told(cloud: Cloud, bucket: str) -> None:
    key = cloud.keys.owner
    request = AWSRequest("GET", f"{cloud.url}/{bucket}/key")
    SigV4Auth(Credentials(key.id, key.secret), "s3", REGION).add_auth(request)
    headers = dict(request.headers.items())
    assert code(cloud.send("GET", f"/{bucket}/key", headers)) == (400, "InvalidRequest")


@pytest.mark.parametrize(
    ("name", "value"),
    [("Content-Type", "text/plain"), ("X-Amz-Meta-A", "changed"), ("X-Amz-Meta-A", None), ("Host", "{}")],
)
def test_a_header_that_was_changed(cloud: Cloud, bucket: str, name: str, value: str | None) -> None:
    target = f"/{bucket}/headers"
    more = {"X-Amz-Meta-A": "a", "Content-Type": "image/png"}
    headers = headers_of(cloud, "s3", "PUT", target, b"x", more)
    if value is None:
        del headers[name]
    else:
        headers[name] = value.format(cloud.host.split(":")[0])
    assert code(cloud.send("PUT", target, headers, b"x")) == (403, "SignatureDoesNotMatch")


def test_headers_are_signed_as_they_are(cloud: Cloud, bucket: str) -> None:
    target = f"/{bucket}/headers"
    more = {"X-Amz-Meta-A": "  a   b ", "X-Amz-Meta-my_key": "c", "X-Amz-Meta-Empty": ""}
    assert send(cloud, "s3", "PUT", target, b"x", headers=more)[0] == 200
    assert cloud.client("s3").head_object(Bucket=bucket, Key="headers")["Metadata"]["my_key"] == "c"


def test_a_header_of_awss_that_is_not_signed(cloud: Cloud, bucket: str) -> None:
    headers = headers_of(cloud, "s3", "PUT", f"/{bucket}/grant", b"x") | {"x-amz-acl": "public-read"}
    assert code(cloud.send("PUT", f"/{bucket}/grant", headers, b"x")) == (403, "AccessDenied")


def test_another_query(cloud: Cloud, bucket: str) -> None:
    headers = headers_of(cloud, "s3", "GET", f"/{bucket}?prefix=a")
    assert code(cloud.send("GET", f"/{bucket}?prefix=b", headers)) == (403, "SignatureDoesNotMatch")


def test_a_scope_of_another_service_or_region(cloud: Cloud) -> None:
    headers = headers_of(cloud, "sts", "POST", "/", IDENTITY, {"Content-Type": FORM})
    for old, new in (("/sts/", "/iam/"), (f"/{REGION}/", "/us-east-1/")):
        changed = {**headers, "Authorization": headers["Authorization"].replace(old, new)}
        assert code(cloud.send("POST", "/", changed, IDENTITY)) == (403, "SignatureDoesNotMatch")
