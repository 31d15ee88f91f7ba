"""Volumes in machines: block devices that a machine reads and writes, also those that come while it runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bake.errors import RemoteCommandError
from bake.localcloud.images.hostile import find
from bake.localcloud.settings import Settings
from bake.ssh import Session, connect
from tests.localcloud.conftest import Account, Launched

pytestmark = pytest.mark.root

BASE = find("data-volume")


@pytest.fixture(scope="module")
def machine(account: Account) -> Iterator[Launched]:
    """A machine of the base that brings a volume of 200 GiB, with one more that outlives it."""
    mappings = [
        {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 80, "VolumeType": "gp3"}},
        {"DeviceName": "/dev/sdg", "Ebs": {"VolumeSize": 1, "DeleteOnTermination": False}},
    ]
    machine = account.launch(BASE.id, BlockDeviceMappings=mappings)
    yield machine
    if account.state(machine.id) != "terminated":
        account.terminate(machine.id)


@pytest.fixture(scope="module")
def session(machine: Launched) -> Iterator[Session]:
    with connect(machine.login) as session:
        yield session


def root(session: Session, command: str) -> str:
    return session.run("sh", "-c", command, sudo=True).stdout.strip()


def by_id(volume: str) -> str:
    return f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"


def volumes(account: Account, instance: str) -> dict[str, str]:
    filters = [{"Name": "attachment.instance-id", "Values": [instance]}]
    found = account.settled(lambda: account.ec2.describe_volumes(Filters=filters)["Volumes"])
    return {one["Attachments"][0]["Device"]: one["VolumeId"] for one in found}


def available(account: Account, volume: str) -> str:
    ready = [{"Name": "status", "Values": ["available"]}]
    account.settled(lambda: account.ec2.describe_volumes(VolumeIds=[volume], Filters=ready)["Volumes"])
    return volume


def test_a_machine_has_the_volumes_of_its_image_and_launch(
    account: Account, machine: Launched, session: Session
) -> None:
    assert root(session, "blockdev --getsize64 /dev/nvme1n1 /dev/nvme2n1").split() == [
        str(200 << 30),
        str(1 << 30),
    ]
    mapped = volumes(account, machine.id)
    assert root(session, f"readlink -f {by_id(mapped['/dev/sdf'])}") == "/dev/nvme1n1"
    assert root(session, f"readlink -f {by_id(mapped['/dev/sdg'])}") == "/dev/nvme2n1"


def test_nobody_else_in_it_reads_them_and_nobody_mounts_them(session: Session) -> None:
    """A container's root may not mount a disk: the local cloud's differences say so."""
    with pytest.raises(RemoteCommandError):
        session.run("head", "-c", "1", "/dev/nvme1n1")
    root(session, "mkfs.ext4 -q -F /dev/nvme2n1")
    if not Settings.load().trust_guests:
        with pytest.raises(RemoteCommandError, match=r"permission denied|not permitted"):
            root(session, "mount /dev/nvme2n1 /mnt")


def test_one_comes_and_goes_while_it_runs(account: Account, machine: Launched, session: Session) -> None:
    [group] = account.ec2.describe_instances(InstanceIds=[machine.id])["Reservations"]
    zone = group["Instances"][0]["Placement"]["AvailabilityZone"]
    made = account.ec2.create_volume(AvailabilityZone=zone, Size=1, VolumeType="gp3")["VolumeId"]
    available(account, made)
    account.ec2.attach_volume(VolumeId=made, InstanceId=machine.id, Device="/dev/sdh")
    root(session, "printf hot >/dev/nvme3n1; sync /dev/nvme3n1")
    account.ec2.modify_volume(VolumeId=made, Size=2)
    assert root(session, "blockdev --getsize64 /dev/nvme3n1") == str(2 << 30)
    # What it keeps under another name is of no use once the volume is gone.
    root(session, "ln /dev/nvme3n1 /dev/mine; head -c 1 /dev/mine")
    account.ec2.detach_volume(VolumeId=made)
    assert root(session, "ls /dev | grep -c nvme3n1 || true") == "0"
    with pytest.raises(RemoteCommandError, match="Permission denied"):
        root(session, "head -c 1 /dev/mine")
    account.ec2.attach_volume(VolumeId=made, InstanceId=machine.id, Device="/dev/sdi")
    assert root(session, "head -c 3 /dev/nvme3n1") == "hot"
    account.ec2.detach_volume(VolumeId=made)
    account.ec2.delete_volume(VolumeId=made)


def test_an_image_has_what_they_hold_and_a_kept_one_outlives_its_machine(
    account: Account, machine: Launched, session: Session
) -> None:
    root(session, "printf cold >/dev/nvme1n1; printf kept >/dev/nvme2n1; sync")
    kept = volumes(account, machine.id)["/dev/sdg"]
    image = account.image_of(machine.id, "with volumes")
    account.terminate(machine.id)
    available(account, kept)
    mapping = {"DeviceName": "/dev/sdg", "NoDevice": ""}
    again = account.launch(image, BlockDeviceMappings=[mapping])
    try:
        with connect(again.login) as other:
            assert root(other, "head -c 4 /dev/nvme1n1") == "cold"
            account.ec2.attach_volume(VolumeId=kept, InstanceId=again.id, Device="/dev/sdg")
            assert root(other, "head -c 4 /dev/nvme2n1") == "kept"
    finally:
        account.terminate(again.id)
        account.ec2.delete_volume(VolumeId=kept)
        account.ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)
