"""The account's fixtures: network, group, instance profile and launch template that a bake expects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network
from itertools import islice
from typing import Any
from unittest import mock

from bake import iam
from bake.localcloud.api import routes
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
    subnet, private, group = _network(ec2, settings)
    _profile(iam_backends[ACCOUNT]["aws"])
    bases = base_amis(prepared.bases)
    return {
        "AWS_REGION": REGION,
        "SPOT_AWS_REGION": SPOT_REGION,
        **{base.variable: base.id for base in bases},
        "BAKE_SUBNET_ID": subnet,
        "BAKE_PRIVATE_SUBNET_ID": private,
        "BAKE_SECURITY_GROUP_ID": group,
        "BAKE_INSTANCE_PROFILE": PROFILE,
        "BAKE_LAUNCH_TEMPLATE": _template(ec2, settings, bases[0].id, subnet, group),
        "BAKE_REAPER_ROLE": _reaper(iam_backends[ACCOUNT]["aws"]),
        "HF_TOKEN": prepared.token,
        "HF_ENDPOINT": settings.hub,
        "NEURON_PYTHON_INDEX": settings.neuron_wheels,
    }


def _network(ec2: Any, settings: Settings) -> tuple[str, str, str]:
    """Make a VPC with a public and a private subnet, and a group that admits SSH; their ids."""
    with _lasting_ids(str(settings.network)):
        vpc = ec2.create_vpc(cidr_block=str(settings.vpc), amazon_provided_ipv6_cidr_block=True)
        vpc.enable_dns_hostnames = True
        subnet = _subnet(ec2, vpc, settings.subnet, 0)
        group = ec2.create_security_group("flux-rehearsal", "The local cloud's machines", vpc_id=vpc.id)
        private = _subnet(ec2, vpc, settings.private_subnet, 1)
    ec2.authorize_security_group_ingress(
        group_name_or_id=group.id,
        ip_protocol="tcp",
        from_port="22",
        to_port="22",
        ip_ranges=[{"CidrIp": "0.0.0.0/0", "Description": "SSH"}],
    )
    ec2.modify_subnet_attribute(subnet.id, "map_public_ip_on_launch", True)
    ec2.subnet_default = subnet.id
    _routes(ec2, vpc, subnet, private)
    if settings.subnet.num_addresses > 2 * FIRST_INSTANCE:
        # moto skips the first four, as EC2 does, and the NAT gateway has the next.
        for number in range(5, FIRST_INSTANCE):
            subnet.request_ip(str(settings.subnet[number]), None)
    return subnet.id, private.id, group.id


def _template(ec2: Any, settings: Settings, image: str, subnet: str, group: str) -> str:
    """A launch template of workers, with a base AMI until one of a bake's takes its place; its id."""
    data = {
        "ImageId": image,
        "InstanceType": "g6e.xlarge",
        "IamInstanceProfile": {"Name": PROFILE},
        "MetadataOptions": {"HttpTokens": "required"},
        "NetworkInterfaces": [{"DeviceIndex": "0", "SubnetId": subnet, "Groups": [group]}],
    }
    with _lasting_ids(str(settings.network)):
        return str(ec2.create_launch_template(PROFILE, "a base AMI", data, {}).id)


def _subnet(ec2: Any, vpc: Any, network: IPv4Network, number: int) -> Any:
    # IPv6 is in the API only: machines have none, whatever a security group allows.
    [block] = vpc.get_cidr_block_association_set(ipv6=True)
    six = list(islice(IPv6Network(block["cidr_block"]).subnets(new_prefix=64), number + 1))[number]
    return ec2.create_subnet(
        vpc_id=vpc.id, cidr_block=str(network), ipv6_cidr_block=str(six), availability_zone=ZONE
    )


def _routes(ec2: Any, vpc: Any, subnet: Any, private: Any) -> None:
    """Route the VPC to an internet gateway, and the private subnet to a NAT gateway."""
    gateway = ec2.create_internet_gateway()
    ec2.attach_internet_gateway(gateway.id, vpc.id)
    [main] = [one for one in ec2.route_tables.values() if one.vpc_id == vpc.id]
    ec2.create_route(main.id, routes.EVERYWHERE, gateway_id=gateway.id)
    nat = ec2.create_nat_gateway(subnet.id, ec2.allocate_address("vpc").allocation_id)
    own = ec2.create_route_table(vpc.id)
    ec2.create_route(own.id, routes.EVERYWHERE, nat_gateway_id=nat.id)
    ec2.associate_route_table(own.id, private.id)


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
        mock.patch(f"{models}.launch_templates.random_launch_template_id", numbered("lt")),
    ):
        yield


# Of queues, buckets and buses: the boot check's, and those of workers that people start by hand.
NAMES = ("bake-*", "flux*", "pictures*")


def role_policy() -> dict[str, Any]:
    """The policy of a worker's role: that of `bake iam --for worker`, for the names that are used here."""
    return iam.document(iam.of_worker(_account(), *NAMES))


def _account() -> iam.Account:
    return iam.Account(ACCOUNT, SPOT_REGION, REGION)


def _profile(aws_iam: Any) -> None:
    role = _role(
        aws_iam, PROFILE, iam.trust("worker", _account()), "What instances of the local cloud may do"
    )
    aws_iam.put_role_policy(PROFILE, "worker", json.dumps(role_policy()))
    aws_iam.create_instance_profile(name=PROFILE, path="/", role_names=[role.name])


def _reaper(aws_iam: Any) -> str:
    """The role of `bake iam --for schedule` for `builder.reaper_role`; its ARN."""
    role = _role(aws_iam, REAPER, iam.trust("schedule", _account()), "Ends instances of bakes that hang")
    policy = iam.document(iam.of_schedules(_account()))
    aws_iam.put_role_policy(REAPER, "reaper", json.dumps(policy))
    return str(role.arn)


def _role(aws_iam: Any, name: str, trust: iam.Trust | None, description: str) -> Any:
    """A role that a service of AWS may assume."""
    return aws_iam.create_role(
        role_name=name,
        assume_role_policy_document=json.dumps(trust.as_dict() if trust else {}),
        path="/",
        permissions_boundary=None,
        description=description,
        tags=[],
        max_session_duration=3600,
    )
