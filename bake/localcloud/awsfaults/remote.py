"""Plant faults in a local cloud that is up."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from bake.errors import BakeError, UsageError
from bake.localcloud.awsfaults.faults import AwsFault, PlantedFault, Planting

_TIMEOUT = 60.0  # a busy host's daemon answers late; a dead one refuses at once


class RemoteFaults(Planting):
    """The faults of the local cloud whose AWS API is at `endpoint`."""

    def __init__(self, endpoint: str) -> None:
        self._url = f"{endpoint}/-/faults"

    def add(self, fault: AwsFault) -> PlantedFault:
        return PlantedFault.model_validate(self._ask("POST", fault.model_dump_json().encode()))

    def listed(self) -> list[PlantedFault]:
        return [PlantedFault.model_validate(one) for one in self._ask("GET")]

    def clear(self) -> int:
        return int(self._ask("DELETE")["ended"])

    def _ask(self, method: str, content: bytes | None = None) -> Any:
        request = urllib.request.Request(self._url, content, method=method)  # noqa: S310
        # No proxy: the bridge's address is this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_TIMEOUT) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise _refused(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise BakeError(
                f"the local cloud at {self._url} does not answer: {error}", hint="bake local status"
            ) from error


def _refused(error: urllib.error.HTTPError) -> BakeError:
    if error.code == 400:
        return UsageError(str(json.load(error)["error"]), hint="bake local fault add --help")
    return BakeError(
        f"the local cloud takes no faults (HTTP {error.code}): an earlier version started it",
        hint="bake local down, then bake local up",
    )
