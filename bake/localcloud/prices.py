"""The local cloud's prices in dollars: round ones that nobody takes for AWS's."""

from __future__ import annotations

VCPU_HOUR, SPOT_VCPU_HOUR = 0.10, 0.04
VOLUME_MONTH, SNAPSHOT_MONTH = 0.10, 0.05  # of a GB
QUEUE_REQUEST, FIFO_REQUEST = 1e-6, 2e-6
PUT, GET, BUCKET_MONTH = 1e-5, 1e-6, 0.10  # a GB-month
EVENT = 2e-6
METRIC_MONTH, METRIC_CALL, ALARM_MONTH = 1.0, 1e-5, 0.50
FUNCTION_REQUEST, FUNCTION_TIME = 1e-6, 1e-5  # a GB-second
TRANSFER = 0.05  # a GB from one region to the other
