"""A wheel index (PEP 503) over directories of wheels, for pip and uv on the machines."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from werkzeug.utils import send_file
from werkzeug.wrappers import Request, Response


def normalized(name: str) -> str:
    """A project's name, normalised as in PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def sha256(path: Path) -> str:
    """Hash a file; cached, since a wheel never changes under its name."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class WheelIndex:
    """WSGI application that serves all wheels below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def prepare(self) -> None:
        """Hash the wheels, which the pages of the index show."""
        for path in self._wheels().values():
            sha256(path)

    def __call__(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        return self._answer(request)(environ, start_response)

    def _wheels(self) -> dict[str, Path]:
        return {path.name: path for path in sorted(self._directory.rglob("*.whl"))}

    def _answer(self, request: Request) -> Response:
        parts = [part for part in request.path.split("/") if part]
        match parts:
            case ["simple"]:
                names = sorted({normalized(name.split("-")[0]) for name in self._wheels()})
                return _page([(f"/simple/{name}/", name) for name in names])
            case ["simple", name]:
                return self._project(normalized(name))
            case ["files", name] if name in self._wheels():
                return send_file(
                    self._wheels()[name], request.environ, mimetype="application/zip", conditional=True
                )
        return Response("", 404)

    def _project(self, name: str) -> Response:
        found = {
            file: path for file, path in self._wheels().items() if normalized(file.split("-")[0]) == name
        }
        if not found:
            return Response("", 404)
        return _page([(f"/files/{quote(file)}#sha256={sha256(path)}", file) for file, path in found.items()])


def _page(links: list[tuple[str, str]]) -> Response:
    lines = [f'<a href="{escape(target)}">{escape(text)}</a><br>' for target, text in links]
    head = '<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.0"></head><body>'
    return Response("\n".join([head, *lines, "</body></html>"]), content_type="text/html; charset=utf-8")
