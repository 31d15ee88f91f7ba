"""Read the operation of a verified request, and rewrite the request so that it has one meaning only.

moto works out service and operation by itself, and differently: it takes an `Action` from a queue's message,
a region from the user agent and an account from a header. To let it execute exactly what was authorised,
path, query, operation and scope are written anew here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from bake.localcloud.api.access import s3_actions
from bake.localcloud.api.access.needs import Need
from bake.localcloud.api.access.refusals import Refused
from bake.localcloud.api.access.request import Request, replace_body
from bake.localcloud.api.access.services import TARGETS, VERSIONS, check_operation
from bake.localcloud.api.access.signature import Verified
from bake.localcloud.api.faults import operations
from bake.localcloud.api.faults.errors import AwsError

FORM = "application/x-www-form-urlencoded"
_JSON = {"application/x-amz-json-1.0", "application/x-amz-json-1.1"}
_REST = {"ebs", "scheduler"}
_QUERY = {"autoscaling", "ec2", "iam", "sqs", "sts"}
_BUCKET = r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}"
_S3_PATH = re.compile(rf"/(?:({_BUCKET})(?:/(.*))?)?", re.DOTALL)
_SOURCE = re.compile(rf"/?{_BUCKET}/[^?#;]+(\?versionId=[^&;#]*)?")
_QUEUE_PATH = re.compile(r"/\d{12}/[A-Za-z0-9_-]{1,80}(\.fifo)?")
_AUTH = {"X-Amz-Expires", "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders"}
_AUTH |= {"X-Amz-Signature", "X-Amz-Security-Token", "X-Amz-Content-Sha256"}
_OBJECTS = {"PutObject", "CreateMultipartUpload", "CopyObject"}


@dataclass(frozen=True)
class OperationRequest:
    """One operation: `content` has its parameters, but those of S3, whose `needs` are read from the request.

    `path` is that of the request, which may name a queue.
    """

    service: str
    operation: str
    region: str
    content: Mapping[str, Any] = field(default_factory=dict)
    path: str = "/"
    needs: tuple[Need, ...] = ()


def normalize(environ: dict[str, Any], verified: Verified) -> OperationRequest:
    """Read a verified request for a supported service, and rewrite it. Refused if it is ambiguous."""
    request = Request.of(environ)
    _clean(environ, verified)
    if verified.service == "s3":
        return _s3(environ, request, verified)
    if verified.service in _REST:
        return _rest(environ, request, verified)
    path = request.path
    if path != "/" and not (verified.service == "sqs" and _QUEUE_PATH.fullmatch(path)):
        raise Refused("request", f"nothing is served at {path[:80]}")
    if request.header("content-encoding") or request.header("smithy-protocol"):
        raise Refused("request", "the body must be plain")
    target = request.header("x-amz-target")
    if target is not None:
        return _json(environ, request, verified, target)
    return _form(environ, request, verified)


def _clean(environ: dict[str, Any], verified: Verified) -> None:
    """Remove from the headers what moto would take for a service, an account or a region."""
    for name in [one for one in environ if one.startswith(("HTTP_X_MOTO_", "HTTP_X_AMZ_SECURITY_TOKEN"))]:
        del environ[name]
    environ["HTTP_USER_AGENT"] = environ.get("HTTP_USER_AGENT", "").replace("region/", "region#")
    environ["HTTP_AUTHORIZATION"] = verified.authorization


def _place(environ: dict[str, Any], path: str, query: str) -> None:
    environ["PATH_INFO"] = unquote(path, "latin-1")
    environ["QUERY_STRING"] = query
    environ["RAW_URI"] = environ["REQUEST_URI"] = f"{path}?{query}" if query else path


def _s3(environ: dict[str, Any], request: Request, verified: Verified) -> OperationRequest:
    if "HTTP_X_AMZ_TARGET" in environ:
        raise Refused("request", "S3's operations have no X-Amz-Target")
    found = _S3_PATH.fullmatch(request.path)
    if found is None:
        text = "The specified bucket is not valid."
        raise Refused("request", text, error=AwsError("InvalidBucketName", text))
    bucket, key = found[1] or "", unquote(found[2] or "")
    pairs = [(name, value) for name, value in request.parameters if name not in _AUTH]
    query = dict(pairs)
    operation, _ = operations.rest_operation(
        "s3",
        request.method,
        f"/{bucket}" if not key else f"/{bucket}/key",
        query,
        frozenset(request.header_names()),
    )
    unknown = query.keys() - operations.query_names("s3", operation) - {"x-id"}
    if operation and (unknown or len(query) != len(pairs)):
        text = f"Conflicting query string parameters: {', '.join(sorted(unknown or query))[:200]}"
        raise Refused("request", text, error=AwsError("InvalidArgument", text))
    check_operation("s3", operation)
    if operation not in _OBJECTS:  # moto reads a form as parameters
        environ.pop("CONTENT_TYPE", None)
    headers = {name: request.header(name) or "" for name in request.header_names() if name[:6] == "x-amz-"}
    if not _SOURCE.fullmatch(headers.get("x-amz-copy-source", "/bucket/key")):
        text = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        raise Refused("request", text, error=AwsError("InvalidArgument", text))
    body = verified.body.bytes() if operation in {"CreateBucket", "DeleteObjects"} else b""
    _place(environ, request.path, urlencode(pairs))
    needs = s3_actions.needed(operation, bucket, key, query, headers, body)
    return OperationRequest("s3", operation, verified.region, needs=tuple(needs))


def _rest(environ: dict[str, Any], request: Request, verified: Verified) -> OperationRequest:
    """REST with JSON bodies: method and path are the operation."""
    service = verified.service
    pairs = [(name, value) for name, value in request.parameters if name not in _AUTH]
    query, headers = dict(pairs), frozenset(request.header_names())
    operation, labels = operations.rest_operation(service, request.method, request.path, query, headers)
    check_operation(service, operation)
    if len(query) != len(pairs) or query.keys() - operations.query_names(service, operation):
        raise Refused("request", "its query has what the operation does not know, or the same twice")
    content = _object(verified)
    replace_body(environ, json.dumps(content).encode() if content else b"")
    environ["CONTENT_TYPE"] = "application/json"
    _place(environ, request.path, urlencode(pairs))
    if isinstance(target := content.get("Target"), dict) and not all(
        isinstance(target.get(name), str) for name in ("RoleArn", "Arn")
    ):
        raise Refused("request", "a schedule's target names an Arn and a RoleArn")
    named = {label: unquote(value) for label, value in labels.items()}
    return OperationRequest(service, operation, verified.region, {**query, **content, **named}, request.path)


def _object(verified: Verified) -> dict[str, Any]:
    """The JSON object in a request's body."""
    try:
        content = json.loads(verified.body.bytes() or b"{}")
    except (ValueError, RecursionError) as error:
        raise Refused("request", "the body is not JSON") from error
    if not isinstance(content, dict):
        raise Refused("request", "the body is not a JSON object")
    return content


