"""Put the delays in front of and into a cloud's API."""

from __future__ import annotations

from collections.abc import Callable

from bake.localcloud.api import events
from bake.localcloud.api.consistency.ec2 import Settled
from bake.localcloud.api.consistency.middleware import Consistent, WsgiApp
from bake.localcloud.api.consistency.replicas import Replicas
from bake.localcloud.api.consistency.schedule import Schedule
from bake.localcloud.api.consistency.settling import VALIDATION, Settling
from bake.localcloud.api.parameter_store import ParameterStore


def install(schedule: Schedule) -> Callable[[WsgiApp], WsgiApp]:
    """Let moto's backends keep to a schedule; return what puts an application behind it."""
    replicas, settling = Replicas(schedule), Settling(schedule)
    Settled.settling = settling
    ParameterStore.validation = staticmethod(lambda: schedule.next(VALIDATION).seconds)
    events.lose(replicas.shows)
    return lambda app: Consistent(app, replicas, settling)
