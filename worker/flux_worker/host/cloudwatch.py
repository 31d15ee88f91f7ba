"""Publish the metric `Ready` to CloudWatch, where FLUX_CLOUDWATCH_NAMESPACE says so."""

from __future__ import annotations

import logging
import threading
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from ..settings import ServeSettings
from .imds import Imds, MetadataUnavailable
from .monitor import Monitor

log = logging.getLogger(__name__)

METRIC = "Ready"
EVERY_SECONDS = 60.0  # a finer resolution would be another, dearer kind of metric
_LAST_SECONDS = 5.0
_CONNECT_SECONDS, _READ_SECONDS = 2, 3


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
        self._thread = threading.Thread(target=self._run, name="cloudwatch", daemon=True)

    def start(self) -> None:
        """Publish from now on, until `end`."""
        if self._namespace:
            self._thread.start()

    def end(self) -> None:
        """Publish a last time; the worker is no longer ready then. Does not wait."""
        self._over.set()

    def join(self) -> None:
        """Wait for the last value to be published, 5 s at most."""
        if self._thread.is_alive():
            self._thread.join(_LAST_SECONDS)

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
        except (BotoCoreError, ClientError, ResponseParserError, MetadataUnavailable) as error:
            if not self._failed:
                log.warning("the metric %s is not published, trying again: %s", METRIC, error)
            self._failed = True
        except Exception:  # the worker goes on without its metric, whatever this is
            if not self._failed:
                log.exception("the metric %s is not published, trying again", METRIC)
            self._failed = True
        else:
            if self._failed:
                log.info("the metric %s is published again", METRIC)
            self._failed = False

    def _put(self, value: float) -> None:
        if self._client is None:
            self._client = self._connect()
        dimensions = [{"Name": "QueueName", "Value": self._queue}]
        self._client.put_metric_data(
            Namespace=self._namespace,
            MetricData=[{"MetricName": METRIC, "Dimensions": dimensions, "Value": value, "Unit": "None"}],
        )

    def _connect(self) -> Any:
        import boto3
        from botocore.config import Config

        # Where the instance and its group are, whose alarms look at it; the queue's region may differ.
        region = self._region or self._imds.get("placement/region")
        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 2},
        )
        return boto3.Session().client("cloudwatch", region_name=region, config=config)
