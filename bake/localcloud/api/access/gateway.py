"""The gateway of the local cloud's API: it verifies, authorises and refuses calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any

from bake.localcloud.api.access import absent_objects
from bake.localcloud.api.access.addressee import addressee
from bake.localcloud.api.access.backends import OPERATION_REQUEST, PRINCIPAL
from bake.localcloud.api.access.keys import Keys, Principal, now
from bake.localcloud.api.access.needed import needs_of
from bake.localcloud.api.access.operation_request import OperationRequest, normalize
from bake.localcloud.api.access.policies import Authoriser
from bake.localcloud.api.access.refusals import Refused
from bake.localcloud.api.access.services import check_content, check_service
from bake.localcloud.api.access.signature import verify
from bake.localcloud.api.faults import calls, errors

log = logging.getLogger(__name__)

WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Gateway:
    """WSGI middleware: passes calls that are signed, supported and allowed on to `app`; refuses all others.

    `app` finds the caller in environ["bake.principal"] and the verified OperationRequest in
    environ["bake.operation_request"].
    """

    def __init__(
        self,
        app: WsgiApp,
        keys: Keys,
        authoriser: Authoriser | None = None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._app = app
        self._keys = keys
        self._authoriser = authoriser or Authoriser()
        self._clock = clock

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            try:
                self._admit(environ)
            except Refused:
                raise
            except Exception as error:  # any: a client reads no other answer than its service's
                log.exception("a call of %s", addressee(environ).service)
                raise Refused("failed") from error
            return self._pass_on(environ, start_response)
        except Refused as refused:
            return _refuse(environ, start_response, refused)

    def _pass_on(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        requested: OperationRequest = environ[OPERATION_REQUEST]
        principal: Principal = environ[PRINCIPAL]
        if principal.is_owner or not absent_objects.may_be_absent(requested):
            return self._app(environ, start_response)
        return absent_objects.answer(
            self._app, environ, start_response, requested, principal, self._authoriser
        )

    def _admit(self, environ: dict[str, Any]) -> None:
        verified = verify(environ, self._keys, self._clock())
        check_service(verified.service)
        requested = normalize(environ, verified)
        check_content(requested.service, requested.operation, requested.content)
        principal = verified.key.principal
        if not principal.is_owner:
            needs = needs_of(requested, self._authoriser.inventory)
            called = f"{requested.service}:{requested.operation}"
            self._authoriser.authorise(principal, needs, requested.region, called)
        environ[PRINCIPAL] = principal
        environ[OPERATION_REQUEST] = requested


def _refuse(environ: dict[str, Any], start_response: Any, refused: Refused) -> Iterable[bytes]:
    call = addressee(environ)
    with suppress(OSError, ValueError):
        calls.drain(environ)
    sent = environ.get("CONTENT_TYPE", "")
    error = refused.error(call)
    log.debug("refused %s of %s: %s", call.service, environ.get("REMOTE_ADDR"), error.code)
    answer = errors.answer(call, error, sent if sent.startswith("application/x-amz-json-") else "")
    return answer(environ, start_response)
