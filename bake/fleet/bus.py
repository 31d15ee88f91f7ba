"""The event bus on which workers announce what they have done; its rules are the callers' own."""

from __future__ import annotations

from bake.fleet.request import Fleet
from bake.fleet.resource import KEPT, Resources, resource


def resources(fleet: Fleet) -> Resources:
    """The bus; nothing where the profile names one."""
    if "bus" not in fleet.created:
        return {}
    properties = {"Name": fleet.profile.worker.bus, "Description": fleet.about, "Tags": fleet.tags}
    return {"Announcements": {**resource("AWS::Events::EventBus", properties), **KEPT}}
