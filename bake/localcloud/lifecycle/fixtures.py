"""The account's fixtures: network, security group and instance profile that a bake expects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from bake.localcloud.images.bases import base_amis
from bake.localcloud.lifecycle.prepared import Prepared
from bake.localcloud.settings import ACCOUNT, FIRST_INSTANCE, REGION, SPOT_REGION, Settings

__all__ = ["ACCOUNT", "PROFILE", "create", "role_policy"]

PROFILE = "flux-rehearsal"
REAPER = "bake-reaper"  # the role of schedules that end what hangs
# The zone of eu-north-1 that offers all instance types of the profiles.
ZONE = "eu-north-1b"


def create(settings: Settings, prepared: Prepared) -> dict[str, str]:
    """Create the fixtures in moto, and return the environment that profiles refer to."""
    from moto.ec2.models import ec2_backends
    from moto.iam.models import iam_backends

    ec2 = ec2_backends[ACCOUNT][SPOT_REGION]
    subnet, group = _network(ec2, settings)
    _profile(iam_backends[ACCOUNT]["aws"])
    return {
        "AWS_REGION": REGION,
        "SPOT_AWS_REGION": SPOT_REGION,
        **{base.variable: base.id for base in base_amis(prepared.bases)},
        "BAKE_SUBNET_ID": subnet,
        "BAKE_SECURITY_GROUP_ID": group,
        "BAKE_INSTANCE_PROFILE": PROFILE,
        "BAKE_REAPER_ROLE": _reaper(iam_backends[ACCOUNT]["aws"]),
        "HF_TOKEN": prepared.token,
        "HF_ENDPOINT": settings.hub,
        "NEURON_PYTHON_INDEX": settings.neuron_wheels,
    }


def _network(ec2: Any, settings: Settings) -> tuple[str, str]:
    cidr = str(settings.network)
    with _lasting_ids(cidr):
        vpc = ec2.create_vpc(cidr_block=cidr, amazon_provided_ipv6_cidr_block=True)
        # In the API only: machines have no IPv6, whatever a security group allows.
        [block] = vpc.get_cidr_block_association_set(ipv6=True)
        subnet = ec2.create_subnet(
            vpc_id=vpc.id,
            cidr_block=cidr,
            ipv6_cidr_block=block["cidr_block"].replace("/56", "/64"),
            availability_zone=ZONE,
        )
        group = ec2.create_security_group("flux-rehearsal", "The local cloud's machines", vpc_id=vpc.id)
    for number in range(4, FIRST_INSTANCE):  # moto skips the first four, as EC2 does
        subnet.request_ip(str(settings.network[number]), None)
    ec2.subnet_default = subnet.id
    return subnet.id, group.id


@contextmanager
def _lasting_ids(cidr: str) -> Iterator[None]:
    """Derive ids from the network, so that a rehearsal's lock file survives `down` and `up`."""
    counts: dict[str, int] = {}

    def numbered(prefix: str) -> Any:
        def make(*_: Any) -> str:
            counts[prefix] = counts.get(prefix, 0) + 1
            name = f"{cidr} {prefix} {counts[prefix]}"
            return f"{prefix}-{hashlib.sha256(name.encode()).hexdigest()[:17]}"

        return make

    models = "moto.ec2.models"
    with (
        mock.patch(f"{models}.vpcs.random_vpc_id", numbered("vpc")),
        mock.patch(f"{models}.subnets.random_subnet_id", numbered("subnet")),
        mock.patch(f"{models}.security_groups.random_security_group_id", numbered("sg")),
    ):
        yield


def role_policy() -> dict[str, Any]:
    """The policy of a worker's role: that of worker/README.md, for the names that rehearsals use."""
    names = ("bake-*", "flux*", "pictures*")
    queues = [f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}" for name in names]
    buckets = [f"arn:aws:s3:::{name}" for name in names]
    buses = [f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/{name}" for name in names]
    receiving = ("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes")
    announcing = ("PutEvents", "DescribeEventBus")
    objects = ("GetObject", "PutObject", "DeleteObject")
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": [f"sqs:{one}" for one in receiving], "Resource": queues},
            {
                "Effect": "Allow",
                "Action": [f"s3:{one}" for one in objects],
                "Resource": [f"{bucket}/*" for bucket in buckets],
            },
            {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": buckets},
            {"Effect": "Allow", "Action": [f"events:{one}" for one in announcing], "Resource": buses},
        ],
    }


def _profile(iam: Any) -> None:
    role = _role(iam, PROFILE, "ec2.amazonaws.com", "What instances of the local cloud may do")
    iam.put_role_policy(PROFILE, "worker", json.dumps(role_policy()))
    iam.create_instance_profile(name=PROFILE, path="/", role_names=[role.name])


def _reaper(iam: Any) -> str:
    """The role of docs/aws.md for `builder.reaper_role`; its ARN."""
    role = _role(iam, REAPER, "scheduler.amazonaws.com", "Ends instances of bakes that hang")
    allowed = {
        "Effect": "Allow",
        "Action": ["ec2:TerminateInstances", "ec2:CancelSpotInstanceRequests"],
        "Resource": "*",
    }
    iam.put_role_policy(REAPER, "reaper", json.dumps({"Version": "2012-10-17", "Statement": [allowed]}))
    return str(role.arn)


def _role(iam: Any, name: str, service: str, description: str) -> Any:
    """A role that a service of AWS may assume."""
    trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return iam.create_role(
        role_name=name,
        assume_role_policy_document=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
        path="/",
        permissions_boundary=None,
        description=description,
        tags=[],
        max_session_duration=3600,
    )
