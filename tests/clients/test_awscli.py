"""AWS CLI: launch, change, image, boot from it, clean up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Desk, needed

pytestmark = [pytest.mark.root, pytest.mark.clients]


class Cli:
    """`aws ec2`, with JSON out."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.program = desk, needed("aws")

    def __call__(self, *words: str) -> Any:
        text = self.desk.call(self.program, "ec2", *words, "--output", "json")
        return json.loads(text) if text.strip() else None

    def launch(self, image: str) -> tuple[str, str]:
        """An instance that runs: id and public address."""
        found = self.desk.cloud.environment
        tags = f"[{{Key=Name,Value={self.desk.name}}}]"
        launched = self(
            *("run-instances", "--image-id", image, "--instance-type", "g6e.xlarge"),
            *("--key-name", self.desk.name, "--subnet-id", found["BAKE_SUBNET_ID"]),
            *("--security-group-ids", found["BAKE_SECURITY_GROUP_ID"]),
            *(
                "--tag-specifications",
                f"ResourceType=instance,Tags={tags}",
                f"ResourceType=volume,Tags={tags}",
            ),
        )["Instances"][0]["InstanceId"]
        self("wait", "instance-running", "--instance-ids", launched)
        facts = self("describe-instances", "--instance-ids", launched)["Reservations"][0]["Instances"][0]
        return launched, facts["PublicIpAddress"]


def test_it_makes_an_image_and_boots_from_it(desk: Desk) -> None:
    aws = Cli(desk)
    public = f"fileb://{desk.key}.pub"
    aws("import-key-pair", "--key-name", desk.name, "--public-key-material", public)
    instance, address = aws.launch(desk.cloud.environment["BASE_AMI_ID"])
    desk.ssh(address, "sudo sh -c 'echo made by the CLI > /etc/made' && sync")
    aws("stop-instances", "--instance-ids", instance)
    aws("wait", "instance-stopped", "--instance-ids", instance)
    tags = f"[{{Key=Name,Value={desk.name}}}]"
    image = aws(
        *("create-image", "--instance-id", instance, "--name", f"{desk.name} image"),
        *("--tag-specifications", f"ResourceType=image,Tags={tags}", f"ResourceType=snapshot,Tags={tags}"),
    )["ImageId"]
    aws("wait", "image-available", "--image-ids", image)
    aws("terminate-instances", "--instance-ids", instance)
    second, address = aws.launch(image)
    assert desk.ssh(address, "cat /etc/made") == "made by the CLI"
    aws("terminate-instances", "--instance-ids", second)
    aws("wait", "instance-terminated", "--instance-ids", instance, second)
    aws("deregister-image", "--image-id", image, "--delete-associated-snapshots")
    aws("delete-key-pair", "--key-name", desk.name)


def test_it_pages_and_asks_without_doing(desk: Desk) -> None:
    aws = Cli(desk)
    everything = aws("describe-images")["Images"]
    paged = aws("describe-images", "--page-size", "5")["Images"]
    assert [one["ImageId"] for one in paged] == [one["ImageId"] for one in everything]
    assert len(everything) > 5
    first = aws("describe-images", "--max-items", "3")
    assert len(first["Images"]) == 3
    assert first["NextToken"]
    with pytest.raises(AssertionError, match="DryRunOperation"):
        aws("run-instances", "--dry-run", "--image-id", desk.cloud.environment["BASE_AMI_ID"])
    with pytest.raises(AssertionError, match="InvalidAMIID"):
        aws("run-instances", "--dry-run", "--image-id", "ami-00000000000000000")
