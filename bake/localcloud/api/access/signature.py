"""Verify AWS's signature version 4, in a header or in a presigned URL, by botocore's own canonicalisation.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, NoReturn
from urllib.parse import quote, unquote_to_bytes

from botocore.auth import SIGV4_TIMESTAMP, S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

from bake.localcloud.api.access.keys import Key, Keys
from bake.localcloud.api.access.refusals import Refused
from bake.localcloud.api.access.request import Body, Request, read_body
from bake.localcloud.api.faults.errors import AwsError

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW = timedelta(minutes=15)
WEEK = 604800
# The values by which S3 clients say that the signature leaves the body out.
UNSIGNED = "UNSIGNED-PAYLOAD"
TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
IN_QUERY = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Signature")
# S3 refuses any other unsigned x-amz- header.
_FREE = {"x-amz-security-token", "x-amz-content-sha256"}
_HEX = re.compile(r"[0-9a-f]{64}")
_SCOPE = re.compile(r"([A-Za-z0-9]{1,128})/(\d{8})/([a-z0-9-]{1,40})/([a-z0-9-]{1,40})/aws4_request")
_STAMP = re.compile(r"\d{8}T\d{6}Z")
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")


@dataclass(frozen=True)
class Claim:
    """The signature that a request carries; `expires` is a presigned URL's time to live in seconds."""

    key_id: str
    date: str
    region: str
    service: str
    stamp: str
    headers: tuple[str, ...]
    signature: str
    expires: int | None = None

    @property
    def time(self) -> datetime:
        """When it was signed."""
        return datetime.strptime(self.stamp, SIGV4_TIMESTAMP).replace(tzinfo=UTC)

    @property
    def presigned(self) -> bool:
        return self.expires is not None


@dataclass(frozen=True)
class Verified:
    """A verified signature: its key, service and region."""

    key: Key
    service: str
    region: str
    body: Body
    stamp: str

    @property
    def authorization(self) -> str:
        """An Authorization header that names the key and the scope."""
        scope = f"{self.key.id}/{self.stamp[:8]}/{self.region}/{self.service}/aws4_request"
        return f"{ALGORITHM} Credential={scope}, SignedHeaders=host, Signature={'0' * 64}"


def verify(environ: dict[str, Any], keys: Keys, at: datetime) -> Verified:
    """Verify a request's signature; the body is read and put back. Refused if it does not match.

    A body whose hash is signed is read after the signature was found right.
    """
    request = Request.of(environ)
    claim = read_claim(request)
    key = keys.find(claim.key_id)
    if key is None:
        raise Refused("unknown")
    _check_token(request, key)
    _check_time(claim, at)
    if key.expired(at):
        raise Refused("expired")
    _check_headers(request, claim)
    body = None if claim.service == "s3" else read_body(environ)
    payload = body.sha256 if body is not None else _s3_payload(request, claim)
    expected = _signature(request, claim, key, payload)
    if not hmac.compare_digest(expected, claim.signature):
        raise Refused("wrong")
    told = request.header("x-amz-content-sha256")
    if body is None:
        body = read_body(environ, None)
        told = payload
    if told is not None and _HEX.fullmatch(told) and told != body.sha256:
        raise Refused("body")
    return Verified(key, claim.service, claim.region, body, claim.stamp)


def read_claim(request: Request) -> Claim:
    """The signature that a request carries. Refused if it has none, two, or one of another version."""
    authorization = request.header("authorization")
    query = request.parameters
    named = {name for name, _ in query}
    presigned = any(name in named for name in IN_QUERY)
    if authorization is not None and (presigned or "Signature" in named):
        text = "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query "
        text += "string parameter or the Authorization header should be specified"
        raise Refused("malformed", text, error=AwsError("InvalidArgument", text))
    if authorization is not None:
        return _of_header(request, authorization.strip())
    if presigned:
        return _of_query(query)
    if {"AWSAccessKeyId", "Signature"} & named:
        raise Refused("legacy")
    raise Refused("unsigned")


