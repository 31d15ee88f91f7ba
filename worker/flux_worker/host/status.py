"""Read the status of the workers that run on this machine, on loopback."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any

from ..errors import WorkerError

_PATIENCE_SECONDS = 5
_GIB = 1 << 30
_LAST_PORT = 65_535
# Ports that are tried while nobody has said how many workers there are: as many as a type has GPUs.
_MOST_GPUS = 16


@dataclass(frozen=True)
class Statuses:
    """The answers of all workers of this machine, in their order; an error where one does not answer."""

    answers: list[dict[str, Any] | WorkerError]

    @property
    def missing(self) -> bool:
        """Whether one of them does not answer."""
        return any(isinstance(one, WorkerError) for one in self.answers)

    def facts(self) -> dict[str, Any]:
        """The one worker's own answer; of several, those of all, and whether all are ready."""
        found = [
            {"worker": number, **({"error": str(one)} if isinstance(one, WorkerError) else one)}
            for number, one in enumerate(self.answers)
        ]
        if len(self.answers) == 1 and not isinstance(self.answers[0], WorkerError):
            return self.answers[0]
        return {"ready": all(one.get("ready") for one in found), "workers": found}

    def lines(self) -> Iterator[str]:
        """The same as text."""
        if len(self.answers) == 1 and not isinstance(self.answers[0], WorkerError):
            yield from lines(self.answers[0])
            return
        for number, one in enumerate(self.answers):
            first, *rest = [str(one)] if isinstance(one, WorkerError) else lines(one)
            yield f"worker {number}: {first}"
            yield from (f"  {line}" for line in rest)


def ask_all(port: int, workers: int | None = None) -> Statuses:
    """Ask `workers` workers, on `port` and the ports after it; None: as many as the first to answer says.

    Where it says that it is a later one than its port would be, that one was meant and is asked alone.
    Raises WorkerError if none answers.
    """
    answers: list[dict[str, Any] | WorkerError] = []
    while len(answers) < (workers or min(_MOST_GPUS, _LAST_PORT - port + 1)):
        answers.append(answer := _answer(port + len(answers)))
        if workers is None and isinstance(answer, dict):
            counted_from_here = answer.get("worker", 0) == len(answers) - 1
            workers = int(answer.get("workers", 1)) if counted_from_here else 1
    answers = answers[: workers or 1]
    if all(isinstance(one, WorkerError) for one in answers):
        raise answers[0]  # type: ignore[misc]
    return Statuses(answers)


def _answer(port: int) -> dict[str, Any] | WorkerError:
    try:
        return ask(port)
    except WorkerError as error:
        return error


def ask(port: int) -> dict[str, Any]:
    """The worker's `/status`. Raises WorkerError if no worker answers on this port."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/status", timeout=_PATIENCE_SECONDS) as answer:
            found = json.loads(answer.read())
    except (OSError, OverflowError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise WorkerError(
            f"no worker answers on 127.0.0.1:{port} ({reason}). "
            "Is it running (systemctl status 'flux-worker*'), with this FLUX_METRICS_PORT?"
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
