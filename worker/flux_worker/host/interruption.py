"""Watch for EC2 interruptions: spot notices, rebalance recommendations, Auto Scaling (R-SPOT)."""

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

LOOK_EVERY_SECONDS = 5.0  # as AWS recommends; the notice comes two minutes before the interruption
MARGIN_SECONDS = 10.0  # between the drain's end and the instance's: EC2's clock and ours may differ
SELDOM_SECONDS = 60.0  # between checks for a metadata service that the first tries did not find
_FIRST_TRIES = 6  # the network may come up after the worker
_LAST_SECONDS = 10.0  # for lifecycle hooks, within what MARGIN_SECONDS and TimeoutStopSec leave
_SPOT = "spot/instance-action"
_REBALANCE = "events/recommendations/rebalance"
_TARGET = "autoscaling/target-lifecycle-state"


class InterruptionWatcher:
    """Polls the instance metadata for interruptions, from its own thread."""

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
        """Start polling; the thread ends with the process, or if the metadata service is disabled."""
        threading.Thread(target=self._run, name="interruption", daemon=True).start()

    def on_ready(self) -> None:
        """The worker is ready: complete launching hooks of the Auto Scaling group."""
        self._ready.set()

    def on_drained(self) -> None:
        """All jobs are delivered or returned: complete terminating hooks. Takes at most 10 s."""
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
            log.warning("cannot tell whether a lifecycle hook waits: %s", error)

    def _run(self) -> None:
        self._on_instance = self._wait_for_metadata()
        launching = True
        while self._on_instance:
            try:
                self._check()
                if launching and self._ready.is_set():
                    launching = not self._group.complete("Pending")
            except Exception:  # an unknown error must not hide the next notice
                log.exception("checking for interruptions failed, trying again")
            if self._stop.wait(LOOK_EVERY_SECONDS):
                time.sleep(LOOK_EVERY_SECONDS)  # EC2 may still announce an earlier end

    def _wait_for_metadata(self) -> bool:
        """Wait for the metadata service: on EC2 it answers within seconds, unless the network is late.

        False if it is disabled, or the process is asked to stop before it answers.
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
        """Run the checks that have found nothing yet."""
        try:
            for check in list(self._checks):
                if check():
                    self._checks.remove(check)
        except MetadataUnavailable as error:
            if not self._silent:
                log.warning("the metadata service stopped answering, trying again: %s", error)
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
        log.warning("rebalance recommendation: receiving no more jobs, waiting for the interruption")
        self._monitor.interruption("rebalance")
        self._stop.pause("rebalance recommendation")
        return True

    def _scale_in(self) -> bool:
        if self._imds.get(_TARGET) != "Terminated":
            return False
        log.warning("the Auto Scaling group terminates this instance")
        self._monitor.interruption("autoscaling")
        self._stop.request("Auto Scaling", self._drain_seconds)
        return True


def parse_notice(text: str) -> tuple[str, datetime | None]:
    """The action (stop, terminate or hibernate) and its time; no time if the notice is not readable."""
    try:
        notice = json.loads(text)
        at = datetime.fromisoformat(notice["time"])
        return str(notice["action"]), at if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, KeyError, TypeError):
        return "notice", None


def watch(stop: StopRequest, settings: ServeSettings, monitor: Monitor) -> InterruptionWatcher:
    """Start to watch; the watcher runs until the process ends."""
    watching = InterruptionWatcher(
        stop, monitor, Imds(), region=settings.instance_region, drain_seconds=settings.drain_seconds
    )
    watching.start()
    return watching
