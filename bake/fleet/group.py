"""The Auto Scaling group of spot instances, and its lifecycle hooks."""

from __future__ import annotations

from typing import Any

from bake.fleet.request import Fleet
from bake.fleet.resource import Resources, resource

GROUP = {"Ref": "Workers"}
# Seconds until an instance that is not ready is given up. Reading the model from a new volume, which fills
# from S3 as it is read, may take half an hour; the instance is no worker of the group before.
LAUNCHING = 3600
# Seconds that a job in hand has when its instance is ended: the worker gives it what the hook leaves, and
# completes the hook as soon as it has drained.
ENDING = 900
# Seconds beside a longer drain: to see the hook (the worker asks once a minute), and to complete it.
MARGIN = 120
METRICS = ("GroupDesiredCapacity", "GroupInServiceInstances", "GroupPendingInstances", "GroupTotalInstances")


def resources(fleet: Fleet) -> Resources:
    """The group. Its size is no property of the stack: an update leaves it alone."""
    asked = fleet.profile.fleet
    properties = {
        "MinSize": "0",
        "MaxSize": str(asked.max_size),
        "VPCZoneIdentifier": list(asked.subnets),
        "MixedInstancesPolicy": {
            "InstancesDistribution": {
                "OnDemandBaseCapacity": 0,
                "OnDemandPercentageAboveBaseCapacity": 0,
                "SpotAllocationStrategy": "price-capacity-optimized",
            },
            "LaunchTemplate": {
                "LaunchTemplateSpecification": {
                    "LaunchTemplateId": {"Ref": "LaunchTemplate"},
                    # A number, by the time that the group gets it: `$Latest` would change without the group.
                    "Version": {"Fn::GetAtt": ["LaunchTemplate", "LatestVersionNumber"]},
                },
                # Each has the AMI's id: without it no root volume can be replaced on a running instance.
                "Overrides": [{"InstanceType": kind, "ImageId": fleet.image} for kind in fleet.types],
            },
        },
        "CapacityRebalance": True,
        "HealthCheckType": "EC2",
        "LifecycleHookSpecificationList": hooks(fleet),
        # The policies count what is launched, not what is ready; nothing has to settle.
        "DefaultInstanceWarmup": 0,
        "MetricsCollection": [{"Granularity": "1Minute", "Metrics": list(METRICS)}],
        "Tags": [{**tag, "PropagateAtLaunch": False} for tag in fleet.tags],
    }
    found = resource("AWS::AutoScaling::AutoScalingGroup", properties)
    found["UpdatePolicy"] = {"AutoScalingScheduledAction": {"IgnoreUnmodifiedGroupSizeProperties": True}}
    return {"Workers": found}


def hooks(fleet: Fleet) -> list[dict[str, Any]]:
    """The worker completes both. The second one waits before a root volume is replaced, too.

    An instance that does not get ready in time is terminated, and another one is launched. One that does not
    end in time is terminated all the same: its jobs come back to the queue.
    """
    return [
        {
            "LifecycleHookName": "ready",
            "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING",
            "HeartbeatTimeout": LAUNCHING,
            "DefaultResult": "ABANDON",
        },
        {
            "LifecycleHookName": "drained",
            "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
            "HeartbeatTimeout": max(ENDING, fleet.drain_seconds + MARGIN),
            "DefaultResult": "CONTINUE",
        },
    ]
