"""Watch for what ends or interrupts the instance: EC2's notices and its Auto Scaling group (R-SPOT)."""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from ..settings import ServeSettings
from . import maintenance
from .autoscaling import Change, Group
from .imds import Imds, MetadataUnavailable
from .monitor import Monitor
from .siblings import Siblings
from .stop import StopRequest

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 5.0  # as AWS recommends; the notice comes two minutes before the interruption
MARGIN_SECONDS = 10.0  # between the drain's end and the instance's: EC2's clock and ours may differ
SELDOM_SECONDS = 60.0  # between checks for a metadata service that the first tries did not find
ASK_EVERY_SECONDS = 60.0  # between questions to Auto Scaling about the root volume
REBALANCE_SECONDS = 900.0  # for the group to launch a replacement, and for that to load the model
_AFTER_FAILURE_SECONDS = 600.0  # a question that is not answered delays the look for a spot notice
_FIRST_TRIES = 6  # the network may come up after the worker
_LAST_SECONDS = 10.0  # for lifecycle hooks, within what MARGIN_SECONDS and TimeoutStopSec leave
_SPOT = "spot/instance-action"
_REBALANCE = "events/recommendations/rebalance"
_TARGET = "autoscaling/target-lifecycle-state"
_MAINTENANCE = "events/maintenance/scheduled"


