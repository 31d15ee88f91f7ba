"""A request as it came over the wire, which is what a signature covers."""

from __future__ import annotations

import hashlib
import io
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from bake.localcloud.api.access.refusals import Refused

# Services other than S3 take a megabyte or two at most.
LARGEST = 16 << 20
_BLOCK = 1 << 20
_TARGET = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Request:
    """`path` and `query` as they were sent; `parameters` are the query's pairs, decoded, in order."""

    method: str
    path: str
    query: str
    environ: Mapping[str, Any]

    @classmethod
    def of(cls, environ: Mapping[str, Any]) -> Request:
        """Read a WSGI request. Refused if AWS's clients never send such a request line or such headers."""
        target = str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or "/")
        if not _TARGET.fullmatch(target) or "#" in target:
            raise Refused("request", "the request's URI must be encoded")
        if not target.startswith("/"):  # an absolute URI, whose host counts as the Host
            try:
                parts = urlsplit(target)
            except ValueError as error:
                raise Refused("request", "the request's URI is none") from error
            target = f"{parts.path or '/'}?{parts.query}"
        path, _, query = target.partition("?")
        if not path.startswith("/"):
            raise Refused("request", "the request's URI has no path")
        length = str(environ.get("CONTENT_LENGTH") or "0")
        coding = environ.get("HTTP_TRANSFER_ENCODING", "")
        if not re.fullmatch(r"[0-9]{1,15}", length) or (coding and environ.get("CONTENT_LENGTH")):
            raise Refused("request", "the length of the body must be told once")
        if coding.lower() not in {"", "chunked"}:
            raise Refused("request", f"there is no transfer encoding {coding!a}")
        return cls(str(environ["REQUEST_METHOD"]), path, query, environ)

    @property
    def parameters(self) -> list[tuple[str, str]]:
        pairs = [pair.partition("=") for pair in self.query.split("&") if pair]
        return [(_decoded(name), _decoded(value)) for name, _, value in pairs]

    def header(self, name: str) -> str | None:
        """A header's value, several joined by commas; None if it was not sent."""
        key = name.upper().replace("-", "_")
        found = self.environ.get(key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}")
        return None if found is None else str(found)

    def header_names(self) -> set[str]:
        """The names of the headers sent, in small letters; underscores read as hyphens."""
        sent = {name[5:] for name in self.environ if name.startswith("HTTP_")}
        return {name.lower().replace("_", "-") for name in sent}


@dataclass(frozen=True)
class Body:
    """A body that has been read, with its SHA-256 in hexadecimal digits and its size in bytes."""

    content: IO[bytes]
    sha256: str
    size: int

    def bytes(self) -> bytes:
        """The whole body; it can be read again."""
        self.content.seek(0)
        found = self.content.read()
        self.content.seek(0)
        return found


def read_body(environ: dict[str, Any], largest: int | None = LARGEST) -> Body:
    """Read the body and put it back; a large one is kept on disk. Refused beyond `largest` bytes."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if largest is not None and length > largest:
        raise Refused("request", f"the body is larger than {largest} bytes")
    content: IO[bytes] = tempfile.SpooledTemporaryFile(_BLOCK * 16)  # noqa: SIM115 - moto reads it later
    digest, size = hashlib.sha256(), 0
    for block in _blocks(environ, length):
        digest.update(block)
        content.write(block)
        size += len(block)
        if largest is not None and size > largest:
            raise Refused("request", f"the body is larger than {largest} bytes")
    content.seek(0)
    environ["wsgi.input"] = content
    environ["CONTENT_LENGTH"] = str(size)
    for name in ("HTTP_TRANSFER_ENCODING", "wsgi.input_terminated"):
        environ.pop(name, None)
    return Body(content, digest.hexdigest(), size)


def replace_body(environ: dict[str, Any], content: bytes) -> None:
    """Replace the body that the application will read."""
    environ["wsgi.input"] = io.BytesIO(content)
    environ["CONTENT_LENGTH"] = str(len(content))


def _blocks(environ: dict[str, Any], length: int) -> Any:
    stream = environ["wsgi.input"]
    chunked = bool(environ.get("wsgi.input_terminated")) and not environ.get("CONTENT_LENGTH")
    left = length
    while chunked or left:
        try:
            block = stream.read(_BLOCK if chunked else min(_BLOCK, left))
        except (OSError, ValueError) as error:
            raise Refused("request", "the body is incomplete") from error
        if not block:
            if left:
                raise Refused("request", "the body is incomplete")
            return
        left -= 0 if chunked else len(block)
        yield block


def _decoded(text: str) -> str:
    return unquote(text.replace("+", " "), errors="replace")
