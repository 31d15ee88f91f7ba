"""Put the resources together into the template of a stack."""

from __future__ import annotations

from typing import Any, Literal, get_args

import yaml

from bake.fleet import alarms, backlog, bucket, bus, group, launch, queue, role, scaling
from bake.fleet.request import Fleet
from bake.fleet.resource import Resources

Part = Literal["all", "jobs", "workers"]
PARTS: tuple[Part, ...] = get_args(Part)


def template(fleet: Fleet, part: Part = "all") -> dict[str, Any]:
    """The template of a fleet's stack, as CloudFormation takes it.

    `jobs` has queue, bucket and bus, for the region that they are in; `workers` all that belongs to the
    instances, for theirs; `all` has both, where that is one region.
    """
    resources: Resources = {}
    outputs: dict[str, Any] = {}
    if part in ("all", "jobs"):
        resources |= {
            **queue.resources(fleet),
            **bucket.resources(fleet),
            **bus.resources(fleet),
            **alarms.of_jobs(fleet),
        }
        outputs |= _of_jobs(fleet)
    if part in ("all", "workers"):
        resources |= {
            **role.resources(fleet),
            **launch.resources(fleet),
            **group.resources(fleet),
            **backlog.resources(fleet),
            **scaling.resources(fleet),
            **alarms.of_workers(fleet),
        }
        outputs |= OF_WORKERS
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"{fleet.about}: {WHAT[part]}",
        "Resources": resources,
        "Outputs": {name: {"Value": value} for name, value in outputs.items()},
    }


WHAT: dict[Part, str] = {
    "all": "queue, bucket, bus and workers",
    "jobs": "queue, bucket and bus",
    "workers": "workers",
}
OF_WORKERS = {
    "AutoScalingGroup": group.GROUP,
    "LaunchTemplate": {"Ref": "LaunchTemplate"},
    "LaunchTemplateVersion": {"Fn::GetAtt": ["LaunchTemplate", "LatestVersionNumber"]},
    "WorkerRole": {"Fn::GetAtt": ["WorkerRole", "Arn"]},
}


def _of_jobs(fleet: Fleet) -> dict[str, Any]:
    """What callers need, by the variables that profiles and workers have for it."""
    worker = fleet.profile.worker
    found: dict[str, Any] = {
        "QueueUrl": {"Ref": "Jobs"} if "queue" in fleet.created else worker.queue,
        "Bucket": {"Ref": "Images"} if "bucket" in fleet.created else worker.bucket,
        "EventBus": {"Ref": "Announcements"} if "bus" in fleet.created else worker.bus,
    }
    return found | ({"DeadLetterQueueUrl": {"Ref": "DeadLetters"}} if "queue" in fleet.created else {})


class _Dumper(yaml.SafeDumper):
    """Writes scripts as blocks, and repeats what stands twice instead of naming it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def as_yaml(found: dict[str, Any]) -> str:
    """A template as YAML; the same template gives the same text."""
    return yaml.dump(found, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
