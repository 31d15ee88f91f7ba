"""S3 as a source beside the disk: ranges of objects that a bucket names by their sha256.

Measured on loopback with TLS, 8 reads at once, CPU seconds a GB: http.client 0.99, urllib3 1.2 to 1.3,
awscrt's S3 client 1.03, and sha256 0.56 in addition. 20 Gbit/s take 2.5 cores with either, so the standard
library does.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

from .bucket import Place, Signer
from .feed import SourceFailed
from .ranges import Range

# A request gives 85 to 90 MB/s, so 20 Gbit/s take 30:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-design-patterns.html
THREADS = 32
_TRIES = 2
# Seconds; the disk does not wait for these, but takes over.
_CONNECT, _SILENCE = 3, 5
_FAILURES = (OSError, http.client.HTTPException)


class S3:
    """Reads ranges of `files`, by the sha256 of each whole file. Thread-safe.

    AWS is first asked by the first read, so that nothing waits for it before the disk is read.
    """

    name = "s3"

    def __init__(
        self, place: Place, files: Mapping[Path, str], region: str | None, threads: int = THREADS
    ) -> None:
        self.threads = threads
        self._place = place
        self._files = files
        self._region = region
        self._opening, self._lock = threading.Lock(), threading.Lock()
        self._signer: Signer | None = None
        self._unusable: SourceFailed | None = None
        self._urls: dict[Path, str] = {}
        self._own = threading.local()
        self._connections: set[http.client.HTTPConnection] = set()
        self._closed = False

    def read(self, part: Range, into: memoryview) -> None:
        """Fill `into`, with one more try on a new connection. Raises SourceFailed."""
        url = self._url(part.file)
        for left in reversed(range(_TRIES)):
            try:
                self._get(url, part, into)
                return
            except _FAILURES as error:
                self._disconnect()
                if not left or self._closed:
                    raise SourceFailed(f"{self._place}: {_reason(error)}") from None

    def close(self) -> None:
        """End the reads under way, also those whose connections hang."""
        with self._lock:
            self._closed = True
            connections = list(self._connections)
        for connection in connections:
            with suppress(OSError):
                if connection.sock is not None:
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def _url(self, file: Path) -> str:
        with self._opening:
            if self._unusable is not None:
                raise self._unusable
            try:
                self._signer = self._signer or Signer(self._place, self._region)
                if file not in self._urls:
                    self._urls[file] = self._signer.url(self._files[file])
            except SourceFailed as error:
                self._unusable = error  # the others need not wait for the same
                raise
            return self._urls[file]

    def _get(self, url: str, part: Range, into: memoryview) -> None:
        parts = urlsplit(url)
        connection = self._connection(parts.scheme, parts.netloc)
        last = part.offset + part.size - 1
        headers = {"Range": f"bytes={part.offset}-{last}", "Accept-Encoding": "identity"}
        connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
        with closing(connection.getresponse()) as answer:
            self._assert_range(answer, part)
            done = 0
            while done < part.size:
                read = answer.readinto(into[done:])
                if not read:
                    raise OSError(f"the answer ends after {done:,} of {part.size:,} bytes")
                done += read

    def _assert_range(self, answer: http.client.HTTPResponse, part: Range) -> None:
        """Raise SourceFailed for what another try would not change, OSError for what it might."""
        if answer.status == 206 and answer.length == part.size:
            return
        what = f"S3 answers {answer.status} for the file {part.file.name}"
        if answer.status >= 500:
            raise OSError(what)
        self._disconnect()  # its body is not read
        if answer.status == 206:
            raise SourceFailed(f"{self._place}: the object of {part.file.name} is shorter than the file")
        hint = {
            403: ", which is missing or may not be read",
            404: ", which is missing",
            416: ", which is shorter there",
        }
        raise SourceFailed(f"{self._place}: {what}{hint.get(answer.status, '')}")

    def _connection(self, scheme: str, host: str) -> http.client.HTTPConnection:
        """This thread's connection, which is kept from range to range."""
        kept: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if kept is not None:
            return kept
        if scheme == "https":
            new: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, timeout=_CONNECT, context=_trust()
            )
        else:
            new = http.client.HTTPConnection(host, timeout=_CONNECT)
        with self._lock:
            if self._closed:
                raise OSError("it is not needed any more")
            self._connections.add(new)
        self._own.connection = new
        new.connect()
        assert new.sock is not None
        new.sock.settimeout(_SILENCE)
        return new

    def _disconnect(self) -> None:
        kept: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if kept is None:
            return
        with self._lock:
            self._connections.discard(kept)
        kept.close()
        self._own.connection = None


def _trust() -> ssl.SSLContext:
    """The certificates that boto3 trusts."""
    from botocore.httpsession import get_cert_path

    return ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or get_cert_path(True))


def _reason(error: BaseException) -> str:
    return " ".join((str(error) or repr(error)).split())
