"""What is no signature, or no request at all."""

from __future__ import annotations

import io
import re
import socket
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bake.localcloud.api.access.gateway import Gateway
from bake.localcloud.api.access.keys import Keys, now
from bake.localcloud.api.access.refusals import Refused
from bake.localcloud.api.access.signature import ALGORITHM as V4
from bake.localcloud.api.access.signature import verify

from .conftest import REGION, Cloud
from .signed import FORM, IDENTITY, code, headers_of


def broken(cloud: Cloud, change: Any) -> tuple[int, str]:
    headers = headers_of(cloud, "sts", "POST", "/", IDENTITY, {"Content-Type": FORM})
    headers["Authorization"] = change(headers["Authorization"])
    return code(cloud.send("POST", "/", headers, IDENTITY))


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        pytest.param(lambda text: text.replace("Credential=", "Credentials="), "", id="no credential"),
        pytest.param(lambda text: text.replace("SignedHeaders=", "x="), "", id="no headers"),
        pytest.param(lambda text: text.replace("Signature=", "x="), "", id="no signature"),
        pytest.param(lambda text: text.replace("aws4_request", "aws5_request"), "", id="no scope"),
        pytest.param(lambda text: re.sub(r"/\d{8}/", "/20200101/", text), "", id="another date"),
        pytest.param(lambda text: text + ", Signature=00", "", id="two signatures"),
        pytest.param(lambda text: text.replace("host;", ""), "", id="host is not signed"),
        pytest.param(lambda text: text.replace("host;", "host;host;"), "", id="host twice"),
        pytest.param(lambda text: text.replace("host;", "Host;"), "", id="large letters"),
        pytest.param(lambda text: text.replace(V4, "AWS4-HMAC-SHA512"), "", id="another algorithm"),
        pytest.param(lambda text: text.replace(V4, "AWS4-ECDSA-P256-SHA256"), "", id="version 4A"),
        pytest.param(lambda text: "Bearer abcdefgh", "", id="bearer"),
        pytest.param(lambda text: V4, "", id="nothing behind it"),
        pytest.param(lambda text: text[:-1] + "G", "SignatureDoesNotMatch", id="no hexadecimal digit"),
        pytest.param(lambda text: text[:-1], "SignatureDoesNotMatch", id="too short"),
        pytest.param(
            lambda text: text.replace("host;", "host;x-no;"), "SignatureDoesNotMatch", id="not sent"
        ),
    ],
)
def test_an_authorization_that_is_none(cloud: Cloud, change: Any, answer: str) -> None:
    expected = (403, answer) if answer else (400, "IncompleteSignature")
    assert broken(cloud, change) == expected


def test_an_empty_authorization_is_none(cloud: Cloud) -> None:
    assert broken(cloud, lambda text: "")[0] in {400, 403}


@pytest.mark.parametrize("stamp", ["", "x", "20200101", "20201301T000000Z", "2020-01-01T00:00:00Z"])
def test_a_date_that_is_none(cloud: Cloud, stamp: str) -> None:
    headers = headers_of(cloud, "sts", "POST", "/", IDENTITY, {"Content-Type": FORM})
    headers["X-Amz-Date"] = stamp
    assert code(cloud.send("POST", "/", headers, IDENTITY)) == (400, "IncompleteSignature")


def test_a_date_in_the_header_date(cloud: Cloud) -> None:
    headers = {"Content-Type": FORM, "Date": "now"}  # the signer writes the time there, then
    signed = headers_of(cloud, "sts", "POST", "/", IDENTITY, headers)
    assert "X-Amz-Date" not in signed
    assert cloud.send("POST", "/", signed, IDENTITY)[0] == 200


def raw(cloud: Cloud, *lines: str, body: bytes = b"") -> int:
    """The status of a request whose every byte is given."""
    host, port = cloud.host.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = "\r\n".join([*lines, f"Host: {cloud.host}", "", ""])
        connection.sendall(head.encode("latin-1") + body)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").readline()
    return int(answer.split()[1])


