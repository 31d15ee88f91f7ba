"""The API's front door: a thin WSGI layer around moto's server."""

from __future__ import annotations

import base64
import io
import logging
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.wrappers import Request, Response

from bake.localcloud.awsfaults.faults import AwsFaults
from bake.localcloud.awsfaults.middleware import Faulty
from bake.localcloud.control import Control, Routes
from bake.localcloud.ec2 import CALL
from bake.localcloud.guests import Guests

log = logging.getLogger(__name__)

_XMLNS = "http://ec2.amazonaws.com/doc/2016-11-15/"
# moto would say yes to these, and nothing would happen to any disk.
NOT_REAL = {"ModifyVolume", "CreateVolume", "AttachVolume", "DetachVolume", "CreateSnapshots", "CopySnapshot"}
NOT_REAL |= {"CopyImage", "RegisterImage", "RequestSpotInstances", "RequestSpotFleet", "CreateFleet"}
# moto has no such service, and would answer 500, which SDKs take for a passing trouble.
NOT_HERE = {"pricing"}


class Api:
    """WSGI application: AWS calls go to moto, `/-/` is the cloud's own, for processes of this host only.

    Faults strike AWS calls, never `/-/`.
    """

    def __init__(self, guests: Guests, routes: Routes, faults: AwsFaults) -> None:
        self._guests = guests
        self._control = Control(routes)
        self._faulty = Faulty(self._aws, faults, is_guest=lambda address: not self._of_host(address))
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path.startswith("/-/"):
            return self._own(Request(environ))(environ, start_response)
        if path.startswith("/moto-api"):  # a reset would forget machines that run
            return Response("", 404)(environ, start_response)
        return self._faulty(environ, start_response)

    def _of_host(self, address: str | None) -> bool:
        """A process of this host that talks to the bridge's address comes from it; instances don't."""
        return address == self._guests.settings.address

    def _own(self, request: Request) -> Response:
        if not self._of_host(request.remote_addr):
            return Response("", 403)
        return self._control.answer(request)

    def _aws(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        call = _ec2_call(environ)
        if call.get("Action") == "GetConsoleOutput" and call.get("InstanceId") in self._guests:
            return self._console(call["InstanceId"])(environ, start_response)
        if any(f"/{service}/aws4_request" in environ.get("HTTP_AUTHORIZATION", "") for service in NOT_HERE):
            return Response('{"__type": "UnsupportedOperation"}', 400)(environ, start_response)
        if call.get("Action") in NOT_REAL:
            what = f"Not in the local cloud: {call['Action']} would be without effect"
            return error_response("UnsupportedOperation", what)(environ, start_response)
        token = CALL.set(call)
        try:
            answer: Iterable[bytes] = self._moto(environ, start_response)
        except NotImplementedError as error:
            # moto would answer 500, which SDKs take for a passing trouble and try again.
            answer = error_response("UnsupportedOperation", f"Not in the local cloud: {error}")(
                environ, start_response
            )
        finally:
            CALL.reset(token)
        return answer

    def _console(self, instance_id: str) -> Response:
        output = base64.b64encode(self._guests[instance_id].console.encode()).decode()
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return Response(
            f'<GetConsoleOutputResponse xmlns="{_XMLNS}"><requestId>{uuid.uuid4()}</requestId>'
            f"<instanceId>{instance_id}</instanceId><timestamp>{stamp}</timestamp>"
            f"<output>{output}</output></GetConsoleOutputResponse>",
            content_type="text/xml",
        )


def _ec2_call(environ: dict[str, Any]) -> dict[str, str]:
    """The parameters of an EC2 call (form-encoded), the body put back for moto; {} for other services."""
    if "/ec2/aws4_request" not in environ.get("HTTP_AUTHORIZATION", ""):
        return {}
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length)
    environ["wsgi.input"] = io.BytesIO(body)
    return dict(parse_qsl(body.decode(), keep_blank_values=True))


def error_response(code: str, message: str) -> Response:
    """An error as EC2 writes it."""
    return Response(
        f"<Response><Errors><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error></Errors>"
        f"<RequestID>{uuid.uuid4()}</RequestID></Response>",
        400,
        content_type="text/xml",
    )
