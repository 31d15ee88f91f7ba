"""AWS CLI: launch, change, image, boot from it, clean up."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from .conftest import PATIENCE, Desk, needed

pytestmark = [pytest.mark.root, pytest.mark.clients]


# What EC2 says of what it has not shown everywhere yet; the CLI and most of its waiters end with it.
LATE = re.compile(r"\.NotFound|Instance is not in state")


class Cli:
    """`aws ec2`, with JSON out."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.program = desk, needed("aws")

    def once(self, *words: str) -> Any:
        """The answer to a call."""
        text = self.desk.call(self.program, "ec2", *words, "--output", "json")
        return json.loads(text) if text.strip() else None

    def __call__(self, *words: str) -> Any:
        """The answer to a call that is made again while what it names is not shown yet, as scripts do."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.once(*words)
            except AssertionError as error:
                if not LATE.search(str(error)) or time.monotonic() > deadline:
                    raise

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
    dry = ("run-instances", "--dry-run", "--instance-type", "g6e.xlarge", "--image-id")
    with pytest.raises(AssertionError, match="DryRunOperation"):
        aws.once(*dry, desk.cloud.environment["BASE_AMI_ID"])
    with pytest.raises(AssertionError, match="InvalidAMIID"):
        aws.once(*dry, "ami-00000000000000000")
