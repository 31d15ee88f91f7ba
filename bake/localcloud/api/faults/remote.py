"""Plant faults in a local cloud that is up."""

from __future__ import annotations

from typing import Any

from bake.errors import UsageError
from bake.localcloud.api.faults.faults import AwsFault, PlantedFault, Planting
from bake.localcloud.network.control import Ask


class RemoteFaults(Planting):
    """The faults of the local cloud that `ask` asks."""

    def __init__(self, ask: Ask) -> None:
        self._asking = ask

    def add(self, fault: AwsFault) -> PlantedFault:
        return PlantedFault.model_validate(self._ask("POST", fault.model_dump_json().encode()))

    def listed(self) -> list[PlantedFault]:
        return [PlantedFault.model_validate(one) for one in self._ask("GET")]

    def clear(self) -> int:
        return int(self._ask("DELETE")["ended"])

    def _ask(self, method: str, content: bytes | None = None) -> Any:
        try:
            return self._asking(method, "/-/faults", content)
        except UsageError as error:
            raise UsageError(error.message, hint="bake local fault add --help") from error
