"""What EC2 does with every call before it is carried out, and with every answer.

A call's parameters are checked against its operation's model, its launch template is written into it, its ids
are looked up, its page is taken note of. It is carried out, or, for a dry run, on a copy. An exception that
nothing expected is EC2's InternalError, and its trace is in the log.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlencode
from xml.sax.saxutils import escape

from moto.core.serialize import EC2Serializer
from moto.ec2.exceptions import DryRunClientError, EC2ClientError
from moto.ec2.models import ec2_backends
from werkzeug.test import run_wsgi_app
from werkzeug.wrappers import Response

from bake.localcloud.api import (
    dry_run,
    launch_checks,
    launch_templates,
    more_checks,
    paging,
    parameters,
    references,
)
from bake.localcloud.api.access.backends import OPERATION_REQUEST
from bake.localcloud.api.access.operation_request import OperationRequest
from bake.localcloud.api.access.request import replace_body
from bake.localcloud.api.tokens import Answer, Tokens
from bake.localcloud.settings import ACCOUNT

log = logging.getLogger(__name__)

XMLNS = "http://ec2.amazonaws.com/doc/2016-11-15/"
WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Front:
    """WSGI middleware before what answers EC2's calls; it expects what the gateway has admitted."""

    def __init__(self, app: WsgiApp) -> None:
        self._app = app
        self._tokens = Tokens()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            return self._answer(environ, start_response)
        except DryRunClientError as error:
            told = error_response(error.code, error.message, dry_run.STATUS)
        except EC2ClientError as error:
            told = error_response(error.code, error.message)
        except (
            Exception
        ):  # any: what moto fails on is an error of the cloud, and is answered as EC2 writes it
            told = _failed(environ[OPERATION_REQUEST])
        return told(environ, start_response)

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        requested: OperationRequest = environ[OPERATION_REQUEST]
        operation = requested.operation
        backend = ec2_backends[ACCOUNT][requested.region]
        tree = _admit(operation, parameters.read(requested.content), backend)
        page = paging.asked(operation, tree)
        call = parameters.flat(operation, tree)
        environ[OPERATION_REQUEST] = replace(requested, content=call)
        if operation == "RunInstances":
            tree = _launch(tree, backend)
        replace_body(environ, urlencode(parameters.flat(operation, tree)).encode())
        token = paging.set_page(page)
        try:
            if tree.get("DryRun", "").lower() == "true":
                status, headers, body = dry_run.rehearse(self._app, environ, backend)
            elif call.get("ClientToken") and operation != "RunInstances":
                make = partial(_buffered, self._app, environ)
                status, headers, body = self._tokens.once(backend.region_name, call, make)
            else:
                return list(self._app(environ, start_response))
        finally:
            paging.reset_page(token)
        start_response(status, headers)
        return body


def _buffered(app: WsgiApp, environ: dict[str, Any]) -> Answer:
    body, status, headers = run_wsgi_app(app, environ, buffered=True)
    return status, headers.to_wsgi_list(), list(body)


def _admit(operation: str, tree: parameters.Tree, backend: Any) -> parameters.Tree:
    """The call with its template in it; EC2ClientError for ids that are not there."""
    if operation == "CreateLaunchTemplateVersion":
        tree = launch_templates.expand_source(tree, backend)
    if operation == "RunInstances":
        tree = launch_templates.resolve_image(launch_templates.expand(tree, backend), backend)
    if operation == "CreateImage":
        backend.check_name(tree["Name"])  # a malformed name is told before an unknown id
    references.check(operation, tree, backend)
    more_checks.check(operation, tree, backend)
    return tree


def _launch(tree: parameters.Tree, backend: Any) -> parameters.Tree:
    """A RunInstances as moto is to take it; EC2ClientError where EC2 refuses it.

    A launch that is repeated with its token is not judged again: it may be what fills the subnet.
    """
    count = tree["MinCount"]
    if tree.get("ClientToken") not in backend.launches:
        count = str(launch_checks.check(tree, backend))
    # moto launches as many as MinCount says, and would merge the template another way.
    launch = {**tree, "MinCount": count, "MaxCount": count}
    launch.pop("LaunchTemplate", None)
    return launch


def _failed(requested: OperationRequest) -> Response:
    """The answer to a call that moto has failed on, which is in the log."""
    log.exception("%s", requested.operation)
    if requested.operation.startswith("Describe") and "Filter.1.Name" in requested.content:
        # The filter is EC2's; moto knows some only by name.
        what = f"Not in the local cloud: {requested.operation} with these filters"
        return error_response("UnsupportedOperation", what)
    return error_response("InternalError", "An internal error has occurred", 500)


def error_response(code: str, message: str | None, status: int = 400) -> Response:
    """An error as EC2 writes it."""
    told = f"<Code>{escape(code)}</Code><Message>{escape(message or '')}</Message>"
    return Response(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Response><Errors><Error>{told}</Error></Errors><RequestID>{uuid.uuid4()}</RequestID></Response>",
        status,
        content_type="text/xml;charset=UTF-8",
    )


def says_return(operation: Any) -> bool:
    """Whether EC2 answers an operation (botocore's model) with `<return>true</return>`: the calls without an
    output do, which no model tells, and those whose output names it.
    """
    output = operation.output_shape
    return output is None or not output.members or "Return" in output.members


def install() -> None:
    """Let moto write EC2's namespace with its slash, and none in errors; and `return`."""

    def namespace(self: Any, serialized: Any) -> None:
        if "Errors" in serialized:
            return
        serialized["@xmlns"] = XMLNS
        if says_return(self.operation_model):
            serialized.setdefault("return", "true")

    EC2Serializer._serialize_namespace_attribute = namespace
    dry_run.install()
    paging.install()