@pytest.mark.parametrize(
    "lines",
    [
        ("POST / HTTP/1.1", "Content-Length: -1"),
        ("POST / HTTP/1.1", "Content-Length: x"),
        ("POST / HTTP/1.1", "Content-Length: 10"),
        ("POST / HTTP/1.1", "Content-Length: 99999999999999"),
        ("POST / HTTP/1.1", "Transfer-Encoding: chunked"),
        ("POST / HTTP/1.1", "Transfer-Encoding: chunked", "Content-Length: 3"),
        ("POST / HTTP/1.1", "Transfer-Encoding: gzip"),
        ("GET /\xff HTTP/1.1",),
        ("GET /a#b HTTP/1.1",),
        ("GET * HTTP/1.1",),
        ("GET /%zz HTTP/1.1",),
        ("GET /?%zz&=&&a=%ff HTTP/1.1",),
    ],
    ids=lambda lines: " ".join(lines),
)
@pytest.mark.parametrize("service", ["sts", "s3", ""])
def test_requests_that_are_none(cloud: Cloud, lines: tuple[str, ...], service: str) -> None:
    scope = f"{cloud.keys.owner.id}/{now():%Y%m%d}/{REGION}/{service}/aws4_request"
    claim = f"Authorization: {V4} Credential={scope}, SignedHeaders=host, Signature={'0' * 64}"
    more = (claim, f"X-Amz-Date: {now():%Y%m%dT%H%M%SZ}") if service else ()
    assert raw(cloud, *lines, *more, body=b"zz\r\n") in {400, 403, 421}


def test_a_body_in_chunks(cloud: Cloud) -> None:
    headers = headers_of(cloud, "sts", "POST", "/", IDENTITY, {"Content-Type": FORM})
    lines = [f"{name}: {value}" for name, value in headers.items()]
    body = f"{len(IDENTITY):x}\r\n".encode() + IDENTITY + b"\r\n0\r\n\r\n"
    assert raw(cloud, "POST / HTTP/1.1", "Transfer-Encoding: chunked", *lines, body=body) == 200


TEXT = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=60)
WORDS = "AWS4-ECDSA-P256-SHA256 AWS Credential= SignedHeaders= Signature= , ; / = host x-amz-date 20260101 s3"
PART = st.sampled_from([V4, *WORDS.split(), "eu-west-1", "ec2", "aws4_request", "0" * 64, " ", "\x00", "é"])
MESS = st.one_of(TEXT, st.lists(st.one_of(PART, TEXT), max_size=14).map("".join))
NAMES = "Algorithm Credential Date Expires SignedHeaders Signature Security-Token"
NAME = st.sampled_from(
    [*(f"X-Amz-{name}" for name in NAMES.split()), "Signature", "AWSAccessKeyId", "Action"]
)
KEYS = Keys()


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    authorization=st.none() | MESS,
    query=st.lists(st.tuples(NAME, MESS), max_size=8),
    date=st.none() | MESS,
    target=st.none() | MESS,
    method=st.sampled_from(["GET", "POST", "PUT", "get", "\x00"]),
    body=st.binary(max_size=40),
    length=st.none() | st.sampled_from(["", "0", "5", "-3", "1e3", "٣"]),
    token=st.none() | MESS,
    good=st.booleans(),
)
def test_no_mess_gets_in_or_breaks_the_door(
    authorization: str | None,
    query: list[tuple[str, str]],
    date: str | None,
    target: str | None,
    method: str,
    body: bytes,
    length: str | None,
    token: str | None,
    good: bool,
) -> None:
    """Whatever is sent, and however near to right: it is refused, and nothing else is raised."""

    def never(environ: Any, start_response: Any) -> Any:
        raise AssertionError("let in")

    text = urlencode(query, encoding="latin-1")
    if good:  # a scope that holds, around the mess
        scope = f"{KEYS.owner.id}/{now():%Y%m%d}/{REGION}/s3/aws4_request"
        headers = "host;" + (date or "x-amz-date")
        authorization = f"{V4} Credential={scope}, SignedHeaders={headers}, Signature={'0' * 64}"
        date = f"{now():%Y%m%dT%H%M%SZ}"
    given_headers = {
        "HTTP_AUTHORIZATION": authorization,
        "HTTP_X_AMZ_DATE": date,
        "HTTP_X_AMZ_TARGET": target,
        "HTTP_X_AMZ_SECURITY_TOKEN": token,
        "CONTENT_LENGTH": length,
    }
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": "/",
        "RAW_URI": f"/?{text}",
        "QUERY_STRING": text,
        "HTTP_HOST": "127.0.0.1",
        "wsgi.input": io.BytesIO(body),
        **{name: value for name, value in given_headers.items() if value is not None},
    }
    with pytest.raises(Refused):
        verify(dict(environ), KEYS, now())
    told: list[str] = []
    environ["wsgi.input"] = io.BytesIO(body)
    b"".join(Gateway(never, KEYS)(environ, lambda status, headers, *_: told.append(status)))
    assert told[0].startswith("4")
