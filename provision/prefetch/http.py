"""A file's bytes by HTTP, from any offset on."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable, Generator, Iterator, Mapping

import httpx2
from huggingface_hub.utils import parse_ratelimit_headers

from prefetch.failures import Transient, Unsendable, Wrong
from prefetch.wanted import File

# Too early, too many requests, and temporary failures of servers and proxies.
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
LONGEST_WAIT = 900.0
# Invalid requests; the library counts the first three as network errors.
UNSENDABLE = (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, httpx2.InvalidURL, UnicodeEncodeError)


def client(stall: float) -> httpx2.Client:
    """Make a client that drops a connection after `stall` seconds without a byte."""
    return httpx2.Client(follow_redirects=True, timeout=httpx2.Timeout(stall, connect=min(stall, 10.0)))


def read(
    client: httpx2.Client,
    url: str,
    headers: Mapping[str, str],
    file: File,
    offset: int,
    accept: Callable[[httpx2.Response], None],
) -> Generator[bytes, None, None]:
    """The file's bytes from `offset` on; `accept` raises when the answer is not to be read.

    Raises Transient for what is worth another try, Wrong for an answer of another length than wanted,
    Unsendable where there was no request.
    """
    asked = {**headers, "Accept-Encoding": "identity"}
    if offset:
        asked["Range"] = f"bytes={offset}-"
    try:
        with client.stream("GET", url, headers=asked) as response:
            raise_transient(response)
            if response.status_code == 416:
                raise Wrong(f"has nothing from byte {offset} on, of {file.bytes}")
            accept(response)
            yield from _skip(_body(response), _surplus(response, file, offset))
    except UNSENDABLE as error:
        raise Unsendable(error) from None
    except httpx2.RequestError as error:
        raise transient(error) from error


def transient(error: Exception) -> Transient:
    """Describe an error of the network."""
    if isinstance(error, httpx2.TimeoutException):
        return Transient(f"nothing came for too long ({type(error).__name__})")
    return Transient(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def raise_transient(response: httpx2.Response) -> None:
    """Raise Transient, with the server's wait time, if its answer deserves a retry."""
    if response.status_code in TRANSIENT:
        raise Transient(f"HTTP {response.status_code}", retry_after(response.headers))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: Retry-After, or the Hub's own `ratelimit`."""
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return min(float(limit.reset_in_seconds) + 1, LONGEST_WAIT)
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return min(float(value), LONGEST_WAIT)
    date = email.utils.parsedate_tz(value)
    if date is None:
        return None
    return min(max(0.0, email.utils.mktime_tz(date) - time.time()), LONGEST_WAIT)


def _body(response: httpx2.Response) -> Iterator[bytes]:
    # A proxy may compress a text file, whatever was asked for.
    return response.iter_bytes() if "Content-Encoding" in response.headers else response.iter_raw()


def _surplus(response: httpx2.Response, file: File, offset: int) -> int:
    """Return the bytes before `offset` that the server sends anyway; all of them if it ignores ranges."""
    if response.status_code == 206:
        start, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if total != str(file.bytes):
            raise Wrong(f"says {total or 'nothing of its'} bytes, {file.bytes} are wanted")
        if start.partition("-")[0] != str(offset):
            raise Wrong(f"gives {start}, asked for byte {offset} on")
        return 0
    length = response.headers.get("Content-Length")
    if length is not None and "Content-Encoding" not in response.headers and length != str(file.bytes):
        raise Wrong(f"says {length} bytes, {file.bytes} are wanted")
    return offset


def _skip(chunks: Iterator[bytes], surplus: int) -> Iterator[bytes]:
    for chunk in chunks:
        if surplus >= len(chunk):
            surplus -= len(chunk)
            continue
        yield chunk[surplus:] if surplus else chunk
        surplus = 0
