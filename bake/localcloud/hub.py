"""A Hub stand-in: what `huggingface_hub` asks of the Hub, for one gated repository."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.utils import send_file
from werkzeug.wrappers import Request, Response

REPO = "black-forest-labs/FLUX.1-dev"
REVISION = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"
LOGGED = 10000

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
        Rule("/-/requests", endpoint="requests", methods=["GET", "DELETE"]),
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

    def entry(self) -> dict[str, Any]:
        """As the tree listing shows it."""
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
    content = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    large = path.suffix in {".safetensors", ".jpg", ".model"}
    return HubFile(name, path, len(content), blob, hashlib.sha256(content).hexdigest() if large else None)


class Hub:
    """WSGI application. Files are given for `token` only: 401 without one, 403 with another."""

    def __init__(self, directory: Path, token: str) -> None:
        self._files = repository(directory)
        self._token = token
        self._lock = threading.Lock()
        self._log: list[dict[str, str]] = []

    def __call__(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        try:
            endpoint, values = _ROUTES.bind_to_environ(environ).match()
            response = getattr(self, f"_{endpoint}")(request, **values)
        except HTTPException as error:
            response = _error(error.code or 500, "EntryNotFound", error.description or "")
        if not request.path.startswith("/-/"):
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

    def _requests(self, request: Request) -> Response:
        with self._lock:
            log = self._log
            if request.method == "DELETE":
                self._log = []
        return _json(log)

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
        return _json([self._files[path].entry() for path in paths if path in self._files])

    def _resolve(self, request: Request, owner: str, name: str, revision: str, path: str) -> Response:
        if missing := self._missing(owner, name, revision):
            return missing
        token = self._given(request)
        if token != self._token:
            return _gated(401 if token is None else 403)
        file = self._files.get(path)
        if file is None:
            return _error(404, "EntryNotFound", "Entry not found")
        response = send_file(
            file.file, request.environ, mimetype="application/octet-stream", conditional=True, etag=False
        )
        etag = f'"{file.sha256 or file.oid}"'
        response.headers["ETag"] = etag
        response.headers["X-Repo-Commit"] = REVISION
        if file.sha256:
            response.headers["X-Linked-Etag"] = etag
            response.headers["X-Linked-Size"] = str(file.size)
        return response


def _json(content: Any) -> Response:
    return Response(json.dumps(content), content_type="application/json")


def _gated(status: int) -> Response:
    why = "You must have access to it and be authenticated to access it. Please log in."
    if status == 403:
        why = "You are not in the authorized list."
    return _error(status, "GatedRepo", f"Access to model {REPO} is restricted. {why}")


def _error(status: int, code: str, message: str) -> Response:
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return Response(json.dumps({"error": message}), status, headers, content_type="application/json")
