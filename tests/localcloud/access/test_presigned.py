"""Presigned URLs, and signatures of version 2."""

from __future__ import annotations

import dataclasses
import re
from datetime import timedelta
from typing import Any

import pytest
from botocore.auth import HmacV1QueryAuth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bake.localcloud.api.access.signature import ALGORITHM as V4

from .conftest import REGION, Cloud
from .signed import FORM, IDENTITY, code


def test_a_presigned_get_and_put(cloud: Cloud, bucket: str) -> None:
    url = cloud.presigned("put_object", Bucket=bucket, Key="put")
    assert cloud.send("PUT", url, body=b"x" * 100_000)[0] == 200
    assert cloud.send("GET", cloud.presigned("get_object", Bucket=bucket, Key="put")) == (200, b"x" * 100_000)


def test_a_presigned_url_of_an_instance(cloud: Cloud, bucket: str) -> None:
    session = cloud.session()
    url = cloud.presigned("get_object", session, Bucket=bucket, Key="key")
    assert "X-Amz-Security-Token" in url
    assert cloud.send("GET", url) == (200, b"content")
    token = re.search(r"&X-Amz-Security-Token=[^&]*", url)
    assert token is not None
    assert code(cloud.send("GET", url.replace(token[0], ""))) == (400, "InvalidToken")
    other = cloud.presigned("get_object", dataclasses.replace(session, token="x"), Bucket=bucket, Key="key")
    assert code(cloud.send("GET", other)) == (400, "InvalidToken")


def test_a_session_token_that_is_not_signed(cloud: Cloud, bucket: str) -> None:
    session = cloud.session()
    bare = cloud.presigned("get_object", dataclasses.replace(session, token=""), Bucket=bucket, Key="key")
    right, wrong = ({"X-Amz-Security-Token": token} for token in (session.token, "x"))
    assert cloud.send("GET", bare, right) == (200, b"content")
    assert code(cloud.send("GET", bare, wrong)) == (400, "InvalidToken")


def test_a_presigned_url_after_its_time(cloud: Cloud, bucket: str) -> None:
    url = cloud.presigned("get_object", seconds=60, Bucket=bucket, Key="key")
    cloud.clock.moved = timedelta(seconds=50)
    assert cloud.send("GET", url)[0] == 200
    cloud.clock.moved = timedelta(seconds=62)
    status, content = cloud.send("GET", url)
    assert code((status, content)) == (403, "AccessDenied")
    assert b"Request has expired" in content


@pytest.mark.parametrize(
    ("old", "new", "answer"),
    [
        pytest.param("/key?", "/other?", (403, "SignatureDoesNotMatch"), id="key"),
        pytest.param("X-Amz-Expires=3600", "X-Amz-Expires=36000", (403, "SignatureDoesNotMatch"), id="time"),
        pytest.param("X-Amz-Expires=3600", "X-Amz-Expires=604801", (400,), id="more than a week"),
        pytest.param("X-Amz-Expires=3600", "X-Amz-Expires=-1", (400,), id="negative"),
        pytest.param("X-Amz-Expires=3600", "X-Amz-Expires=", (400,), id="none"),
        pytest.param("&X-Amz-SignedHeaders=host", "", (400,), id="no headers"),
        pytest.param("&X-Amz-Signature=", "&X-Amz-Signature=0", (403, "SignatureDoesNotMatch"), id="longer"),
        pytest.param("&X-Amz-Signature=", "&x=y&X-Amz-Signature=", (403, "SignatureDoesNotMatch"), id="more"),
        pytest.param("X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Algorithm=AWS4-HMAC-SHA1", (400,), id="sha1"),
        pytest.param("&X-Amz-Date=", "&X-Amz-Date=20200101T000000Z&X-Amz-Date=", (400,), id="two dates"),
        pytest.param(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256",
            "X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256",
            (400, "InvalidRequest"),
            id="version 4A",
        ),
    ],
)
def test_a_presigned_url_that_was_changed(
    cloud: Cloud, bucket: str, old: str, new: str, answer: tuple[Any, ...]
) -> None:
    url = cloud.presigned("get_object", Bucket=bucket, Key="key")
    assert url.count(old) == 1
    malformed = "AuthorizationQueryParametersError"
    assert code(cloud.send("GET", url.replace(old, new))) == (answer if answer[1:] else (400, malformed))


def test_a_presigned_url_for_another_method(cloud: Cloud, bucket: str) -> None:
    url = cloud.presigned("get_object", Bucket=bucket, Key="key")
    for method in ("PUT", "DELETE", "HEAD"):
        assert cloud.send(method, url)[0] == 403


def test_a_presigned_url_takes_no_header_of_awss_that_is_not_signed(cloud: Cloud, bucket: str) -> None:
    url = cloud.presigned("put_object", Bucket=bucket, Key="copy")
    answer = cloud.send("PUT", url, {"x-amz-copy-source": f"{bucket}/key"})
    assert code(answer) == (403, "AccessDenied")
    assert b"headers present in the request which were not signed" in answer[1]


def test_a_presigned_url_with_an_authorization_beside_it(cloud: Cloud, bucket: str) -> None:
    url = cloud.presigned("get_object", Bucket=bucket, Key="key")
    for value in ("x", f"{V4} Credential=a, SignedHeaders=host, Signature=b"):
        assert code(cloud.send("GET", url, {"Authorization": value})) == (400, "InvalidArgument")


def presigned_identity(cloud: Cloud, query: bytes = IDENTITY) -> str:
    key = cloud.keys.owner
    request = AWSRequest("GET", f"{cloud.url}/?{query.decode()}")
    SigV4QueryAuth(Credentials(key.id, key.secret), "sts", REGION, 60).add_auth(request)
    return str(request.url)


def test_a_presigned_call_of_the_query_protocol(cloud: Cloud) -> None:
    url = presigned_identity(cloud)
    assert cloud.send("GET", url)[0] == 200
    assert code(cloud.send("POST", url, {"Content-Type": FORM}, b"Action=AssumeRole")) == (
        403,
        "SignatureDoesNotMatch",
    )
    cloud.clock.moved = timedelta(seconds=62)
    status, content = cloud.send("GET", url)
    assert code((status, content)) == (403, "SignatureDoesNotMatch")
    assert b"Signature expired: " in content


def test_version_2_is_refused(cloud: Cloud, bucket: str) -> None:
    key = cloud.keys.owner
    request = AWSRequest("GET", f"{cloud.url}/{bucket}/key")
    HmacV1QueryAuth(Credentials(key.id, key.secret)).add_auth(request)
    assert "AWSAccessKeyId=" in request.url
    for url, headers in ((request.url, {}), (f"/{bucket}/key", {"Authorization": f"AWS {key.id}:abc="})):
        status, content = cloud.send("GET", url, headers)
        assert code((status, content)) == (400, "InvalidRequest")
        assert b"The authorization mechanism you have provided is not supported. Please use " in content
