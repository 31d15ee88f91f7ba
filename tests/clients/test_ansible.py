"""Ansible's amazon.aws: launch, image, boot from it, clean up, and change nothing the second time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Desk, needed

pytestmark = [pytest.mark.root, pytest.mark.clients]

HEAD: dict[str, Any] = {"hosts": "localhost", "connection": "local", "gather_facts": False}
# EC2 shows late what it has made; a play asks again, as its authors' own do.
AGAIN: dict[str, Any] = {"register": "told", "until": "told is not failed", "retries": 20, "delay": 1}


def play(desk: Desk, *tasks: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a play of these tasks; their results."""
    (desk.folder / "play.json").write_text(
        json.dumps([{**HEAD, "tasks": [{**one, **AGAIN} for one in tasks]}])
    )
    told = desk.call(
        needed("ansible-playbook"),
        "play.json",
        ANSIBLE_STDOUT_CALLBACK="ansible.posix.json",
        ANSIBLE_LOCALHOST_WARNING="false",
        ANSIBLE_PYTHON_INTERPRETER=needed("python"),
    )
    [one] = json.loads(told)["plays"]
    return [task["hosts"]["localhost"] for task in one["tasks"]]


def instance(desk: Desk, image: str, **more: Any) -> dict[str, Any]:
    found = desk.cloud.environment
    return {
        "amazon.aws.ec2_instance": {
            "name": desk.name,
            "image_id": image,
            "instance_type": "g6e.xlarge",
            "key_name": desk.name,
            "vpc_subnet_id": found["BAKE_SUBNET_ID"],
            "security_groups": [found["BAKE_SECURITY_GROUP_ID"]],
            "iam_instance_profile": found["BAKE_INSTANCE_PROFILE"],
            "wait": True,
            "wait_timeout": 300,
            **more,
        }
    }


def test_it_makes_an_image_and_boots_from_it(desk: Desk) -> None:
    public = desk.key.with_suffix(".pub").read_text()
    key = {"amazon.aws.ec2_key": {"name": desk.name, "key_material": public}}
    base = desk.cloud.environment["BASE_AMI_ID"]
    made, launched, again = play(desk, key, instance(desk, base), instance(desk, base))
    assert made["changed"] and launched["changed"] and not again["changed"]
    [first] = launched["instances"]
    desk.ssh(first["public_ip_address"], "sudo sh -c 'echo made by Ansible > /etc/made' && sync")
    tags = {"Name": desk.name}
    image = {"name": f"{desk.name} image", "instance_id": first["instance_id"], "wait": True, "tags": tags}
    [imaged] = play(desk, {"amazon.aws.ec2_ami": image})
    assert imaged["state"] == "available"
    gone = {
        "amazon.aws.ec2_instance": {"instance_ids": [first["instance_id"]], "state": "absent", "wait": True}
    }
    _, booted = play(desk, gone, instance(desk, imaged["image_id"]))
    [second] = booted["instances"]
    assert second["image_id"] == imaged["image_id"]
    assert desk.ssh(second["public_ip_address"], "cat /etc/made") == "made by Ansible"
    gone["amazon.aws.ec2_instance"]["instance_ids"] = [second["instance_id"]]
    away = {"image_id": imaged["image_id"], "state": "absent", "delete_snapshot": True}
    ended, deregistered, forgotten = play(
        desk,
        gone,
        {"amazon.aws.ec2_ami": away},
        {"amazon.aws.ec2_key": {"name": desk.name, "state": "absent"}},
    )
    assert ended["changed"] and deregistered["changed"] and forgotten["changed"]
