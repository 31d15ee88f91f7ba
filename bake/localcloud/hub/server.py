"""A Hub stand-in: the routes that `huggingface_hub` uses, for one gated repository."""

from __future__ import annotations

import hashlib
import json
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from bake.localcloud.hub.faults import Body, Fault, Faults

REPO = "black-forest-labs/FLUX.1-dev"
REVISION = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"
LOGGED = 10000
_BLOCK = 1 << 20

_ROUTES = Map(
    [
        Rule("/api/whoami-v2", endpoint="whoami"),
        Rule("/api/models/<owner>/<name>", endpoint="info"),
        Rule("/api/models/<owner>/<name>/auth-check", endpoint="leave"),
        Rule("/api/models/<owner>/<name>/revision/<revision>", endpoint="info"),
        Rule("/api/models/<owner>/<name>/tree/<revision>", endpoint="tree"),
        Rule("/api/models/<owner>/<name>/tree/<revision>/<path:path>", endpoint="tree"),
        Rule("/api/models/<owner>/<name>/paths-info/<revision>", endpoint="paths", methods=["POST"]),
        Rule("/<owner>/<name>/resolve/<revision>/<path:path>", endpoint="resolve"),
        Rule("/api/models/<owner>/<name>/xet-read-token/<revision>", endpoint="xet_token"),
        Rule("/storage/<secret>/<path:path>", endpoint="storage"),
    ]
)


@dataclass(frozen=True)
class HubFile:
    """A file of the repository. `oid` is the git blob's id, `sha256` is set for LFS files."""

    path: str
    file: Path
    size: int
    oid: str
    sha256: str | None

    @property
    def etag(self) -> str:
        """The hash by which the Hub identifies the content."""
        return self.sha256 or self.oid

    def entry(self) -> dict[str, Any]:
        """The file's entry in the tree listing."""
        entry: dict[str, Any] = {"type": "file", "oid": self.oid, "size": self.size, "path": self.path}
        if self.sha256:
            entry["lfs"] = {"oid": self.sha256, "sha256": self.sha256, "size": self.size, "pointerSize": 134}
        return entry


