"""The control routes of a Hub stand-in, which instances can't reach: its request log and its faults."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError
from werkzeug.wrappers import Request

from bake.errors import UsageError
from bake.localcloud.hub.faults import Fault
from bake.localcloud.hub.server import Hub
from bake.localcloud.network.control import Ask, Route

REQUESTS, BYTES, FAULTS = "/-/hub/requests", "/-/hub/bytes", "/-/hub/faults"
_LISTED = TypeAdapter(list[Fault])


def routes(hub: Hub) -> dict[tuple[str, str], Route]:
    """The control routes of a Hub, which RemoteHub calls."""

    def add(request: Request) -> Any:
        try:
            hub.faults.add(Fault.model_validate_json(request.get_data()))
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise UsageError(wrong) from error
        return listed(request)

    def listed(request: Request) -> Any:
        return [fault.model_dump() for fault in hub.faults.listed()]

    def clear(request: Request) -> Any:
        hub.faults.clear()
        return []

    return {
        ("GET", REQUESTS): lambda request: hub.requests(),
        ("DELETE", REQUESTS): lambda request: hub.forget(),
        ("GET", BYTES): lambda request: hub.sent(),
        ("POST", FAULTS): add,
        ("GET", FAULTS): listed,
        ("DELETE", FAULTS): clear,
    }


class RemoteHub:
    """A Hub in another process, controlled through `ask`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def requests(self) -> list[dict[str, str]]:
        """The requests since the last `forget`, oldest first: method, path, range and status."""
        answer: list[dict[str, str]] = self._ask("GET", REQUESTS, None)
        return answer

    def forget(self) -> None:
        """Count requests and bytes from now on."""
        self._ask("DELETE", REQUESTS, None)

    def sent(self) -> dict[str, int]:
        """The bytes sent of each file since the last `forget`."""
        answer: dict[str, int] = self._ask("GET", BYTES, None)
        return answer

    def plant(self, path: str, kind: str, **fields: Any) -> None:
        """Plant a fault with the fields of Fault. UsageError for a wrong one."""
        try:
            fault = Fault.model_validate({"path": path, "kind": kind, **fields})
        except ValidationError as error:
            raise UsageError(str(error)) from error
        self._ask("POST", FAULTS, fault.model_dump_json().encode())

    def faults(self) -> list[Fault]:
        """The faults that may still strike."""
        return _LISTED.validate_python(self._ask("GET", FAULTS, None))

    def mend(self) -> None:
        """End all faults, also those of answers that are slow or stalled at the moment."""
        self._ask("DELETE", FAULTS, None)