class InterruptionWatcher:
    """Polls the instance metadata for interruptions, from its own thread."""

    def __init__(
        self,
        stop: StopRequest,
        monitor: Monitor,
        imds: Imds,
        *,
        region: str | None,
        drain_seconds: float,
        siblings: Siblings | None = None,
    ) -> None:
        self._stop = stop
        self._monitor = monitor
        self._imds = imds
        self._drain_seconds = drain_seconds
        self._group = Group(imds, region)
        self._siblings = siblings or Siblings()
        self._ready = threading.Event()
        self._on_instance = False
        self._silent = False
        self._replacing = False
        self._ask_at = 0.0
        self._events: dict[str, maintenance.Event] = {}  # by id, those for which receiving is paused
        self._booted = maintenance.booted()
        self._unreadable = False
        self._checks: list[Callable[[], bool]] = [
            *(self._spot, self._scale_in, self._rebalance, self._maintenance, self._replace_root)
        ]

    def start(self) -> None:
        """Start polling; the thread ends with the process, or if the metadata service is disabled."""
        threading.Thread(target=self._run, name="interruption", daemon=True).start()

    def on_ready(self) -> None:
        """The worker is ready: once all are, complete launching hooks of the Auto Scaling group."""
        self._siblings.ready()
        self._ready.set()

    def on_drained(self) -> None:
        """All jobs are delivered or returned: the last worker completes the hooks. Takes at most 10 s."""
        self._siblings.leave()
        if self._stop.requested and self._on_instance:
            last = threading.Thread(target=self._complete_last, name="lifecycle", daemon=True)
            last.start()
            last.join(_LAST_SECONDS)
        self._on_instance = False

    def _complete_last(self) -> None:
        """Complete the hooks that wait for the drain, unless another worker still serves: it will."""
        try:
            while change := self._awaited():
                if self._siblings.all_left() and self._group.complete(change):
                    break
                time.sleep(1)
        except MetadataUnavailable as error:
            log.warning("cannot tell whether a lifecycle hook waits: %s", error)

    def _awaited(self) -> Change | None:
        """The change that waits for the drain."""
        if self._replacing:
            return "ReplacingRootVolume"
        return "Terminating" if self._is_terminated() else None

    def _run(self) -> None:
        self._on_instance = self._wait_for_metadata()
        launching = True
        while self._on_instance:
            try:
                self._check()
                if launching and self._ready.is_set() and self._siblings.all_ready():
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
        """Pause where a group may replace the instance, for as long as that takes.

        Nothing is lost by drawing on, since the notice leaves two minutes: alone, or in a group that finds
        no better instance, a pause would only be idle time.
        """
        if self._imds.get(_REBALANCE) is None:
            return False
        self._monitor.interruption("rebalance")
        if self._imds.get(_TARGET) is None:
            log.warning("rebalance recommendation: no group replaces this instance, drawing until the notice")
            return True
        log.warning("rebalance recommendation: receiving no jobs for %.0f s", REBALANCE_SECONDS)
        self._stop.pause("rebalance recommendation", REBALANCE_SECONDS)
        return True

    def _scale_in(self) -> bool:
        if not self._is_terminated():
            return False
        log.warning("the Auto Scaling group terminates this instance")
        self._monitor.interruption("autoscaling")
        self._drain("Terminating", "Auto Scaling", LOOK_EVERY_SECONDS)
        return True

    def _is_terminated(self) -> bool:
        return self._imds.get(_TARGET) in ("Terminated", "Warmed:Terminated")

    def _replace_root(self) -> bool:
        """Drain before the group replaces the root volume, which Auto Scaling itself is asked about.

        AWS documents no value of the target lifecycle state for it, and on the new volume, in
        ReplacingRootVolume:Proceed or RootVolumeReplaced, the worker must go on. Raises MetadataUnavailable.
        """
        if time.monotonic() < self._ask_at or self._imds.get(_TARGET) is None:
            return False
        state = self._group.state()
        self._ask_at = time.monotonic() + (_AFTER_FAILURE_SECONDS if state is None else ASK_EVERY_SECONDS)
        if state not in ("ReplacingRootVolume", "ReplacingRootVolume:Wait"):
            return False
        log.warning("the Auto Scaling group replaces the root volume of this instance")
        self._monitor.interruption("root_volume")
        self._replacing = True
        self._drain("ReplacingRootVolume", "root volume replacement", ASK_EVERY_SECONDS)
        return True

    def _drain(self, change: Change, why: str, late: float) -> None:
        """Stop within what the hooks leave, at least FLUX_DRAIN_SECONDS; found up to `late` seconds late.

        Without hooks, the instance's shutdown follows soon: SIGTERM then leaves FLUX_DRAIN_SECONDS.
        """
        self._stop.pause(why)  # while Auto Scaling is asked
        patience = self._group.heartbeat_seconds(change) or 0.0
        self._stop.request(why, max(self._drain_seconds, patience - late - MARGIN_SECONDS))

    def _maintenance(self) -> bool:
        """Receive nothing from some time before an event until it is over; the process goes on.

        A reboot or a stop ends the process by SIGTERM. Maintenance of the network, and an event that is
        canceled, leave it running.
        """
        due = self._due_events()
        for event in (due[name] for name in due.keys() - self._events.keys()):
            log.warning("%s: receiving no more jobs", event)
            self._monitor.interruption("maintenance")
            self._stop.pause(str(event))
        for event in (self._events[name] for name in self._events.keys() - due.keys()):
            log.warning("%s is over or canceled", event)
            self._stop.resume(str(event))
        self._events = due
        return False

    def _due_events(self) -> dict[str, maintenance.Event]:
        try:
            events = maintenance.parse(self._imds.get(_MAINTENANCE) or "[]")
        except maintenance.UnreadableEvents as error:
            if not self._unreadable:
                log.warning("scheduled events are not readable, trying again: %s", error)
            self._unreadable = True
            return self._events
        self._unreadable = False
        now = datetime.now(UTC)
        return {event.id: event for event in events if event.is_due(now, self._booted)}


def parse_notice(text: str) -> tuple[str, datetime | None]:
    """The action (stop, terminate or hibernate) and its time; no time if the notice is not readable."""
    try:
        notice = json.loads(text)
        at = datetime.fromisoformat(notice["time"])
        return str(notice["action"]), at if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, KeyError, TypeError):
        return "notice", None


def watch(stop: StopRequest, settings: ServeSettings, monitor: Monitor) -> InterruptionWatcher:
    """Start to watch; the watcher runs until the process ends. Raises ConfigurationError, see Siblings."""
    watching = InterruptionWatcher(
        stop,
        monitor,
        Imds(),
        region=settings.instance_region,
        drain_seconds=settings.drain_seconds,
        siblings=Siblings.from_environment(),
    )
    watching.start()
    return watching
