"""Being interrupted by EC2: spot notices, rebalance recommendations, Auto Scaling (R-SPOT)."""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from ..settings import ServeSettings
from .autoscaling import Group
from .imds import Imds, MetadataUnavailable
from .monitor import Monitor
from .stop import StopRequest

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 5.0  # what AWS recommends for the notice, which comes two minutes before the end
MARGIN_SECONDS = 10.0  # between the drain's end and the instance's: the notice's clock and ours may differ
SELDOM_SECONDS = 60.0  # between looks for a metadata service that the first tries did not find
_FIRST_TRIES = 6  # the network may come up after the worker
_LAST_SECONDS = 10.0  # for lifecycle hooks, out of what MARGIN_SECONDS and TimeoutStopSec leave
_SPOT = "spot/instance-action"
_REBALANCE = "events/recommendations/rebalance"
_TARGET = "autoscaling/target-lifecycle-state"


class InterruptionWatcher:
    """Looks every few seconds, from a thread of its own, whether EC2 wants the instance back."""

    def __init__(
        self, stop: StopRequest, monitor: Monitor, imds: Imds, *, region: str | None, drain_seconds: float
    ) -> None:
        self._stop = stop
        self._monitor = monitor
        self._imds = imds
        self._drain_seconds = drain_seconds
        self._group = Group(imds, region)
        self._ready = threading.Event()
        self._on_instance = False
        self._silent = False
        self._checks: list[Callable[[], bool]] = [self._spot, self._rebalance, self._scale_in]

    def start(self) -> None:
        """Begin to look; the thread ends with the process, or where looking is forbidden."""
        threading.Thread(target=self._run, name="interruption", daemon=True).start()

    def on_ready(self) -> None:
        """The worker is ready: a launching hook of the Auto Scaling group need not wait any longer."""
        self._ready.set()

    def on_drained(self) -> None:
        """All is handed over or back: a terminating hook need not wait any longer. Takes 10 s at most."""
        if self._stop.requested and self._on_instance:
            last = threading.Thread(target=self._complete_termination, name="lifecycle", daemon=True)
            last.start()
            last.join(_LAST_SECONDS)
        self._on_instance = False

    def _complete_termination(self) -> None:
        try:
            while self._imds.get(_TARGET) == "Terminated" and not self._group.complete("Terminating"):
                time.sleep(1)
        except MetadataUnavailable as error:
            log.warning("cannot say whether a lifecycle hook waits: %s", error)

    def _run(self) -> None:
        self._on_instance = self._wait_for_metadata()
        launching = True
        while self._on_instance:
            try:
                self._check()
                if launching and self._ready.is_set():
                    launching = not self._group.complete("Pending")
            except Exception:  # whatever it is, the next notice must be seen
                log.exception("looking for interruptions failed, looking on")
            if self._stop.wait(LOOK_EVERY_SECONDS):
                time.sleep(LOOK_EVERY_SECONDS)  # an earlier end may still be announced

    def _wait_for_metadata(self) -> bool:
        """Wait for the metadata service: on EC2 it answers within seconds, unless the network is late.

        False where it is turned off, or when the process is to end before it answers.
        """
        for tries in itertools.count(1):
            try:
                log.info("watching for interruptions of %s", self._imds.get("instance-id"))
                return True
            except MetadataUnavailable as error:
                if self._imds.disabled:
                    log.info("no spot notices and no lifecycle hooks here: %s", error)
                    return False
                if tries == _FIRST_TRIES:
                    log.info("no spot notices and no lifecycle hooks, unless this changes: %s", error)
            if self._stop.wait(LOOK_EVERY_SECONDS if tries < _FIRST_TRIES else SELDOM_SECONDS):
                break
        return False

    def _check(self) -> None:
        """Ask what was not answered yet; what was found once is not asked again."""
        try:
            for check in list(self._checks):
                if check():
                    self._checks.remove(check)
        except MetadataUnavailable as error:
            if not self._silent:
                log.warning("the metadata service fell silent, asking on: %s", error)
            self._silent = True
        else:
            if self._silent:
                log.info("the metadata service answers again")
            self._silent = False

    def _spot(self) -> bool:
        notice = self._imds.get(_SPOT)
        if notice is None:
            return False
        action, at = parse_notice(notice)
        left = (at - datetime.now(UTC)).total_seconds() if at else MARGIN_SECONDS
        why = f"spot {action} at {at:%H:%M:%S} UTC" if at else f"spot notice: {notice[:200]}"
        log.warning("%s, in %.0f s", why, left)
        self._monitor.interruption("spot")
        self._stop.request(why, max(0.0, left - MARGIN_SECONDS))
        return True

    def _rebalance(self) -> bool:
        if self._imds.get(_REBALANCE) is None:
            return False
        log.warning("rebalance recommendation: no more jobs are received, until EC2 takes the instance back")
        self._monitor.interruption("rebalance")
        self._stop.pause("rebalance recommendation")
        return True

    def _scale_in(self) -> bool:
        if self._imds.get(_TARGET) != "Terminated":
            return False
        log.warning("the Auto Scaling group ends this instance")
        self._monitor.interruption("autoscaling")
        self._stop.request("Auto Scaling", self._drain_seconds)
        return True


def parse_notice(text: str) -> tuple[str, datetime | None]:
    """The action (stop, terminate or hibernate) and its time; no time where the notice cannot be read."""
    try:
        notice = json.loads(text)
        at = datetime.fromisoformat(notice["time"])
        return str(notice["action"]), at if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, KeyError, TypeError):
        return "notice", None


def watch(stop: StopRequest, settings: ServeSettings, monitor: Monitor) -> InterruptionWatcher:
    """Watch from now on, until the process ends."""
    watching = InterruptionWatcher(
        stop, monitor, Imds(), region=settings.instance_region, drain_seconds=settings.drain_seconds
    )
    watching.start()
    return watching
