"""Events for the controller: one JSON object a line on stdout."""

from __future__ import annotations

import json
import sys
import threading

from prefetch.redaction import redact_all

_one_at_a_time = threading.Lock()


def say(event: str, **facts: object) -> None:
    """Write one event atomically, from any thread."""
    line = json.dumps({"event": event, **redact_all(facts)})
    with _one_at_a_time:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
