"""Let calls of some clients fail, before or after the cloud has done what they ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.sax.saxutils import escape

from botocore.awsrequest import AWSResponse

REFUSAL = "<Response><Errors><Error><Code>{}</Code><Message>{}</Message></Error></Errors></Response>"


class _Raw:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._content


@contextmanager
def refused(client: Any, operation: str, code: str, *, times: int = 1) -> Iterator[list[Any]]:
    """The next calls of an operation of EC2 are answered with an error; yields the requests."""
    seen: list[Any] = []

    def answer(request: Any, **_: Any) -> AWSResponse | None:
        if len(seen) >= times:
            return None
        seen.append(request)
        text = REFUSAL.format(escape(code), "refused by a test").encode()
        return AWSResponse(request.url, 400, {"Content-Type": "text/xml"}, _Raw(text))

    name = f"before-send.{client.meta.service_model.service_name}.{operation}"
    client.meta.events.register_first(name, answer)
    try:
        yield seen
    finally:
        client.meta.events.unregister(name, answer)


@contextmanager
def answer_lost(client: Any, operation: str) -> Iterator[list[Any]]:
    """The next call is made, and its answer does not arrive."""
    lost: list[Any] = []

    name = f"response-received.{client.meta.service_model.service_name}.{operation}"

    def received(parsed_response: Any, **_: Any) -> None:
        if parsed_response is not None and not lost:
            lost.append(dict(parsed_response))
            parsed_response.clear()
            parsed_response["Error"] = {"Code": "InternalError", "Message": "the answer was lost"}
            parsed_response["ResponseMetadata"] = {"HTTPStatusCode": 500}

    client.meta.events.register(name, received)
    try:
        yield lost
    finally:
        client.meta.events.unregister(name, received)
