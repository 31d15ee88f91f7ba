"""S3: objects in memory, with conditional writes and deletes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import parse_qs, quote
from xml.sax.saxutils import escape

from .http import Answer, Reply, Request

_XML = {"Content-Type": "application/xml"}
_MOST_KEYS = 1000
_OPERATIONS = {"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    content_type: str
    etag: str
    modified: datetime


class S3:
    """All buckets. Paths are `/bucket/key`, as botocore has them where the host is an address."""

    def __init__(self) -> None:
        self._buckets: dict[str, dict[str, _Object]] = {}

    def handle(self, request: Request, reply: Reply) -> str:
        """Answer at once."""
        bucket, _, key = request.path[1:].partition("/")
        if request.method == "PUT" and not key:
            self._buckets.setdefault(bucket, {})
            reply.send((200, {}, b""))
            return "s3 CreateBucket"
        objects = self._buckets.get(bucket)
        if objects is None:
            reply.send(_error(404, "NoSuchBucket", "The specified bucket does not exist"))
        elif not key:
            reply.send(_listing(bucket, objects, request.query))
        else:
            reply.send(_ANSWERS[request.method](objects, key, request))
        return f"s3 {_OPERATIONS[request.method] if key else 'ListObjectsV2'}"


def _put(objects: dict[str, _Object], key: str, request: Request) -> Answer:
    there = objects.get(key)
    if "if-none-match" in request.headers and there:
        return _changed()
    if failed := _unmatched(there, request):
        return failed
    etag = f'"{hashlib.md5(request.body, usedforsecurity=False).hexdigest()}"'
    kind = request.headers.get("content-type", "binary/octet-stream")
    objects[key] = _Object(request.body, kind, etag, datetime.now(UTC))
    return 200, {"ETag": etag}, b""


def _get(objects: dict[str, _Object], key: str, _request: Request) -> Answer:
    there = objects.get(key)
    if there is None:
        return _absent()
    modified = format_datetime(there.modified, usegmt=True)
    headers = {"ETag": there.etag, "Last-Modified": modified, "Content-Type": there.content_type}
    return 200, headers, there.data


def _delete(objects: dict[str, _Object], key: str, request: Request) -> Answer:
    if failed := _unmatched(objects.get(key), request):
        return failed
    objects.pop(key, None)
    return 204, {}, b""


_ANSWERS = {"PUT": _put, "GET": _get, "HEAD": _get, "DELETE": _delete}


def _unmatched(there: _Object | None, request: Request) -> Answer | None:
    wanted = request.headers.get("if-match")
    if wanted is None:
        return None
    if there is None:
        return _absent()
    return None if wanted == there.etag else _changed()


def _listing(bucket: str, objects: dict[str, _Object], query: str) -> Answer:
    """A page of ListObjectsV2; the token is the last key of the page before."""
    asked = {name: values[0] for name, values in parse_qs(query).items()}
    prefix, after = asked.get("prefix", ""), asked.get("continuation-token", asked.get("start-after", ""))
    most = int(asked.get("max-keys", _MOST_KEYS))
    keys = sorted(key for key in objects if key.startswith(prefix) and key > after)
    page, more = keys[:most], len(keys) > most
    shown = quote if asked.get("encoding-type") == "url" else escape
    entries = "".join(_entry(shown(key), objects[key]) for key in page)
    token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
    encoding = "<EncodingType>url</EncodingType>" if shown is quote else ""
    return _xml(
        200,
        f"<ListBucketResult><Name>{bucket}</Name><Prefix>{shown(prefix)}</Prefix>{encoding}"
        f"<KeyCount>{len(page)}</KeyCount><MaxKeys>{most}</MaxKeys>"
        f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}</ListBucketResult>",
    )


def _entry(key: str, stored: _Object) -> str:
    modified = stored.modified.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return (
        f"<Contents><Key>{key}</Key><LastModified>{modified}</LastModified><ETag>{escape(stored.etag)}</ETag>"
        f"<Size>{len(stored.data)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )


def _absent() -> Answer:
    return _error(404, "NoSuchKey", "The specified key does not exist.")


def _changed() -> Answer:
    return _error(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")


def _error(status: int, code: str, message: str) -> Answer:
    return _xml(status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>")


def _xml(status: int, text: str) -> Answer:
    return status, _XML, f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()
