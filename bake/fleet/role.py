"""The worker's role: what `bake iam --for worker` prints, for this fleet's places alone."""

from __future__ import annotations

from bake import iam
from bake.fleet.request import Fleet
from bake.fleet.resource import Resources, resource
from bake.iam import worker


def resources(fleet: Fleet) -> Resources:
    """The role, and the instance profile that gives it to instances."""
    subject = fleet.subject
    places = worker.Places(
        (fleet.queue_arn,),
        (subject.bucket(str(fleet.profile.worker.bucket)),),
        (str(subject.bus),),
    )
    weights = worker.read_weights(subject, fleet.profile.weights.stream)
    policy = iam.document([*worker.at(subject, places), *weights, worker.publish(fleet.namespace)])
    role = {
        "Description": f"Workers of {fleet.about}",
        "AssumeRolePolicyDocument": worker.trust(subject).as_dict(),
        "Policies": [{"PolicyName": "worker", "PolicyDocument": policy}],
        "Tags": fleet.tags,
    }
    return {
        "WorkerRole": resource("AWS::IAM::Role", role),
        "WorkerInstanceProfile": resource("AWS::IAM::InstanceProfile", {"Roles": [{"Ref": "WorkerRole"}]}),
    }