def _json(environ: dict[str, Any], request: Request, verified: Verified, target: str) -> OperationRequest:
    prefix, _, operation = target.partition(".")
    service = TARGETS.get(prefix, prefix.lower())
    if service != verified.service:
        raise Refused("scope", f"Credential should be scoped to correct service: {service[:40]!a}.")
    check_operation(service, operation)
    if request.method != "POST" or [name for name, _ in request.parameters if name not in _AUTH]:
        raise Refused("request", "its parameters must be in a POST's body")
    content = _object(verified)
    replace_body(environ, json.dumps(content).encode())
    if environ.get("CONTENT_TYPE") not in _JSON:
        environ["CONTENT_TYPE"] = "application/x-amz-json-1.0"
    # moto takes the Action from the query before it looks in the body.
    _place(environ, request.path, urlencode({"Action": operation}))
    return OperationRequest(service, operation, verified.region, content, request.path)


def _form(environ: dict[str, Any], request: Request, verified: Verified) -> OperationRequest:
    service = verified.service
    pairs = [(name, value) for name, value in request.parameters if name not in _AUTH]
    try:
        if request.method == "POST":
            text = verified.body.bytes().decode()
            pairs += parse_qsl(text, keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise Refused("request", "the body is not a form") from error
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise Refused("request", "a parameter occurs twice")
    operation = parameters.get("Action", "")
    meant = VERSIONS.get(parameters.get("Version", ""), service)
    if service not in _QUERY or request.method not in {"GET", "POST"} or not operation:
        raise Refused("lacking", f"{service} without an operation")
    if meant != service:
        raise Refused("scope", f"Credential should be scoped to correct service: {meant!a}.")
    check_operation(service, operation)
    environ["REQUEST_METHOD"] = "POST"
    environ["CONTENT_TYPE"] = f"{FORM}; charset=utf-8"
    replace_body(environ, urlencode(pairs).encode())
    _place(environ, request.path, "")
    return OperationRequest(service, operation, verified.region, parameters, request.path)
