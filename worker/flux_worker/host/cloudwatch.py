"""Publish the metric `Ready` to CloudWatch, where FLUX_CLOUDWATCH_NAMESPACE says so."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from ..settings import ServeSettings
from . import regional
from .imds import Imds
from .monitor import Monitor

log = logging.getLogger(__name__)

METRIC = "Ready"
EVERY_SECONDS = 60.0  # a finer resolution would be another, dearer kind of metric
_LAST_SECONDS = 5.0  # for the last value, while lifecycle hooks are completed


class ReadyMetric:
    """Publishes 1 while the worker receives jobs, else 0, from its own thread.

    Dimension `QueueName`; several workers publish into one metric, so its average is the share that is
    ready. A failure is logged once and stops nothing. Without a namespace no call is made.
    """

    def __init__(self, settings: ServeSettings, monitor: Monitor, imds: Imds) -> None:
        self._namespace = settings.cloudwatch_namespace
        self._queue = urlsplit(settings.queue_url).path.rpartition("/")[2]
        self._region = settings.instance_region
        self._monitor = monitor
        self._imds = imds
        self._client: Any = None
        self._failed = False
        self._over = threading.Event()
        self._ends_at = 0.0
        self._thread = threading.Thread(target=self._run, name="cloudwatch", daemon=True)

    def start(self) -> None:
        """Publish from now on, until `end`."""
        if self._namespace:
            self._thread.start()

    def end(self) -> None:
        """Publish a last time; the worker is no longer ready then. Does not wait."""
        self._ends_at = time.monotonic() + _LAST_SECONDS
        self._over.set()

    def join(self) -> None:
        """Wait for the last value to be published, at most until 5 s after `end`."""
        if self._thread.is_alive():
            self._thread.join(max(0.0, self._ends_at - time.monotonic()))

    def _run(self) -> None:
        while True:
            over = self._over.is_set()
            self._publish()
            if over:
                return
            self._over.wait(EVERY_SECONDS)

    def _publish(self) -> None:
        try:
            self._put(float(self._monitor.is_ready))
        except Exception as error:  # the worker goes on without its metric, whatever this is
            if not self._failed:
                unknown = None if isinstance(error, regional.FAILURES) else error
                log.warning(
                    "the metric %s is not published, trying again: %s", METRIC, error, exc_info=unknown
                )
            self._failed = True
            return
        if self._failed:
            log.info("the metric %s is published again", METRIC)
        self._failed = False

    def _put(self, value: float) -> None:
        if self._client is None:
            # Where the instance and its group are, whose alarms look at it.
            self._client = regional.client("cloudwatch", self._region, self._imds)
        dimensions = [{"Name": "QueueName", "Value": self._queue}]
        self._client.put_metric_data(
            Namespace=self._namespace,
            MetricData=[{"MetricName": METRIC, "Dimensions": dimensions, "Value": value, "Unit": "None"}],
        )
