"""WSGI middleware that answers as AWS's replicas do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.test import run_wsgi_app

from bake.localcloud.api.consistency import answers
from bake.localcloud.api.consistency.replicas import Replicas
from bake.localcloud.api.consistency.settling import PENDING, Settling
from bake.localcloud.api.faults import calls, errors
from bake.localcloud.api.faults.calls import Call

log = logging.getLogger(__name__)

WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Consistent:
    """WSGI middleware: a call that names what a replica does not know yet fails, and nothing is done.

    Lists leave it out, and a pending AMI tells its snapshot late. All calls see that, instances' too.
    """

    def __init__(self, app: WsgiApp, replicas: Replicas, settling: Settling) -> None:
        self._app = app
        self._replicas = replicas
        self._settling = settling

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        call = calls.read(environ)
        if error := self._replicas.missing(call):
            log.info(
                "%s %s: %s, as a replica that does not know it yet", call.service, call.action, error.code
            )
            calls.drain(environ)
            answer = errors.answer(call, error, environ.get("CONTENT_TYPE", ""))
            return answer(environ, start_response)
        # S3's objects are never held in memory: they may be large.
        if call.service == "s3" and call.action not in {"CreateBucket", "DeleteBucket"}:
            return self._app(environ, start_response)
        if call.service == "ebs":  # a snapshot's blocks, which nobody creates by these calls
            return self._app(environ, start_response)
        body, status, headers = run_wsgi_app(self._app, environ, buffered=True)
        content = b"".join(body)
        if status.startswith("2"):
            self._replicas.learn(call, content.decode(errors="replace"))
            content = self._shown(call, content)
            headers["Content-Length"] = str(len(content))
        start_response(status, headers.to_wsgi_list())
        return [content]

    def _shown(self, call: Call, content: bytes) -> bytes:
        if call.protocol == "ec2" and call.action == "DescribeImages":
            content = answers.without_snapshots(
                content, lambda image: bool(self._settling.left(PENDING, image))
            )
        return answers.without(call, content, self._replicas.left_out) if answers.lists(call) else content
