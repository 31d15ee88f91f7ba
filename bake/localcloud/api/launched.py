"""What moto leaves out of new instances' records: fields that clients read, tags, and unusable keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from moto.ec2.models.amis import Ami
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance
from moto.ec2.utils import filter_dict_attribute_mapping
from moto.kms.models import kms_backends

# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html, and what the user guide's page
# "Troubleshoot an instance that is in the terminated state" says of encrypted volumes.
_NO_KEY = "Client.InternalError: Client error on launch"
_WRONG_STATE = "Client.InvalidKMSKey.InvalidState: The KMS key provided is in an incorrect state"
# Filters of DescribeInstances that moto lacks, with its names of what they are about.
_FILTERS = {
    "reservation-id": "reservation_id",
    "spot-instance-request-id": "spot_instance_request_id",
    "hypervisor": "hypervisor",
    "root-device-name": "root_device_name",
    "root-device-type": "root_device_type",
    "platform-details": "platform_details",
    "boot-mode": "boot_mode",
    "virtualization-type": "virtualization_type",
    "monitoring-state": "monitoring_state",
}
_PROFILE = "iam_instance_profile_"


def finish(backend: Any, reservation: Any, call: Mapping[str, str], kwargs: Mapping[str, Any]) -> None:
    """Complete the records of a launch; `call` is its RunInstances, `kwargs` moto's reading of it."""
    profile = {name: kwargs[name] for name in (f"{_PROFILE}name", f"{_PROFILE}arn") if kwargs.get(name)}
    template = {
        f"aws:ec2launchtemplate:{tag}": call[f"LaunchTemplate.{name}"]
        for tag, name in (("id", "LaunchTemplateId"), ("version", "Version"))
        if f"LaunchTemplate.{name}" in call
    }
    for instance in reservation.instances:
        instance.client_token = call.get("ClientToken", "")
        instance.disable_api_termination = call.get("DisableApiTermination", "").lower() == "true"
        instance.cpu_options = cpus(instance.instance_type, call)
        instance.add_tags(template)
        instance.hibernation_options = {
            "Configured": call.get("HibernationOptions.Configured", "").lower() == "true"
        }
        _finish_cards(instance, call, (kwargs.get("tags") or {}).get("network-interface", {}))
        if profile:
            backend.associate_iam_instance_profile(instance.id, **profile)


def _finish_cards(instance: Any, call: Mapping[str, str], tags: Mapping[str, str]) -> None:
    """Complete the network cards, where moto passes over what the call says of each."""
    told: dict[int, dict[str, str]] = {}
    for name, value in call.items():
        if match := re.fullmatch(r"NetworkInterface\.(\d+)\.(\w+)", name):
            told.setdefault(int(match[1]), {})[match[2]] = value
    by_index = {int(card.get("DeviceIndex", "0")): card for card in told.values()}
    for index, card in instance.nics.items():
        of_call = by_index.get(index, {})
        if "Description" in of_call:
            card.description = of_call["Description"]
        # What a launch makes goes with its instance; moto keeps it, and its address.
        kept = of_call.get("DeleteOnTermination", "").lower() == "false"
        card.delete_on_termination = not kept and "NetworkInterfaceId" not in of_call
        card.add_tags(tags)
    if told:
        instance.security_groups = list(instance.nics[0]._group_set)


def cpus(kind: str, call: Mapping[str, str]) -> dict[str, int]:
    """The CpuOptions of an instance type, where a RunInstances asks for no others."""
    has = INSTANCE_TYPES[kind]["VCpuInfo"]
    threads = int(call.get("CpuOptions.ThreadsPerCore") or has.get("DefaultThreadsPerCore", 1))
    default = has.get("DefaultCores") or max(1, has["DefaultVCpus"] // threads)
    return {"CoreCount": int(call.get("CpuOptions.CoreCount") or default), "ThreadsPerCore": threads}


def unusable_key(backend: Any, key: str | None) -> str:
    """Why EC2 ends an instance whose volume is under a KMS key: "" where the key is there and enabled.

    RunInstances itself succeeds, since EC2 asks KMS afterwards.
    """
    if not key:
        return ""
    kms = kms_backends[backend.account_id][backend.region_name]
    parts = key.split(":")
    if len(parts) == 6 and (parts[3], parts[4]) != (backend.region_name, backend.account_id):
        return _NO_KEY
    name = parts[-1]
    found = kms.keys.get(name.removeprefix("key/"))
    if name.startswith("alias/"):
        found = kms.keys.get(kms.get_key_id_from_alias(name) or "")
    if found is None:
        return _NO_KEY
    symmetric = found.key_spec == "SYMMETRIC_DEFAULT"
    return "" if found.enabled and found.key_state == "Enabled" and symmetric else _WRONG_STATE


def install() -> None:
    """Give moto's instances the fields that EC2 answers for each, and moto writes where they are."""
    of_moto = Instance.public_dns_name.fget
    for name, value in {
        "platform_details": "Linux/UNIX",
        "usage_operation": "RunInstances",
        "ena_support": True,
        "boot_mode": "uefi-preferred",
        "current_instance_boot_mode": "uefi",
        "capacity_reservation_specification": {"CapacityReservationPreference": "open"},
        "enclave_options": {"Enabled": False},
        "maintenance_options": {"AutoRecovery": "default"},
    }.items():
        setattr(Instance, name, value)
    filter_dict_attribute_mapping.update(_FILTERS)
    Ami.sriov_net_support = property(lambda self: self.sriov)
    Instance.usage_operation_update_time = property(lambda self: self.launch_time)
    Instance.public_dns_name = property(lambda self: of_moto(self) or "")
