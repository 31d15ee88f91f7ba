"""Fetch files of package archives: over HTTPS where the host speaks it, and never more than was expected."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urljoin, urlsplit
from urllib.request import Request, urlopen

from bake.errors import BakeError

PATIENCE = 15.0  # seconds that a server may be silent
DEADLINE = 120.0  # seconds for one file
CHUNK = 1 << 16
OPENED = 1 << 30  # bytes of an index that was compressed
READERS: dict[str, Callable[[Any], Any]] = {
    ".xz": lzma.LZMAFile,
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".bz2": bz2.BZ2File,
    "": lambda file: file,
}
"""Ending of a file's name -> what reads it, the smallest first."""


class Unreachable(BakeError):
    """A file of an archive can't be had, or is not what the archive's own index says."""


@dataclass
class Web:
    """Fetches files. `plain` are the hosts that were read without TLS, since they speak none."""

    plain: set[str] = field(default_factory=set)

    def get(self, url: str, most: int) -> bytes:
        """The content of a URL, of `most` bytes at most; raises Unreachable."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unreachable(f"{url}: only a web server can be asked from here")
        if parts.scheme == "http" and parts.netloc not in self.plain:
            try:
                return _fetch(parts._replace(scheme="https").geturl(), most)
            except Unreachable:
                content = _fetch(url, most)  # the host that answers nowhere is told by its own address
                self.plain.add(parts.netloc)
                return content
        return _fetch(url, most)

    def verified(self, url: str, sha256: str, size: int | None, most: int) -> bytes:
        """The same of a file whose hash, and size, if known, an index gave."""
        if size is not None and size > most:
            raise Unreachable(f"{url} is larger than it should be: {size} bytes")
        content = self.get(url, most if size is None else size)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise Unreachable(f"{url} has another sha256 than its index says: it may be changing just now")
        return content


def _fetch(url: str, most: int) -> bytes:
    request = Request(url, headers={"User-Agent": "bake"})  # noqa: S310 - Web.get has looked at its scheme
    try:
        with urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            if url.startswith("https:") and not answer.url.startswith("https:"):
                raise Unreachable(f"{url} leads to {answer.url}, without TLS")
            return _read(answer, most, url)
    except HTTPError as error:
        raise Unreachable(f"{url}: HTTP {error.code}") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise Unreachable(f"{url}: {reason}") from error


def _read(file: IO[bytes], most: int, name: str) -> bytes:
    """Read to the end, but no more than `most` bytes."""
    content, end = io.BytesIO(), time.monotonic() + DEADLINE
    while chunk := file.read(CHUNK):
        content.write(chunk)
        if content.tell() > most:
            raise Unreachable(f"{name} is larger than it should be: more than {most} bytes")
        if time.monotonic() > end:
            raise Unreachable(f"{name} takes more than {DEADLINE:.0f} s")
    return content.getvalue()


def opened(name: str, content: bytes) -> bytes:
    """The content of a file that may be compressed, by its name; raises Unreachable."""
    ending = next((one for one in READERS if one and name.endswith(one)), "")
    if not ending and "." in name.rpartition("/")[2] and not name.endswith(".xml"):
        raise Unreachable(f"{name} is compressed in a way that is not read here")
    try:
        with READERS[ending](io.BytesIO(content)) as file:
            return _read(file, OPENED, name)
    except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
        raise Unreachable(f"{name} can't be unpacked: {error}") from error


def below(folder: str, name: str) -> str:
    """The URL of a file in a folder."""
    return urljoin(folder.rstrip("/") + "/", name)
