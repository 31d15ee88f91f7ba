"""Calls of EC2 by hand: signed, with parameters that no SDK would send."""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from urllib.parse import quote, urlencode, urlsplit

from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bake.localcloud.settings import SPOT_REGION

from .conftest import Account


def ask(
    account: Account, call: Mapping[str, str], method: str = "POST", *, presigned: bool = False
) -> tuple[int, str, str]:
    """The status of an answer, its error's code ("" without one) and its text."""
    query = urlencode({"Version": "2016-11-15", **call}, quote_via=quote)
    form = {"Content-Type": "application/x-www-form-urlencoded"} if method == "POST" else {}
    url, body = (f"{account.url}/", query) if method == "POST" else (f"{account.url}/?{query}", "")
    request = AWSRequest(method=method, url=url, data=body, headers=form)
    signer = SigV4QueryAuth if presigned else SigV4Auth
    signer(Credentials(account.key, account.secret), "ec2", SPOT_REGION).add_auth(request)
    parts = urlsplit(request.url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    try:
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(method, target, body or None, dict(request.headers.items()))
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    code = re.search(r"<Code>([^<]*)</Code>", text)
    return answer.status, code[1] if code else "", text
