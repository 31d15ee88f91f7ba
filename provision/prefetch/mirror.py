"""A mirror that holds blobs by their hash, behind signed URLs, so that the builder needs no rights.

It is a convenience. Whatever is wrong with it is said, and the Hub serves instead.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import httpx2

from prefetch import http
from prefetch.events import say
from prefetch.failures import Transient, Unsendable, Wrong
from prefetch.redaction import conceal
from prefetch.wanted import File

_BLOCK = 1 << 20
_TRIES = 3


class Mirror:
    """The mirror's URLs: `get` for blobs it has, `put` for blobs it lacks."""

    def __init__(self, given: Mapping[str, Any] | None, stall: float) -> None:
        given = given or {}
        self._name = str(given.get("name", "the mirror"))
        self._get: dict[str, str] = dict(given.get("get") or {})
        self._put: Mapping[str, Any] = given.get("put") or {}
        for url in (*self._get.values(), *(url for put in self._put.values() for url in put["parts"])):
            conceal(url)
        self._client = http.client(stall)
        self._served = False
        self._lock = threading.Lock()

    def has(self, file: File) -> bool:
        """Whether the mirror has the file."""
        return file.etag in self._get

    def lacks(self, file: File) -> bool:
        """Whether the file should be uploaded."""
        return file.etag in self._put

    def read(self, file: File, offset: int) -> Generator[bytes, None, None]:
        """The file's bytes from `offset` on."""
        url = self._get.get(file.etag)
        if url is None:
            raise Wrong("is not asked any more")
        try:
            for chunk in http.read(self._client, url, {}, file, offset, _accept):
                self._served = True
                yield chunk
        except Unsendable as error:
            raise Wrong(str(error)) from None

    def bar(self, file: File, why: str) -> None:
        """Stop using the mirror for this file, or for all files if it never served a byte."""
        with self._lock:
            if not self._get.pop(file.etag, None):
                return
            if not self._served:
                self._get.clear()
        say("mirror", file=file.path, why=f"{self._name}: {why}; the Hub serves instead")

    def keep(self, file: File, blob: Path) -> None:
        """Upload a verified blob in parts; a failure is reported and has no consequence."""
        given = self._put[file.etag]
        try:
            with blob.open("rb") as reader:
                etags = [
                    self._send(url, reader, number * given["part_bytes"], given["part_bytes"], file.bytes)
                    for number, url in enumerate(given["parts"])
                ]
        except http.UNSENDABLE as error:
            say("mirror", file=file.path, why=f"{self._name} did not take it: {Unsendable(error)}")
            return
        except (Transient, httpx2.HTTPError, OSError) as error:
            say("mirror", file=file.path, why=f"{self._name} did not take it: {error}")
            return
        say("uploaded", file=file.path, sha256=file.etag, bytes=file.bytes, etags=etags)

    def _send(self, url: str, reader: BinaryIO, start: int, part: int, size: int) -> str:
        """Upload one part, with retries; return its ETag."""
        count = min(part, size - start)
        for left in reversed(range(_TRIES)):
            reader.seek(start)
            try:
                # Signed URLs accept no chunked body, so state the length.
                answer = self._client.put(
                    url, content=_blocks(reader, count), headers={"Content-Length": str(count)}
                )
                http.raise_transient(answer)
                break
            except http.UNSENDABLE:
                raise
            except (Transient, httpx2.TransportError):
                if not left:
                    raise
        if answer.status_code != 200:
            raise Transient(f"HTTP {answer.status_code}")
        return answer.headers["ETag"]


def _accept(response: httpx2.Response) -> None:
    if response.status_code >= 400:
        raise Wrong(f"answers HTTP {response.status_code}")


def _blocks(reader: BinaryIO, count: int) -> Iterator[bytes]:
    while count > 0 and (block := reader.read(min(_BLOCK, count))):
        count -= len(block)
        yield block
