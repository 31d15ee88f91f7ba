"""Download the weights on the builder, beside provisioning, as a unit of their own."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bake import units
from bake.errors import BakeError
from bake.plan import Plan
from bake.run import Run
from bake.ssh import CommandResult, Session
from bake.steps.provision import REMOTE

UNIT = "bake-prefetch"


@dataclass(frozen=True)
class Weights:
    """What is in the cache now: path in the repo -> bytes, the snapshot's directory, seconds it took."""

    files: Mapping[str, int]
    folder: str
    seconds: float

    @property
    def bytes(self) -> int:
        return sum(self.files.values())


class Download:
    """A download on its way; a thread of its own follows it, so that its progress shows at once."""

    def __init__(self, unit: units.Unit, run: Run) -> None:
        self._unit = unit
        self._run = run
        self._result: CommandResult | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, name=UNIT, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        try:
            self._result = self._unit.wait(self._show, seconds=1.0)
        except BaseException as error:
            self._error = error  # raised where the bake waits for it

    def _show(self) -> None:
        last = _events(self._unit.output("out")).get("progress")
        if last:
            self._run.progress.transfer("weights", last["done"], last["total"])

    def wait(self) -> Weights:
        """Return when everything is there; raises BakeError with what the Hub said, if it refused."""
        with self._run.progress.tally.waiting():
            while self._thread.is_alive():
                self._thread.join(0.2)  # in slices, so that Ctrl-C is heard
        if self._error is not None:
            raise self._error
        assert self._result is not None
        self._unit.save_logs(self._run.logs, self._result)
        events = _events(self._result.stdout)
        if refused := events.get("refused"):
            raise _refusal(refused)
        self._result.check()
        done = events["done"]
        self._run.progress.transfer("weights", done["bytes"], done["bytes"])
        return Weights(done["files"], done["folder"], done["seconds"])


def start(session: Session, plan: Plan, run: Run) -> Download:
    """Start the download as the image's user; the token goes in by stdin and stays in memory."""
    weights = plan.profile.weights
    session.run("install", "-d", "-o", plan.system.user, "-g", plan.system.user, *_parents(plan), sudo=True)
    unit = units.start(
        session,
        UNIT,
        f"{REMOTE}/tools/bin/python",
        f"{REMOTE}/prefetch.py",
        "--repo",
        weights.repo,
        "--revision",
        weights.revision,
        "--cache",
        plan.cache,
        user=plan.system.user,
        directory=plan.system.home,
        environment_file=f"{REMOTE}/settings.env",
        stdin=weights.token.get_secret_value().encode() + b"\n",
    )
    return Download(unit, run)


def _parents(plan: Plan) -> list[str]:
    """The cache and its parents below the home; somewhere else only the cache itself is the user's."""
    home, cache = plan.system.home, plan.cache
    if not cache.startswith(f"{home}/"):
        return [cache]
    parts = cache.removeprefix(f"{home}/").split("/")
    return [f"{home}/{'/'.join(parts[: length + 1])}" for length in range(len(parts))]


def _events(output: str) -> dict[str, dict[str, Any]]:
    """The last event of each kind; a line that is still being written is passed over."""
    last: dict[str, dict[str, Any]] = {}
    for line in output.splitlines():
        try:
            event = json.loads(line)
            last[event["event"]] = event
        except (ValueError, KeyError, TypeError):
            continue
    return last


def _refusal(event: Mapping[str, Any]) -> BakeError:
    hints = {
        401: "is weights.token a valid Hugging Face token? It is read from the environment or .env.local",
        403: "accept the licence at https://huggingface.co/black-forest-labs/FLUX.1-dev with the account "
        "that the token belongs to",
        404: "does the revision exist, and may this token see it?",
    }
    status = event.get("status")
    return BakeError(f"the Hub refused the download: {event.get('reason')}", hint=hints.get(status or 0))
