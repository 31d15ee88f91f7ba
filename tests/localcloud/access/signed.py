"""Requests by hand, signed by botocore and then changed."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any
from urllib.parse import urlencode

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bake.localcloud.api.access.keys import Key

from .conftest import REGION, Cloud

FORM = "application/x-www-form-urlencoded"
IDENTITY = b"Action=GetCallerIdentity&Version=2011-06-15"


def headers_of(
    cloud: Cloud,
    service: str,
    method: str,
    target: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    key: Key | None = None,
    region: str = REGION,
) -> dict[str, str]:
    """The headers of a signed request; `target` is written as it goes over the wire."""
    key = key or cloud.keys.owner
    request = AWSRequest(method=method, url=cloud.url + target, data=body, headers=dict(headers or {}))
    if service == "s3":
        request.headers["x-amz-content-sha256"] = hashlib.sha256(body).hexdigest()
    kind: Any = S3SigV4Auth if service == "s3" else SigV4Auth
    kind(Credentials(key.id, key.secret, key.token or None), service, region).add_auth(request)
    return dict(request.headers.items())


Answer = tuple[int, str]


def send(cloud: Cloud, service: str, method: str, target: str, body: bytes = b"", **more: Any) -> Answer:
    status, content = cloud.send(
        method, target, headers_of(cloud, service, method, target, body, **more), body
    )
    return status, content.decode()


def form(cloud: Cloud, service: str, pairs: list[tuple[str, str]], **more: Any) -> Answer:
    """A call of the query protocol."""
    body = urlencode(pairs).encode()
    return send(cloud, service, "POST", "/", body, headers={"Content-Type": FORM}, **more)


def ask(cloud: Cloud, service: str, target: str, content: Any, path: str = "/", **more: Any) -> Answer:
    """A call of a JSON service."""
    headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": target}
    return send(cloud, service, "POST", path, json.dumps(content).encode(), headers=headers, **more)


def code(answer: tuple[int, Any]) -> Answer:
    """The status of an answer, and the code of the error in its XML."""
    status, content = answer
    found = re.search(r"<Code>(\w+)</Code>", content if isinstance(content, str) else content.decode())
    return status, found[1] if found else ""
