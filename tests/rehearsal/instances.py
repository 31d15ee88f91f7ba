"""Launch instances of a baked image as a user would."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import boto3

from bake.localcloud import LocalCloud
from bake.retries import Fresh
from bake.ssh import Login
from bake.steps.launch import KeyPair
from tests.patient import Patience

PATIENCE = 120.0  # seconds
_fresh = Fresh()


def client(cloud: LocalCloud, service: str, region: str = "AWS_REGION") -> Any:
    """A client that takes "not found" about what it has just created for "not yet", as on AWS."""
    found = boto3.client(
        service,
        endpoint_url=cloud.endpoint,
        region_name=cloud.environment[region],
        aws_access_key_id=cloud.keys.id,
        aws_secret_access_key=cloud.keys.secret,
    )
    Patience(PATIENCE, _fresh).attach(found)
    return found


def launch(
    cloud: LocalCloud, image: str, data: str, kind: str = "g6e.xlarge", groups: Sequence[str] = ()
) -> tuple[Any, Login]:
    """RunInstances as somebody who uses the image; returns the instance and how to log in.

    `groups` are other security groups than the cloud's own.
    """
    ec2 = client(cloud, "ec2", "SPOT_AWS_REGION")
    name, user = f"test-{uuid.uuid4().hex[:8]}", KeyPair.generate()
    ec2.import_key_pair(KeyName=name, PublicKeyMaterial=user.public.encode())
    [instance] = ec2.run_instances(
        ImageId=image,
        InstanceType=kind,
        MinCount=1,
        MaxCount=1,
        KeyName=name,
        SubnetId=cloud.environment["BAKE_SUBNET_ID"],
        SecurityGroupIds=groups or [cloud.environment["BAKE_SECURITY_GROUP_ID"]],
        IamInstanceProfile={"Name": cloud.environment["BAKE_INSTANCE_PROFILE"]},
        MetadataOptions={"HttpTokens": "required"},
        UserData=data,
    )["Instances"]
    return instance["InstanceId"], Login(instance["PrivateIpAddress"], "ubuntu", user.private, "")
