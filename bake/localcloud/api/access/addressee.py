"""Find the service that a refused request is for, so that the error is written as that service writes it."""

from __future__ import annotations

import io
import re
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

from bake.localcloud.api.access.services import TARGETS, VERSIONS
from bake.localcloud.api.faults import operations
from bake.localcloud.api.faults.calls import Call

_SCOPE = re.compile(r"/(?P<service>[a-z0-9-]{1,40})/aws4_request")
_FORM = 1 << 16  # bytes of an unsigned form that are read to find its service
_PROTOCOLS: set[str] = {"ec2", "query", "json", "rest-json", "rest-xml"}


def addressee(environ: dict[str, Any]) -> Call:
    """Guess the service of a refused request and the protocol in which it writes errors."""
    query = environ.get("QUERY_STRING", "")
    scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", "")) or _SCOPE.search(query.replace("%2F", "/"))
    service = scope["service"] if scope else ""
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        prefix = target.partition(".")[0]
        return Call(service or TARGETS.get(prefix, prefix[:40].lower()), "", "json", {})
    service = service or VERSIONS.get(_version(environ), "s3")
    if "HTTP_SMITHY_PROTOCOL" in environ:
        return Call(service, "", "cbor", {})
    if service in {"s3", "ec2"}:
        return Call(service, "", "s3" if service == "s3" else "ec2", {})
    # SQS also takes forms (the query protocol).
    spoken = "query" if service in VERSIONS.values() else operations.protocol_of(service)
    return Call(service, "", spoken if spoken in _PROTOCOLS else "json", {})  # type: ignore[arg-type]


def _version(environ: dict[str, Any]) -> str:
    """The parameter Version of the query protocol, in the query or in a short form."""
    text = environ.get("QUERY_STRING", "")
    length = str(environ.get("CONTENT_LENGTH") or "")
    if "x-www-form-urlencoded" in environ.get("CONTENT_TYPE", "") and re.fullmatch(r"\d{1,5}", length):
        with suppress(OSError):
            body = environ["wsgi.input"].read(min(int(length), _FORM))
            environ["wsgi.input"] = io.BytesIO(body)
            text += f"&{body.decode(errors='replace')}"
    with suppress(ValueError):  # too many fields
        return str(parse_qs(text).get("Version", [""])[-1])
    return ""
