"""Read the AWS call of an HTTP request: service, operation, parameters, and the protocol of its answer."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl

from bake.localcloud.api.faults import operations

Caller = Literal["host", "guests"]
Protocol = Literal["ec2", "query", "json", "cbor", "rest-json", "rest-xml", "s3"]

_BLOCK = 1 << 20
# KEY/DATE/REGION/SERVICE/aws4_request; version 4A has no region.
_SCOPE = re.compile(r"[^\s=,]+/([^/,\s]+)/aws4_request")
_CBOR_PATH = re.compile(r"/service/[^/]+/operation/([^/]+)")


@dataclass(frozen=True)
class Call:
    """One AWS call. `service` is the signing name, `action` the operation ("" where it is not known).

    `parameters` are flat: `Tag.1.Key` as EC2 writes it, and lists in JSON in the same way.
    """

    service: str
    action: str
    protocol: Protocol
    parameters: Mapping[str, str]
    caller: Caller = "host"

    @property
    def dry(self) -> bool:
        """Whether it only asks if it would be allowed."""
        return self.parameters.get("DryRun", "").lower() == "true"

    def has(self, text: str) -> bool:
        """Whether `text` is a part of a parameter, written `Name=value`."""
        return any(text in f"{name}={value}" for name, value in self.parameters.items())


def read(environ: dict[str, Any], caller: Caller = "host") -> Call:
    """The call of a WSGI request. The body is put back for the application; that of S3 is not read at all."""
    query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
    service = _service(environ, query)
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if service == "s3" and not target:
        return _rest(environ, service, query, "", caller)
    body = _body(environ)
    if target:
        return Call(service, target.rpartition(".")[2], "json", _json(body), caller)
    if "HTTP_SMITHY_PROTOCOL" in environ and (named := _CBOR_PATH.search(environ.get("PATH_INFO", ""))):
        return Call(service, named[1], "cbor", {"body": body}, caller)
    form = query if "Action" in query else dict(parse_qsl(body, keep_blank_values=True))
    if "Action" in form:
        service = service or "sts"  # the only one of these services that takes unsigned calls
        return Call(service, form.pop("Action"), "ec2" if service == "ec2" else "query", form, caller)
    return _rest(environ, service or "s3", query, body, caller)


def drain(environ: dict[str, Any]) -> None:
    """Read the rest of the body: a client that is answered before it has sent all may miss the answer."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if not length and not environ.get("wsgi.input_terminated"):
        return
    while block := environ["wsgi.input"].read(min(_BLOCK, length) if length else _BLOCK):
        length -= len(block)
        if length == 0:
            return


def _service(environ: Mapping[str, Any], query: Mapping[str, str]) -> str:
    """The service that the signature names, in the header or in a presigned URL; "" without a signature."""
    authorization = environ.get("HTTP_AUTHORIZATION", "")
    if found := _SCOPE.search(authorization) or _SCOPE.search(query.get("X-Amz-Credential", "")):
        return found[1].lower()
    # Version 2 signatures name no service; S3 is the last service that accepts them.
    return "s3" if authorization.startswith("AWS ") or "AWSAccessKeyId" in query else ""


def _body(environ: dict[str, Any]) -> str:
    """The body as text, put back."""
    stream = environ["wsgi.input"]
    if environ.get("CONTENT_LENGTH"):
        body = stream.read(int(environ["CONTENT_LENGTH"]))
    else:
        body = stream.read() if environ.get("wsgi.input_terminated") else b""
        environ["CONTENT_LENGTH"] = str(len(body))
    environ["wsgi.input"] = io.BytesIO(body)
    return body.decode(errors="replace")  # type: ignore[no-any-return]


def _rest(
    environ: Mapping[str, Any], service: str, query: Mapping[str, str], body: str, caller: Caller
) -> Call:
    path = environ.get("PATH_INFO", "/").encode("latin-1").decode(errors="replace")
    headers = frozenset(
        name[len("HTTP_") :].lower().replace("_", "-") for name in environ if name.startswith("HTTP_")
    )
    method = environ["REQUEST_METHOD"]
    action, labels = operations.rest_operation(service, method, path, query, headers)
    parameters = {**query, **labels, **(_json(body) if body else {})}
    if service == "s3":
        return Call(service, action, "s3", parameters, caller)
    protocol: Protocol = "rest-xml" if operations.protocol_of(service) == "rest-xml" else "rest-json"
    return Call(service, action, protocol, parameters, caller)


def _json(body: str) -> dict[str, str]:
    """JSON as flat parameters; any other text is one parameter, so that `match` still sees it."""
    try:
        return dict(_flat("", json.loads(body or "{}")))
    except ValueError:
        return {"body": body}


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value, 1)
        for key, inner in items:
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    else:
        yield name, value if isinstance(value, str) else json.dumps(value)