def repository(directory: Path) -> dict[str, HubFile]:
    """Read the files of a repository with their hashes, by path."""
    return {
        name: _read(name, path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and (name := str(path.relative_to(directory)))
    }


def _read(name: str, path: Path) -> HubFile:
    size = path.stat().st_size
    blob, content = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as reader:
        while block := reader.read(_BLOCK):
            blob.update(block)
            content.update(block)
    large = path.suffix in {".safetensors", ".jpg", ".model"}
    return HubFile(name, path, size, blob.hexdigest(), content.hexdigest() if large else None)


@dataclass(frozen=True)
class Xet:
    """Xet's data: path -> Xet hash, and the content store's address (`local://` and a folder)."""

    hashes: Mapping[str, str]
    store: str


class Hub:
    """WSGI application. It serves files for `token` only: 401 without a token, 403 with another.

    Instances reach it, so its control routes are elsewhere (see hub/control.py). `faults` strike its answers.
    """

    def __init__(self, directory: Path, token: str, xet: Xet | None = None) -> None:
        self._files = repository(directory)
        self._token = token
        self._xet = xet
        self.faults = Faults()
        # Part of the storage URLs, which need no token, so that only redirected clients know them.
        self._storage_key = secrets.token_urlsafe(24)
        self._lock = threading.Lock()
        self._log: list[dict[str, str]] = []
        self._sent: dict[str, int] = {}

    @cached_property
    def _others(self) -> tempfile.TemporaryDirectory[str]:
        """A folder for changed versions of files, made when first needed: a killed Hub leaves it behind."""
        return tempfile.TemporaryDirectory(prefix="bake-hub-")

    def __call__(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        try:
            endpoint, values = _ROUTES.bind_to_environ(environ).match()
            response = getattr(self, f"_{endpoint}")(request, **values)
        except HTTPException as error:
            response = _error(error.code or 500, "EntryNotFound", error.description or "")
        self._record(request, response)
        return response(environ, start_response)

    def _record(self, request: Request, response: Response) -> None:
        entry = {
            "method": request.method,
            "path": request.path,
            "range": request.headers.get("Range", ""),
            "status": str(response.status_code),
        }
        with self._lock:
            self._log = [*self._log[-LOGGED:], entry]

    def requests(self) -> list[dict[str, str]]:
        """The newest requests since the last `forget`: method, path, range and status of each."""
        with self._lock:
            return list(self._log)

    def forget(self) -> list[dict[str, str]]:
        """Clear the log and the counts; return the log."""
        with self._lock:
            log, self._log, self._sent = self._log, [], {}
        return log

    def sent(self) -> dict[str, int]:
        """The bytes sent of each file since the last `forget`."""
        with self._lock:
            return dict(self._sent)

    def _counter(self, path: str) -> Callable[[int], None]:
        """Return a counter for a body's bytes, which does not count after a `forget`."""
        sent = self._sent

        def went(count: int) -> None:
            with self._lock:
                sent[path] = sent.get(path, 0) + count

        return went

    def _file(self, path: str) -> HubFile | None:
        """The file in its present version, which a fault may have changed."""
        file = self._files.get(path)
        if file is None or not self.faults.changed(path):
            return file
        other = Path(self._others.name) / f"{file.oid}{file.file.suffix}"
        with self._lock:
            if not other.exists():
                content = bytearray(file.file.read_bytes())
                content[0] ^= 1
                other.write_bytes(content)
        return _read(path, other)

    def _given(self, request: Request) -> str | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return token if scheme == "Bearer" and token else None

    def _whoami(self, request: Request) -> Response:
        if self._given(request) != self._token:
            return _error(401, "", "Invalid username or password.")
        return _json(
            {"type": "user", "name": "rehearsal", "auth": {"accessToken": {"role": "read"}}, "orgs": []}
        )

    def _missing(self, owner: str, name: str, revision: str) -> Response | None:
        if f"{owner}/{name}" != REPO:
            return _error(404, "RepoNotFound", "Repository not found")
        if revision not in {REVISION, "main"}:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return None

    def _info(self, request: Request, owner: str, name: str, revision: str = "main") -> Response:
        if missing := self._missing(owner, name, revision):
            return missing
        siblings = []
        for file in self._files.values():
            sibling: dict[str, Any] = {"rfilename": file.path}
            if request.args.get("blobs"):
                sibling |= {"size": file.size, "blobId": file.oid}
                sibling |= {"lfs": file.entry()["lfs"]} if file.sha256 else {}
            siblings.append(sibling)
        return _json(
            {
                "_id": "66aaa908fc35e079a941470d",
                "id": REPO,
                "modelId": REPO,
                "sha": REVISION,
                "private": False,
                "gated": "auto",
                "disabled": False,
                "tags": ["diffusers", "license:other", "region:us"],
                "downloads": 0,
                "likes": 0,
                "siblings": siblings,
            }
        )

    def _leave(self, request: Request, owner: str, name: str) -> Response:
        """Whether a token may download the gated files."""
        if missing := self._missing(owner, name, "main"):
            return missing
        token = self._given(request)
        return _json({}) if token == self._token else _gated(401 if token is None else 403)

    def _tree(self, request: Request, owner: str, name: str, revision: str, path: str = "") -> Response:
        if missing := self._missing(owner, name, revision):
            return missing
        below = f"{path}/" if path else ""
        inside = [file for file in self._files.values() if file.path.startswith(below)]
        if request.args.get("recursive", "").lower() in {"true", "1"}:
            return _json([file.entry() for file in inside])
        folders = sorted(
            {file.path[len(below) :].split("/")[0] for file in inside if "/" in file.path[len(below) :]}
        )
        listing: list[dict[str, Any]] = [
            {"type": "directory", "oid": REVISION, "size": 0, "path": f"{below}{folder}"}
            for folder in folders
        ]
        return _json([*listing, *(file.entry() for file in inside if "/" not in file.path[len(below) :])])

    def _paths(self, request: Request, owner: str, name: str, revision: str) -> Response:
        if missing := self._missing(owner, name, revision):
            return missing
        paths = request.get_json()["paths"] if request.is_json else request.form.getlist("paths")
        files = [file for path in paths if (file := self._file(path))]
        return _json([{**file.entry(), **self._xet_hash(file.path)} for file in files])

    def _xet_hash(self, path: str) -> dict[str, str]:
        return {"xetHash": self._xet.hashes[path]} if self._xet and path in self._xet.hashes else {}

    def _xet_token(self, request: Request, owner: str, name: str, revision: str) -> Response:
        """The address of Xet's content store and a token for it."""
        if missing := self._missing(owner, name, revision):
            return missing
        if self._given(request) != self._token:
            return _gated(401 if self._given(request) is None else 403)
        if self._xet is None:
            return _error(404, "", "this repository is not on Xet")
        until = int(time.time()) + 3600
        return _json({"casUrl": self._xet.store, "accessToken": "xet", "exp": until})

    def _resolve(self, request: Request, owner: str, name: str, revision: str, path: str) -> Response:
        if missing := self._missing(owner, name, revision):
            return missing
        token = self._given(request)
        if token != self._token:
            return _gated(401 if token is None else 403)
        file = self._file(path)
        if file is None:
            return _error(404, "EntryNotFound", "Entry not found")
        fault = self.faults.take(path) if request.method == "GET" else None
        if fault and fault.kind == "status":
            return _failure(fault)
        elsewhere = fault is not None and fault.kind == "elsewhere"
        response = self._sent_on(request, path, fault) if elsewhere else self._part(request, file, fault)
        response.headers["ETag"] = f'"{file.etag}"'
        response.headers["X-Repo-Commit"] = REVISION
        if file.sha256:
            response.headers["X-Linked-Etag"] = f'"{file.etag}"'
            response.headers["X-Linked-Size"] = str(file.size)
        return response

    def _sent_on(self, request: Request, path: str, fault: Fault | None) -> Response:
        """Redirect to this server under its other name, which clients take for another host."""
        port = request.environ["SERVER_PORT"]
        query = f"?status={fault.status}" if fault and fault.status else ""
        where = f"http://localhost:{port}/storage/{self._storage_key}/{path}{query}"
        return Response(status=302, headers={"Location": where})

    def _storage(self, request: Request, secret: str, path: str) -> Response:
        """Answer as the storage host: the URL is the permission, and a token is an error, as with S3."""
        if not secrets.compare_digest(secret.encode(), self._storage_key.encode()) or path not in self._files:
            return _error(404, "", "there is no such object")
        if "Authorization" in request.headers:
            return _error(400, "", "only one way to authenticate is allowed")
        if status := request.args.get("status"):
            return _error(int(status), "", "the address has expired")
        response = self._part(request, self._files[path], None)
        response.headers["ETag"] = '"of-the-storage-itself"'
        return response

    def _part(self, request: Request, file: HubFile, fault: Fault | None) -> Response:
        """Answer with the requested bytes: all, or one range."""
        size = file.size + (fault.by if fault and fault.kind == "length" else 0)
        start, stop, status = 0, size, 200
        if request.range and not (fault and fault.kind == "no-ranges"):
            part = request.range.range_for_length(size)
            if part is None:
                return _error(416, "", f"the file has {size} bytes")
            start, stop, status = *part, 206
        connection = request.environ["werkzeug.socket"]
        body = Body(file.file, start, stop, fault, connection, self._counter(file.path))
        response = Response(body, status, content_type="application/octet-stream")
        response.headers["Accept-Ranges"] = "bytes"
        response.headers["Content-Length"] = str(stop - start)
        if status == 206:
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        return response


def _json(content: Any) -> Response:
    return Response(json.dumps(content), content_type="application/json")


def _gated(status: int) -> Response:
    why = "You must have access to it and be authenticated to access it. Please log in."
    if status == 403:
        why = "You are not in the authorized list."
    return _error(status, "GatedRepo", f"Access to model {REPO} is restricted. {why}")


def _failure(fault: Fault) -> Response:
    status = fault.status or 500
    response = _error(status, "GatedRepo" if status == 403 else "", fault.message)
    if fault.retry_after is not None:
        response.headers["Retry-After"] = str(fault.retry_after)
    return response


def _error(status: int, code: str, message: str) -> Response:
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return Response(json.dumps({"error": message}), status, headers, content_type="application/json")
