"""The metadata that an instance reads at 169.254.169.254, built from its API record."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

from bake.localcloud.api import announcements, lifecycle_states
from bake.localcloud.api.access.keys import LASTING, Key, Keys
from bake.localcloud.api.imds import Metadata, Tree
from bake.localcloud.settings import ACCOUNT

STAMP = "%Y-%m-%dT%H:%M:%SZ"


def metadata_of(instance: Any, keys: Keys) -> Metadata:
    """Build the metadata of a moto instance; `keys` has the session of its role."""
    options = instance.metadata_options
    encoded = str(instance.user_data) if instance.user_data is not None else None
    return Metadata(
        tree={"meta-data": _tree(instance, keys), "dynamic": {"instance-identity": _identity(instance)}},
        user_data=base64.b64decode(encoded) if encoded else None,
        token_required=options.http_tokens == "required",
        enabled=options.http_endpoint != "disabled",
        hop_limit=options.http_put_response_hop_limit,
    )


def _tree(instance: Any, keys: Keys) -> Tree:
    region = instance.region_name
    groups = "\n".join(group.name for group in instance.security_groups)
    tree: Tree = {
        "ami-id": instance.image_id,
        "ami-launch-index": str(instance.ami_launch_index),
        "ami-manifest-path": "(unknown)",
        "block-device-mapping": _devices(instance),
        "hostname": instance.private_dns_name,
        "instance-action": "none",
        "instance-id": instance.id,
        "instance-life-cycle": instance.lifecycle or "on-demand",
        "instance-type": instance.instance_type,
        "local-hostname": instance.private_dns_name,
        "local-ipv4": instance.private_ip,
        "mac": instance.nics[0].mac_address,
        "network": {"interfaces": {"macs": {instance.nics[0].mac_address: _interface(instance)}}},
        "placement": {
            "availability-zone": instance.availability_zone,
            "availability-zone-id": instance.nics[0].subnet.availability_zone_id,
            "region": region,
        },
        "profile": "default-hvm",
        "reservation-id": instance.reservation_id,
        "security-groups": groups,
        "services": {"domain": "amazonaws.com", "partition": "aws"},
        "system": "nitro",
    }
    tree |= _keys(instance) | _role(instance, keys) | _public(instance) | _events(instance)
    if target := announcements.target_of(instance) or lifecycle_states.target_of(instance.id):
        tree["autoscaling"] = {"target-lifecycle-state": target}
    if instance.metadata_options.instance_metadata_tags == "enabled":
        tree["tags"] = {"instance": {tag["key"]: tag["value"] for tag in instance.get_tags()}}
    return tree


def _public(instance: Any) -> Tree:
    """What an instance without a public address has not got."""
    if not instance.public_ip:
        return {}
    return {"public-hostname": instance.public_dns_name, "public-ipv4": instance.public_ip}


def _interface(instance: Any) -> Tree:
    nic = instance.nics[0]
    vpc = str(instance.ec2_backend.get_vpc(nic.subnet.vpc_id).cidr_block)
    return _associated(instance) | {
        "device-number": "0",
        "interface-id": nic.id,
        "local-hostname": instance.private_dns_name,
        "local-ipv4s": instance.private_ip,
        "mac": nic.mac_address,
        "owner-id": ACCOUNT,
        "security-group-ids": "\n".join(group.id for group in instance.security_groups),
        "security-groups": "\n".join(group.name for group in instance.security_groups),
        "subnet-id": instance.subnet_id,
        "subnet-ipv4-cidr-block": nic.subnet.cidr_block,
        "vpc-id": instance.vpc_id,
        "vpc-ipv4-cidr-block": vpc,
        "vpc-ipv4-cidr-blocks": vpc,
    }


def _associated(instance: Any) -> Tree:
    """The public address of the interface, and the private one that it leads to."""
    if not (public := instance.public_ip):
        return {}
    return {
        "ipv4-associations": {public: instance.private_ip},
        "public-hostname": instance.public_dns_name,
        "public-ipv4s": public,
    }


def _devices(instance: Any) -> Tree:
    """The devices of the launch, or of now: ami and root, ebs1 and so on, ephemeral0 and so on."""
    root = instance.root_device_name
    more = sorted(device for device in list(instance.block_device_mapping) if device != root)
    found: Tree = {"ami": root, "root": root}
    found |= {f"ebs{number}": device.removeprefix("/dev/") for number, device in enumerate(more, 1)}
    stores = getattr(instance, "stores", ())
    return found | {one["VirtualName"]: one["DeviceName"].removeprefix("/dev/") for one in stores}


def _keys(instance: Any) -> Tree:
    pair = instance.ec2_backend.key_pairs.get(instance.key_name)
    if pair is None:
        return {}
    return {"public-keys": {"0": {"=name": pair.key_name, "openssh-key": f"{pair.public_key.strip()}\n"}}}


def _events(instance: Any) -> Tree:
    """Scheduled events, and a spot interruption once EC2 has announced it."""
    events: Tree = {"maintenance": announcements.maintenance(instance)}
    request = instance.ec2_backend.request_of(instance)
    if request is None or (notice := request.notice) is None:
        return {"events": events}
    at, given = notice.at.strftime(STAMP), notice.given.strftime(STAMP)
    spot = {"instance-action": json.dumps({"action": notice.action, "time": at})}
    if notice.action == "terminate":
        spot["termination-time"] = at
    events["recommendations"] = {"rebalance": json.dumps({"noticeTime": given})}
    return {"events": events, "spot": spot}


def _role(instance: Any, keys: Keys) -> Tree:
    """The session of the instance's role, so that boto3 on the instance needs no configuration."""
    association = instance.ec2_backend.iam_instance_profile_associations.get(instance.id)
    if association is None:
        return {}
    profile = association.iam_instance_profile
    now = datetime.now(UTC).replace(microsecond=0)
    info = {
        "Code": "Success",
        "LastUpdated": now.strftime(STAMP),
        "InstanceProfileArn": profile.arn,
        "InstanceProfileId": profile.id,
    }
    sessions = {role.name: _session(keys.of_role(instance.id, role.name)) for role in profile.roles}
    roles = {name: json.dumps(session, indent=2) for name, session in sessions.items()}
    return {"iam": {"info": json.dumps(info, indent=2), "security-credentials": roles}}


def _session(key: Key) -> dict[str, str]:
    ends = key.expires or datetime.max.replace(tzinfo=UTC)
    return {
        "Code": "Success",
        "LastUpdated": (ends - LASTING).strftime(STAMP),
        "Type": "AWS-HMAC",
        "AccessKeyId": key.id,
        "SecretAccessKey": key.secret,
        "Token": key.token,
        "Expiration": ends.strftime(STAMP),
    }


def _identity(instance: Any) -> Tree:
    document = {
        "accountId": ACCOUNT,
        "architecture": "x86_64",
        "availabilityZone": instance.availability_zone,
        "imageId": instance.image_id,
        "instanceId": instance.id,
        "instanceType": instance.instance_type,
        "pendingTime": instance.launch_time.strftime(STAMP),
        "privateIp": instance.private_ip,
        "region": instance.region_name,
        "version": "2017-09-30",
    }
    # Nobody can sign for AWS here; cloud-init only wants these to exist.
    return {"document": json.dumps(document, indent=2), "signature": "rehearsal\n", "pkcs7": "rehearsal\n"}
