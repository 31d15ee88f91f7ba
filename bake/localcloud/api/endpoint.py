"""The API as a WSGI application: a thin layer around moto's server."""

from __future__ import annotations

import base64
import logging
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from moto.core import utils
from werkzeug.wrappers import Response

from bake.localcloud.api import direct, front, tables
from bake.localcloud.api.access.backends import OPERATION_REQUEST, Backends
from bake.localcloud.api.access.gateway import Gateway
from bake.localcloud.api.access.keys import Keys
from bake.localcloud.api.access.operation_request import OperationRequest
from bake.localcloud.api.access.policies import Authoriser
from bake.localcloud.api.call import CALL
from bake.localcloud.api.faults.faults import AwsFaults
from bake.localcloud.api.faults.middleware import Faulty, WsgiApp
from bake.localcloud.api.instances import LocalInstances
from bake.localcloud.api.pacing import Pacer
from bake.localcloud.api.security_groups import Groups

log = logging.getLogger(__name__)

# moto would accept these, and nothing would happen to any disk or packet.
NOT_REAL = {"RequestSpotInstances", "RequestSpotFleet", "CreateFleet", "ImportVolume"}
NOT_REAL |= {"ModifySnapshotTier", "RestoreSnapshotTier"}
NOT_REAL |= {"CreateNetworkAclEntry", "ReplaceNetworkAclEntry", "DeleteNetworkAclEntry", "CreateVpcEndpoint"}
NOT_REAL |= {"AttachNetworkInterface", "AssignPrivateIpAddresses"}


class Api:
    """WSGI application that passes AWS calls on to moto.

    The gateway admits calls that are signed with one of `keys` and allowed to their caller. Faults strike
    admitted calls only; `consistent` adds AWS's delays to the others. `called` counts what this host called,
    each `service Operation` in the order of the first calls; a dry run is none.
    """

    def __init__(
        self,
        instances: LocalInstances,
        groups: Groups,
        faults: AwsFaults,
        keys: Keys,
        authoriser: Authoriser | None = None,
        consistent: Callable[[WsgiApp], WsgiApp] = lambda app: app,
    ) -> None:
        self._instances = instances
        self._groups = groups
        faulty = Faulty(consistent(self._aws), faults, is_instance=lambda address: not self._of_host(address))
        self._gateway = Gateway(faulty, keys, authoriser)
        self._moto = Backends()
        self.pacer = Pacer()
        """Paces S3's answers to instances."""
        self._ec2 = front.Front(self._answer_ec2)
        self.called: dict[str, int] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        answer = self._gateway(environ, start_response)
        requested: OperationRequest | None = environ.get(OPERATION_REQUEST)
        address = environ.get("REMOTE_ADDR", "")
        if requested is None or requested.service != "s3" or self._of_host(address):
            return answer
        return self.pacer.paced(address, answer)

    def prepare(self) -> None:
        """Load what the first calls need; a cloud's first user asks a dozen questions at once."""
        self._moto.prepare()

    def _of_host(self, address: str | None) -> bool:
        """Whether a call comes from this host, whose calls to the bridge's address come from that address."""
        return address == self._instances.settings.address

    def _aws(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        requested: OperationRequest = environ[OPERATION_REQUEST]
        dry = requested.service == "ec2" and requested.content.get("DryRun", "").lower() == "true"
        if self._of_host(environ.get("REMOTE_ADDR")) and not dry:
            named = f"{requested.service} {requested.operation}"
            self.called[named] = self.called.get(named, 0) + 1
        if requested.service == "ec2":
            return self._ec2(environ, start_response)
        if requested.service == "ebs":
            return direct.answer(requested)(environ, start_response)
        limit = self._instances.settings.vcpus
        told = tables.answer(requested, limit)
        return (told or self._moto)(environ, start_response)

    def _answer_ec2(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        call = environ[OPERATION_REQUEST].content
        if call.get("Action") == "GetConsoleOutput" and call.get("InstanceId") in self._instances:
            return self._console(call["InstanceId"])(environ, start_response)
        if call.get("Action") in NOT_REAL:
            what = f"Not in the local cloud: {call['Action']} would have no effect"
            return front.error_response("UnsupportedOperation", what)(environ, start_response)
        token = CALL.set(call)
        try:
            answer = self._moto(environ, start_response)
        finally:
            CALL.reset(token)
        if not call.get("Action", "").startswith(("Describe", "Get")):
            self._groups.follow()
        return answer

    def _console(self, instance_id: str) -> Response:
        output = base64.b64encode(self._instances[instance_id].console.encode()).decode()
        stamp = utils.utcnow().strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return Response(
            f'<GetConsoleOutputResponse xmlns="{front.XMLNS}"><requestId>{uuid.uuid4()}</requestId>'
            f"<instanceId>{instance_id}</instanceId><timestamp>{stamp}</timestamp>"
            f"<output>{output}</output></GetConsoleOutputResponse>",
            content_type="text/xml",
        )
