"""Route a call to moto's backend of the service that its signature names."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from moto.core import responses
from moto.core.responses import BaseResponse
from moto.iam.exceptions import NotFoundException
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.wrappers import Response

from bake.localcloud.api.access import simulation
from bake.localcloud.api.access.addressee import addressee
from bake.localcloud.api.access.keys import Principal
from bake.localcloud.api.access.operation_request import OperationRequest
from bake.localcloud.api.access.refusals import Refused
from bake.localcloud.api.access.services import SERVICES
from bake.localcloud.api.call import CALLER
from bake.localcloud.api.faults import errors, operations
from bake.localcloud.settings import ACCOUNT

# What the gateway adds to a request's environ.
PRINCIPAL, OPERATION_REQUEST = "bake.principal", "bake.operation_request"


def install() -> None:
    """Give each answer of moto its own transformers; to be called once, before the first request.

    moto writes them into its class while other threads read them there, and one answer's change all later
    ones.
    """
    of_moto = BaseResponse.__init__

    def init(self: Any, *words: Any, **named: Any) -> None:
        of_moto(self, *words, **named)
        self.RESPONSE_KEY_PATH_TO_TRANSFORMER = dict(type(self).RESPONSE_KEY_PATH_TO_TRANSFORMER)

    BaseResponse.__init__ = init
    responses.get_service_model = _one_at_a_time(responses.get_service_model)


def _one_at_a_time(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Let the first callers, who come at once, wait for the one that reads and caches."""
    reading = threading.Lock()

    def locked(service: str) -> Any:
        with reading:
            return read(service)

    return locked


class Backends:
    """WSGI application for requests that the gateway has admitted.

    moto's own dispatcher guesses the service from headers, path and body, and has an API of its own that
    resets everything; here nothing else than the service of the scope is reached.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._apps: dict[str, Any] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        requested: OperationRequest = environ[OPERATION_REQUEST]
        if (requested.service, requested.operation) == ("sts", "GetCallerIdentity"):
            return _identity(environ[PRINCIPAL])(environ, start_response)
        if requested.service == "iam" and requested.operation in simulation.OPERATIONS:
            return simulation.answer(requested.operation, requested.content)(environ, start_response)
        app = self._app(requested.service)
        caller = CALLER.set(environ[PRINCIPAL].arn)
        try:
            answer: Iterable[bytes] = app(environ, start_response)
        except NotImplementedError as error:
            # moto would answer 500, which SDKs retry.
            call = addressee(environ)
            told = errors.answer(call, Refused("lacking", str(error)).error(call))
            answer = told(environ, start_response)
        finally:
            CALLER.reset(caller)
        return answer

    def prepare(self) -> None:
        """Load what the first call of each service would load, so that it is answered as later ones are."""
        for service, (name, _) in SERVICES.items():
            operations.names(service)
            if not name:  # it is answered without moto
                continue
            responses.get_service_model(operations.folder(service))
            self._app(service)

    def _app(self, service: str) -> Any:
        name, _ = SERVICES[service]
        with self._lock:
            if name not in self._apps:
                self._apps[name] = create_backend_app(name)
            return self._apps[name]


def _identity(principal: Principal) -> Response:
    """Answer GetCallerIdentity, since moto does not know the caller."""
    user = ACCOUNT
    if not principal.is_owner:
        try:
            user = f"{iam_backends[ACCOUNT]['aws'].get_role(principal.role).id}:{principal.session_name}"
        except NotFoundException:
            user = f"AROAGONE:{principal.session_name}"
    return Response(
        '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        f"<GetCallerIdentityResult><Arn>{principal.arn}</Arn><UserId>{user}</UserId>"
        f"<Account>{ACCOUNT}</Account></GetCallerIdentityResult>"
        f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata>"
        "</GetCallerIdentityResponse>",
        content_type="text/xml",
    )
