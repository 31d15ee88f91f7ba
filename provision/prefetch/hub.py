"""The Hub: its facts about the files, access to them, and their bytes, by Xet or by HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

import hf_xet
import httpx2
from huggingface_hub import HfApi, RepoFile, constants, get_session, hf_hub_url, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers

from prefetch import http
from prefetch.events import say
from prefetch.failures import Refused, Transient, Unsendable, Wrong
from prefetch.patience import Patience, Tries
from prefetch.wanted import File, Wanted

# Xet fetches the parts of one file in parallel, and its buffer is one for all files: more of them at once
# brought nothing and took memory (measured: 365 to 443 MiB in all with one, 450 to 604 with two).
_XET_AT_ONCE = 1
METADATA = "the Hub's metadata"

Result = TypeVar("Result")


class Hub:
    """One repository at one revision, for one token."""

    def __init__(self, wanted: Wanted, token: str, patience: Patience) -> None:
        set_client_factory(lambda: http.client(patience.stall))
        self._wanted = wanted
        self._token = token
        self._patience = patience
        self._api = HfApi(token=token or False)
        self._headers = build_hf_headers(token=token or False)
        self._lock = threading.Lock()
        self._xet_hashes: dict[str, str] | None = None
        self._xet_served = False
        self._group: Any = None
        self._turns = threading.Semaphore(_XET_AT_ONCE)

    def compare_once(self) -> None:
        """Compare, once."""
        with self._lock:
            if self._xet_hashes is None:
                self.compare()

    def compare(self) -> None:
        """Check the access, and compare the Hub's facts about each file with the wanted ones.

        Raises Refused without leave, or when a file is not there any more or has become another one.
        """
        self._patiently(lambda: self._api.auth_check(self._wanted.repo))
        paths = list(self._wanted.files)
        entries = self._patiently(
            lambda: self._api.get_paths_info(self._wanted.repo, paths, revision=self._wanted.revision)
        )
        there = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
        for file in self._wanted.files.values():
            self._compare(file, there.get(file.path))
        self._xet_hashes = {path: entry.xet_hash for path, entry in there.items() if entry.xet_hash}

    def _compare(self, file: File, entry: RepoFile | None) -> None:
        if entry is None:
            raise self._changed(f"{file.path} is not there")
        etag = entry.lfs.sha256 if entry.lfs else entry.blob_id
        if (entry.size, etag) != (file.bytes, file.etag):
            raise self._changed(
                f"{file.path} has {entry.size} bytes and {etag}, locked are {file.bytes} and {file.etag}"
            )

    def _changed(self, what: str) -> Refused:
        return Refused(
            "changed",
            f"{self._wanted.repo} at {self._wanted.revision} is not what was locked: {what}",
            "see the difference with `bake lock --update`, and take it over there if it is wanted",
        )

    def _patiently(self, call: Callable[[], Result]) -> Result:
        """Return the answer to a small request; raises Refused without one."""
        tries = Tries(self._patience, METADATA)
        while True:
            try:
                return call()
            except HfHubHTTPError as error:
                if error.response.status_code not in http.TRANSIENT:
                    raise self.refusal(error.response) from error
                again = Transient(
                    f"HTTP {error.response.status_code}", http.retry_after(error.response.headers)
                )
            except http.UNSENDABLE as error:
                raise self._unsendable(METADATA, Unsendable(error)) from None
            except httpx2.HTTPError as error:
                again = http.transient(error)
            except (json.JSONDecodeError, UnicodeDecodeError):  # a proxy's page, say
                again = Transient("the Hub's endpoint answers with something else than JSON")
            except ValueError as error:
                raise self._unsendable(METADATA, Unsendable(error)) from None
            tries.again(again)

    def _unsendable(self, what: str, error: Unsendable) -> Refused:
        """Explain an invalid request, which no retry helps."""
        return Refused(
            "request-malformed",
            f"{what}: {error}",
            "look at weights.token (blanks, line breaks, other letters than a token has) and at HF_ENDPOINT",
        )

    def refusal(self, response: httpx2.Response) -> Refused:
        """Explain the Hub's refusal, with a hint."""
        status = response.status_code
        said = response.headers.get("X-Error-Message") or f"HTTP {status}"
        kind, hint = _kind_and_hint(status, said, self._wanted.repo, bool(self._token))
        return Refused(kind, f"the Hub refuses {self._wanted.repo}: {said}", hint, status)

    def read(self, file: File, offset: int) -> Generator[bytes, None, None]:
        """The file's bytes from `offset` on, by HTTP."""
        url = hf_hub_url(self._wanted.repo, file.path, revision=self._wanted.revision)
        try:
            yield from http.read(
                get_session(), url, self._headers, file, offset, lambda response: self._accept(file, response)
            )
        except Unsendable as error:
            raise self._unsendable(file.path, error) from None

    def _accept(self, file: File, response: httpx2.Response) -> None:
        if response.status_code >= 400:
            if response.url.host != httpx2.URL(constants.ENDPOINT).host:
                # The storage host refuses an expired URL of the Hub.
                raise Transient(f"HTTP {response.status_code} from {response.url.host}")
            raise self.refusal(response)
        # The Hub names the content before it redirects; the storage host's etag is its own.
        for answer in (*response.history, response):
            etag = answer.headers.get(constants.HUGGINGFACE_HEADER_X_LINKED_ETAG)
            if etag is None and constants.HUGGINGFACE_HEADER_X_REPO_COMMIT in answer.headers:
                etag = answer.headers.get("ETag")
            if etag is not None and etag.removeprefix("W/").strip('"') != file.etag:
                raise Wrong(f"names its content {etag}, locked is {file.etag}")

    def on_xet(self, file: File) -> bool:
        """Whether the Hub offers this file by Xet."""
        return not constants.HF_HUB_DISABLE_XET and file.path in (self._xet_hashes or {})

    def bar_xet(self, file: File, why: str) -> None:
        """Stop using Xet for this file, or for all files if it never served a byte."""
        with self._lock:
            hashes = self._xet_hashes or {}
            if not hashes.pop(file.path, None):
                return
            if not self._xet_served:
                hashes.clear()
        say("retry", file=file.path, why=f"{why}; by HTTP from now on", attempt=1, wait=0)

    def read_xet(self, file: File, offset: int) -> XetStream:
        """The file's bytes from `offset` on, by Xet."""
        self._turns.acquire()
        try:
            stream = self._xet_stream(file, offset)
        except BaseException:
            self._turns.release()
            raise
        return XetStream(stream, self._xet_serves, self._turns.release)

    def _xet_stream(self, file: File, offset: int) -> Any:
        xet_hash = (self._xet_hashes or {}).get(file.path)
        if xet_hash is None:  # stopped for all files meanwhile
            raise Wrong("Xet is not asked any more")
        try:
            info = hf_xet.XetFileInfo(xet_hash, file.bytes)
            return self._streams().download_stream(info, start=offset or None)
        except Exception as error:
            raise _xet_failure(error) from error

    def _xet_serves(self) -> None:
        self._xet_served = True

    def _streams(self) -> Any:
        """The connection to Xet's content store, made once; it renews its own token."""
        with self._lock:
            if self._group is None:
                route = f"xet-read-token/{self._wanted.revision}"
                self._group = hf_xet.XetSession().new_download_stream_group(
                    token_refresh_url=f"{constants.ENDPOINT}/api/models/{self._wanted.repo}/{route}",
                    token_refresh_headers=dict(self._headers),
                )
            return self._group