def _of_header(request: Request, text: str) -> Claim:
    algorithm, _, rest = text.partition(" ")
    if algorithm in {"AWS", "AWS3-HTTPS"} or algorithm.startswith("AWS4-ECDSA"):
        raise Refused("legacy")
    if algorithm != ALGORITHM:
        raise Refused("malformed", f"the authorization type {algorithm[:40]!a} is not supported")
    parts: dict[str, str] = {}
    for part in rest.split(","):
        name, _, value = part.strip().partition("=")
        if name in parts:
            raise Refused("malformed", f"there are two {name[:40]!a}")
        parts[name] = value
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not parts.get(name):
            raise Refused("malformed", f"Authorization header requires '{name}' parameter.")
    return _claim(parts["Credential"], parts["SignedHeaders"], parts["Signature"], _stamp(request))


def _of_query(query: list[tuple[str, str]]) -> Claim:
    found: dict[str, str] = {}
    for name, value in query:
        if name.startswith("X-Amz-") and name in found:
            _bad_query(f"there are two {name[:40]!a}")
        found[name] = value
    for name in (*IN_QUERY, "X-Amz-Expires"):
        if not found.get(name):
            _bad_query(f"AWS query-string parameters must include '{name}'.")
    algorithm, expires = found["X-Amz-Algorithm"], found["X-Amz-Expires"]
    if algorithm.startswith("AWS4-ECDSA"):
        raise Refused("legacy")
    if algorithm != ALGORITHM:
        _bad_query(f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    if not re.fullmatch(r"[0-9]{1,9}", expires):
        _bad_query("X-Amz-Expires should be a number")
    if int(expires) > WEEK:
        _bad_query(f"X-Amz-Expires must be less than a week (in seconds); that is, less than {WEEK}")
    return _claim(
        found["X-Amz-Credential"],
        found["X-Amz-SignedHeaders"],
        found["X-Amz-Signature"],
        found["X-Amz-Date"],
        int(expires),
    )


def _bad_query(text: str) -> NoReturn:
    raise Refused("malformed", text, error=AwsError("AuthorizationQueryParametersError", text))


def _claim(credential: str, headers: str, signature: str, stamp: str, expires: int | None = None) -> Claim:
    scope = _SCOPE.fullmatch(credential)
    if scope is None:
        raise Refused("malformed", "the Credential must be KEY/YYYYMMDD/REGION/SERVICE/aws4_request")
    try:
        time = _STAMP.fullmatch(stamp) and datetime.strptime(stamp, SIGV4_TIMESTAMP)
    except ValueError:
        time = None
    if not time:
        raise Refused("malformed", "the date must be in ISO8601's basic format, YYYYMMDDTHHMMSSZ")
    key_id, date, region, service = scope.groups()
    if date != stamp[:8]:
        raise Refused("malformed", f"Date in Credential scope does not match the request's: {date}, {stamp}")
    if region not in regions():
        raise Refused("malformed", f"there is no region {region!a}")
    names = tuple(headers.split(";"))
    if len(set(names)) != len(names) or not all(map(_HEADER_NAME.fullmatch, names)):
        raise Refused("malformed", "the SignedHeaders must be names in small letters, each once")
    if not _HEX.fullmatch(signature):
        raise Refused("wrong")
    return Claim(key_id, date, region, service, stamp, names, signature, expires)


def _stamp(request: Request) -> str:
    """The request's time: the header X-Amz-Date, or else Date."""
    stamp = request.header("x-amz-date")
    date = request.header("date")
    if stamp is not None or date is None:
        return stamp or ""
    if _STAMP.fullmatch(date):
        return date
    try:
        return parsedate_to_datetime(date).astimezone(UTC).strftime(SIGV4_TIMESTAMP)
    except (ValueError, TypeError, OverflowError):
        return ""


@cache
def regions() -> frozenset[str]:
    """The AWS regions that botocore knows."""
    from botocore.loaders import create_loader

    partitions = create_loader().load_data("endpoints")["partitions"]
    return frozenset(region for partition in partitions for region in partition["regions"])


def _check_token(request: Request, key: Key) -> None:
    told = [value for name, value in request.parameters if name == "X-Amz-Security-Token"]
    header = request.header("x-amz-security-token")
    told += [] if header is None else [header]
    if not told and not key.token:
        return
    if not told or not all(hmac.compare_digest(one.encode(), key.token.encode()) for one in told):
        raise Refused("token")


def _check_time(claim: Claim, at: datetime) -> None:
    stamp, here = claim.stamp, at.strftime(SIGV4_TIMESTAMP)
    if claim.time - SKEW > at:
        latest = (at + SKEW).strftime(SIGV4_TIMESTAMP)
        text = f"Signature not yet current: {stamp} is still later than {latest} ({here} + 15 min.)"
        error = AwsError("AccessDenied", "Request is not valid yet", 403) if claim.presigned else None
        raise Refused("skewed", text, error=error)
    lasting = SKEW if claim.expires is None else timedelta(seconds=claim.expires)
    if claim.time + lasting < at:
        kind, last = ("skewed", "15 min.") if claim.expires is None else ("late", f"{claim.expires} s")
        earliest = (at - lasting).strftime(SIGV4_TIMESTAMP)
        text = f"Signature expired: {stamp} is now earlier than {earliest} ({here} - {last})"
        raise Refused(kind, text)  # type: ignore[arg-type]


def _check_headers(request: Request, claim: Claim) -> None:
    signed = set(claim.headers)
    needed = {"host"} | ({"x-amz-target"} & request.header_names())
    for name in sorted(needed - signed):
        shown = "'Host' or ':authority'" if name == "host" else f"'{name}'"
        text = f"{shown} must be a 'SignedHeader' in the AWS Authorization."
        raise Refused("malformed", text, error=AwsError("AccessDenied", text, 403))
    if any(request.header(name) is None for name in signed):
        raise Refused("wrong")
    if claim.service == "s3":
        sent = {name for name in request.header_names() if name.startswith("x-amz-")}
        if sent - {name.replace("_", "-") for name in signed} - _FREE - {"x-amz-date"}:
            text = "There were headers present in the request which were not signed"
            raise Refused("wrong", error=AwsError("AccessDenied", text, 403))


def _s3_payload(request: Request, claim: Claim) -> str:
    """The payload hash in S3's signature, or the value that leaves the body out."""
    told = request.header("x-amz-content-sha256")
    if claim.presigned and "x-amz-content-sha256" not in claim.headers:
        return UNSIGNED
    if told is None:
        text = "Missing required header for this request: x-amz-content-sha256"
        raise Refused("malformed", text, error=AwsError("InvalidRequest", text))
    if told.startswith("STREAMING-") and told != TRAILER:
        text = f"chunks that are signed one by one ({told[:60]}); sign the body's hash, or {UNSIGNED}"
        raise Refused("lacking", text)
    if told not in {UNSIGNED, TRAILER} and not _HEX.fullmatch(told):
        text = f"x-amz-content-sha256 must be {UNSIGNED}, {TRAILER}, or a valid sha256 value."
        raise Refused("malformed", text, error=AwsError("InvalidArgument", text))
    return told


def _signature(request: Request, claim: Claim, key: Key, payload: str) -> str:
    """The signature of this request when signed with this key."""
    headers = {name: request.header(name) or "" for name in claim.headers}
    # botocore takes the hash from this header, which is signed only if `claim.headers` name it.
    sent = AWSRequest(
        method=request.method,
        url=f"http://host{request.path}?{_canonical_query(request.query)}",
        headers={**headers, "x-amz-content-sha256": payload},
    )
    sent.context["timestamp"] = claim.stamp
    kind = _ClaimedS3 if claim.service == "s3" else _Claimed
    signer: Any = kind(Credentials(key.id, key.secret), claim.service, claim.region)
    signer.claimed = headers
    return str(signer.signature(signer.string_to_sign(sent, signer.canonical_request(sent)), sent))


def _canonical_query(query: str) -> str:
    """The query as the signature encodes it, without the signature itself; botocore sorts it."""
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    kept = [(_encoded(name), _encoded(value)) for name, _, value in pairs]
    return "&".join(f"{name}={value}" for name, value in kept if name != "X-Amz-Signature")


def _encoded(text: str) -> str:
    return quote(unquote_to_bytes(text.replace("+", "%20")), safe="-_.~")


class _Exactly:
    """Signs the headers that the request says it signed, whatever botocore would choose."""

    claimed: Mapping[str, str]

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        found = HTTPHeaders()
        for name, value in self.claimed.items():
            found[name] = value
        return found


class _Claimed(_Exactly, SigV4Auth):
    pass


class _ClaimedS3(_Exactly, S3SigV4Auth):
    pass
