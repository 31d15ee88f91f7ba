"""The local cloud's prices in dollars: round ones that nobody takes for AWS's."""

from __future__ import annotations

VCPU_HOUR, SPOT_VCPU_HOUR = 0.10, 0.04
VOLUME_MONTH, SNAPSHOT_MONTH = 0.10, 0.05  # of a GB