class XetStream:
    """A stream of Xet's without a time limit, which any thread may cancel."""

    def __init__(self, stream: Any, serves: Callable[[], None], closed: Callable[[], None]) -> None:
        self._stream = stream
        self._serves = serves
        self._closed = closed

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._stream:
                self._serves()
                yield chunk
        except Exception as error:
            raise _xet_failure(error) from error

    def cancel(self) -> None:
        """End the stream early."""
        self._stream.cancel()

    def close(self) -> None:
        """Release the stream for the next file."""
        self._stream.cancel()
        self._closed()


def _xet_failure(error: Exception) -> Transient:
    return Transient(f"Xet: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def _kind_and_hint(status: int, said: str, repo: str, token: bool) -> tuple[str, str]:
    page = f"https://huggingface.co/{repo}"
    if status == 401 and not token:
        return (
            "token-missing",
            "weights.token is empty: a read token is made at https://huggingface.co/settings/tokens",
        )
    if status == 401:
        return (
            "token-wrong",
            "the Hub does not know weights.token; see https://huggingface.co/settings/tokens",
        )
    if status == 403 and "fine-grained" in said:
        return (
            "token-wrong",
            "weights.token is fine-grained: allow it `Read access to contents of all public gated repos you "
            "can access` at https://huggingface.co/settings/tokens",
        )
    if status == 403 and "awaiting" in said:
        return "not-accepted", f"the request for access is not granted yet: look at {page}, then bake again"
    if status == 403:
        return "not-accepted", f"accept the licence at {page} with the account that the token belongs to"
    if status == 404:
        return "not-found", f"does weights.revision exist at {page}/commits/main, and may this token see it?"
    return "unreachable", "see https://status.huggingface.co, then bake again: it goes on where this ended"
