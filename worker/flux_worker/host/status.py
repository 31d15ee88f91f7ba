"""Read a running worker's status on loopback."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any

from ..errors import WorkerError

_PATIENCE_SECONDS = 5
_GIB = 1 << 30


def ask(port: int) -> dict[str, Any]:
    """The worker's `/status`. Raises WorkerError if no worker answers on this port."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/status", timeout=_PATIENCE_SECONDS) as answer:
            found = json.loads(answer.read())
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise WorkerError(
            f"no worker answers on 127.0.0.1:{port} ({reason}). "
            "Is it running (systemctl status flux-worker), with this FLUX_METRICS_PORT?"
        ) from error
    if not isinstance(found, dict) or "doing" not in found:
        raise WorkerError(f"another program than flux-worker answers on 127.0.0.1:{port}")
    return found


def lines(status: dict[str, Any]) -> Iterator[str]:
    """The status as text."""
    up = _span((datetime.now(UTC) - datetime.fromisoformat(status["started"])).total_seconds())
    state = "ready" if status["ready"] else "not ready"
    yield f"flux-worker {status['version']}, process {status['pid']}, {state}, up {up}"
    yield str(status["doing"])
    yield from (text for text in [status.get("delivering")] if text and text != status["doing"])
    yield from (why for why in status.get("blocked", []) if why != status["doing"])
    yield "jobs: " + _list((str(count), name) for name, count in status["jobs"].items())
    means = {name: seconds for name, seconds in status["mean_seconds"].items() if seconds is not None}
    if means:
        yield "mean seconds: " + _list((f"{seconds:.3g}", name) for name, seconds in means.items())
    yield "GiB: " + _list((f"{size / _GIB:.1f}", name) for name, size in status["memory"].items())


def _list(values: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{value} {name.replace('_', ' ')}" for value, name in values)


def _span(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    shown = [f"{value} {unit}" for value, unit in parts if value]
    return " ".join(shown[:2]) or "0 s"
