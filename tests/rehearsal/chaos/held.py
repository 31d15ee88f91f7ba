"""`bake`, which stands still as a step begins until it is continued: a signal from outside comes too late."""

from __future__ import annotations

import os
import signal
from typing import Any

from bake import cli, progress

AT = "HELD_AT"
"""The variable with the step at whose first beginning it stops; `EACH` for each step's."""
EACH = "*"


class Held(progress.JsonScreen):
    """Stops this process once the beginning of the step has been told."""

    def __init__(self) -> None:
        self._at = os.environ[AT]

    def show(self, event: dict[str, Any]) -> None:
        super().show(event)
        if event["event"] == "step_started" and self._at in (EACH, event["step"]):
            self._at = EACH if self._at == EACH else ""
            os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    progress.JsonScreen = Held  # type: ignore[misc]
    cli.main()
