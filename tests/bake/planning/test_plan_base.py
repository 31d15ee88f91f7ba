"""What speaks against a base AMI."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bake.errors import UsageError
from bake.planning.base_image import BaseImage, system_of

from .conftest import UBUNTU, Account


def register(account: Account, name: str, **facts: Any) -> str:
    """An AMI of the account."""
    ami = replace(UBUNTU, id="ami-00000000000000042", name=name, description="", **facts)
    account.amis[ami.id] = ami
    return ami.id


@pytest.mark.parametrize(
    ("name", "description", "expected"),
    [
        ("Deep Learning AMI Neuron PyTorch 2.6 (Ubuntu 22.04) 20260101", "", "ubuntu"),
        ("Deep Learning Base OSS Nvidia Driver GPU AMI (Amazon Linux 2023) 20260101", "", "amazon-linux"),
        ("al2023-ami-2023.6.20260101-kernel-6.1-x86_64", "", "amazon-linux"),
        ("amzn2-ami-hvm-2.0", "", "amazon-linux"),
        ("Stand-in for Deep Learning Base AMI (Debian 12)", "", "ubuntu"),
        ("golden-42", "Canonical, Ubuntu, 24.04 LTS", "ubuntu"),
        ("golden-42", "", None),
    ],
)
def test_the_name_tells_the_system(name: str, description: str, expected: str | None) -> None:
    assert system_of(BaseImage("ami-1", name, "x86_64", "/dev/sda1", 8, description)) == expected


def test_another_system_than_the_profiles(account: Account) -> None:
    amazon = account.variables["BASE_AMI_ID_AMAZON_LINUX"]
    with pytest.raises(UsageError, match=r"base\.os: the profile says ubuntu, but .* which is amazon-linux"):
        account.plan(base={"ami": amazon})


def test_a_system_that_cannot_be_told_is_noted(account: Account) -> None:
    golden = register(account, "golden-image")
    plan = account.plan(base={"ami": golden})
    assert f"the operating system of {golden} (its name, 'golden-image', does not say)" in plan.unchecked


def test_another_architecture(account: Account) -> None:
    arm = register(account, "ubuntu-arm", architecture="arm64")
    with pytest.raises(
        UsageError, match=f"builder.instance_type: {arm} is arm64, but g6e.xlarge runs x86_64"
    ):
        account.plan(base={"ami": arm})


def test_a_root_device_that_is_not_on_ebs(account: Account) -> None:
    ami = register(account, "ubuntu-instance-store", root_device_type="instance-store")
    with pytest.raises(UsageError, match=f"{ami} has no EBS root volume; only EBS can be snapshotted"):
        account.plan(base={"ami": ami})


def test_an_ami_that_is_not_available(account: Account) -> None:
    ami = register(account, "ubuntu-pending", state="pending")
    with pytest.raises(UsageError, match=f"base.ami: {ami} is pending, not available"):
        account.plan(base={"ami": ami})


def test_a_neuron_ami_for_cuda_is_warned_of(account: Account) -> None:
    ami = register(account, "Deep Learning AMI Neuron (Ubuntu 22.04)")
    plan = account.plan(base={"ami": ami})
    assert any("made for Neuron, it may lack the NVIDIA driver" in text for text in plan.warnings)
