"""Hostile bases: what EC2 says of them, and what is planted on a machine that is launched from one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner

from bake import ssh
from bake.errors import BakeError, UsageError
from bake.localcloud.cli import local
from bake.localcloud.images.hostile import HOSTILE, SCRIPTS, Hostile, HostileBase, find, hostile_bases
from bake.localcloud.images.store import ImageStore
from bake.localcloud.lifecycle import cloud as localcloud
from bake.localcloud.lifecycle.local_cloud import LocalCloud
from bake.localcloud.machines import disks
from bake.localcloud.machines.hostile import plant
from bake.localcloud.settings import Settings

if TYPE_CHECKING:
    from tests.localcloud.conftest import Account, Launched

AMI_NAME = r"[A-Za-z0-9()\[\] ./'@_-]{3,128}"  # as CreateImage takes them


def test_each_base_has_a_name_and_an_id_of_its_own() -> None:
    every = list(hostile_bases())
    assert len({base.id for base in every}) == len({base.name for base in every}) == len(every)
    assert all(re.fullmatch(AMI_NAME, base.name) for base in every)
    assert all(re.fullmatch(r"ami-[0-9a-f]{17}", base.id) for base in every)


def test_each_script_has_a_base_and_each_base_something_hostile() -> None:
    asked = {hostile.script or hostile.name for hostile in HOSTILE}
    assert {script.stem for script in SCRIPTS.glob("*.sh")} <= asked
    plain = Hostile("", "")
    for base in hostile_bases():
        hostile = base.hostile
        of_image = (hostile.root_device, hostile.mappings, hostile.encrypted)
        assert base.script or of_image != (plain.root_device, plain.mappings, plain.encrypted), base.name


def test_one_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="no hostile base umask-078 for ubuntu"):
        find("umask-078")


def test_they_are_listed_for_people_and_for_programs() -> None:
    text = CliRunner().invoke(local, ["bases"]).output
    assert "Hostile base umask-077 (Amazon Linux 2023)" in text
    listed = json.loads(CliRunner().invoke(local, ["bases", "--json"]).output)
    [one] = [base for base in listed if (base["base"], base["system"]) == ("data-volume", "ubuntu")]
    assert (one["owner"], one["outcome"], one["id"]) == ("self", "stops", find("data-volume").id)


# --- what EC2 says ----------------------------------------------------------------------------------


def image(account: Account, base: HostileBase) -> dict[str, Any]:
    named = [{"Name": "name", "Values": [base.name]}]
    [found] = account.ec2.describe_images(Owners=[base.owner], Filters=named)["Images"]
    return dict(found)


def root_of(account: Account, base: HostileBase) -> dict[str, Any]:
    found = image(account, base)
    mappings = {one["DeviceName"]: one for one in found["BlockDeviceMappings"]}
    return dict(mappings[found["RootDeviceName"]]["Ebs"])


@pytest.mark.root
def test_all_are_found_by_name_and_owner(account: Account) -> None:
    for base in hostile_bases():
        found = image(account, base)
        assert (found["ImageId"], found["State"]) == (base.id, "available")
        assert root_of(account, base)["VolumeSize"] == base.hostile.gib


@pytest.mark.root
def test_mappings_are_told_as_ec2_tells_them(account: Account) -> None:
    [root, *more] = image(account, find("ephemeral"))["BlockDeviceMappings"]
    assert root["DeviceName"] == "/dev/sda1"
    assert more == [
        {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
        {"DeviceName": "/dev/sdc", "VirtualName": "ephemeral1"},
        {"DeviceName": "/dev/sdd", "NoDevice": ""},
    ]
    [_, data] = image(account, find("data-volume"))["BlockDeviceMappings"]
    assert (data["DeviceName"], data["Ebs"]["VolumeSize"]) == ("/dev/sdf", 200)


@pytest.mark.root
def test_the_snapshot_of_one_as_amazons_can_not_be_described(account: Account) -> None:
    snapshot = root_of(account, find("full"))["SnapshotId"]
    with pytest.raises(ClientError, match=r"InvalidSnapshot\.NotFound"):
        account.ec2.describe_snapshots(SnapshotIds=[snapshot])
    assert snapshot not in [one["SnapshotId"] for one in account.ec2.describe_snapshots()["Snapshots"]]
    mine = root_of(account, find("umask-077"))["SnapshotId"]
    assert account.ec2.describe_snapshots(SnapshotIds=[mine])["Snapshots"][0]["State"] == "completed"


@pytest.mark.root
def test_an_encrypted_snapshot_has_its_key(account: Account) -> None:
    root = root_of(account, find("encrypted-root"))
    [snapshot] = account.ec2.describe_snapshots(SnapshotIds=[root["SnapshotId"]])["Snapshots"]
    assert root["Encrypted"] is snapshot["Encrypted"] is True
    assert re.fullmatch(r"arn:aws:kms:eu-north-1:\d{12}:key/.+", snapshot["KmsKeyId"])


# --- machines ---------------------------------------------------------------------------------------


def launch(account: Account, name: str, *more: dict[str, Any], **changes: Any) -> Launched:
    base = find(name)
    root = {"DeviceName": base.hostile.root_device, "Ebs": {"VolumeSize": 80, "VolumeType": "gp3"}}
    return account.launch(base.id, BlockDeviceMappings=[root, *more], **changes)


@pytest.fixture
def booted(account: Account) -> Iterator[Any]:
    """Launches a base, and says what a shell command prints there."""
    launched: list[str] = []

    def run(name: str, command: str, *more: dict[str, Any]) -> str:
        instance = launch(account, name, *more)
        launched.append(instance.id)
        try:
            with ssh.connect(instance.login) as session:
                return session.run("sh", "-c", command, sudo=True).stdout
        except BakeError:  # pytest shows it where the test fails
            print(account.ec2.describe_instances(InstanceIds=[instance.id])["Reservations"])
            print(account.ec2.get_console_output(InstanceId=instance.id).get("Output"))
            raise

    yield run
    account.ec2.terminate_instances(InstanceIds=launched)


@pytest.mark.root
def test_what_is_planted_is_on_the_machine_and_nowhere_else(account: Account, booted: Any) -> None:
    disk = Settings.load().cache / "base"
    before = {path: path.stat().st_mtime_ns for path in disk.rglob("disk.img")}
    assert "BEGIN RSA PRIVATE KEY" in booted("keys-in-opt", "cat /opt/vendor/examples/tls/server.pem")
    assert {path: path.stat().st_mtime_ns for path in disk.rglob("disk.img")} == before


@pytest.mark.root
def test_a_full_one_is_full_and_takes_no_room_on_the_host(account: Account, booted: Any) -> None:
    used, size = booted("full", "df --block-size=1G --output=used,size / | tail -1").split()
    assert (int(used), int(size)) > (45, 75)
    [status] = [one for one in localcloud.status().instances if one.image == find("full").id]  # type: ignore[union-attr]
    assert status.volume_gib == 80
    assert status.disk_bytes < 2 << 30


@pytest.mark.root
def test_a_root_device_of_another_name_is_kept_by_the_image(account: Account) -> None:
    instance = launch(account, "xvda-root")
    account.reach(instance.id, "running")
    facts = account.ec2.describe_instances(InstanceIds=[instance.id])["Reservations"][0]["Instances"][0]
    assert facts["RootDeviceName"] == facts["BlockDeviceMappings"][0]["DeviceName"] == "/dev/xvda"
    made = account.image_of(instance.id, "of-xvda-root", NoReboot=True)
    [found] = account.ec2.describe_images(ImageIds=[made])["Images"]
    assert found["RootDeviceName"] == found["BlockDeviceMappings"][0]["DeviceName"] == "/dev/xvda"
    account.ec2.deregister_image(ImageId=made, DeleteAssociatedSnapshots=True)
    account.terminate(instance.id)


@pytest.mark.root
def test_what_is_made_of_an_encrypted_snapshot_is_encrypted(account: Account) -> None:
    key = account.ec2.describe_snapshots(
        SnapshotIds=[root_of(account, find("encrypted-root"))["SnapshotId"]]
    )["Snapshots"][0]["KmsKeyId"]
    instance = launch(account, "encrypted-root")
    account.reach(instance.id, "running")
    attached = [{"Name": "attachment.instance-id", "Values": [instance.id]}]
    [volume] = account.settled(lambda: account.ec2.describe_volumes(Filters=attached)["Volumes"])
    assert (volume["Encrypted"], volume["KmsKeyId"]) == (True, key)
    made = account.image_of(instance.id, "of-encrypted-root", NoReboot=True)
    [found] = account.ec2.describe_images(ImageIds=[made])["Images"]
    ebs = found["BlockDeviceMappings"][0]["Ebs"]
    [snapshot] = account.ec2.describe_snapshots(SnapshotIds=[ebs["SnapshotId"]])["Snapshots"]
    assert (ebs["Encrypted"], snapshot["Encrypted"], snapshot["KmsKeyId"]) == (True, True, key)
    account.ec2.deregister_image(ImageId=made, DeleteAssociatedSnapshots=True)
    account.terminate(instance.id)


@pytest.mark.root
def test_instance_stores_are_mapped_and_volumes_are_mapped_away(account: Account, booted: Any) -> None:
    store = {"DeviceName": "/dev/sdg", "VirtualName": "ephemeral0"}
    assert booted("ephemeral", "echo yes", store, {"DeviceName": "/dev/sdb", "NoDevice": ""}) == "yes\n"
    instance = launch(account, "data-volume", {"DeviceName": "/dev/sdf", "NoDevice": ""})
    attached = [{"Name": "attachment.instance-id", "Values": [instance.id]}]
    [volume] = account.settled(lambda: account.ec2.describe_volumes(Filters=attached)["Volumes"])
    assert volume["Attachments"][0]["Device"] == "/dev/sda1"
    account.terminate(instance.id)


@pytest.mark.root
def test_an_image_keeps_the_instance_stores_of_its_base(account: Account) -> None:
    instance = launch(account, "ephemeral")
    account.reach(instance.id, "running")
    made = account.image_of(instance.id, "of-ephemeral", NoReboot=True)
    [found] = account.ec2.describe_images(ImageIds=[made])["Images"]
    stores = [(one["DeviceName"], one.get("VirtualName")) for one in found["BlockDeviceMappings"]]
    assert stores == [("/dev/sda1", None), ("/dev/sdb", "ephemeral0"), ("/dev/sdc", "ephemeral1")]
    [stored] = [image for image in ImageStore(Settings.load().images).images() if image.id == made]
    assert [one["DeviceName"] for one in stored.more_mappings] == ["/dev/sdb", "/dev/sdc"]
    account.ec2.deregister_image(ImageId=made, DeleteAssociatedSnapshots=True)
    account.terminate(instance.id)


@pytest.mark.root
def test_a_script_that_fails_ends_the_launch_and_says_why(
    cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process: the cloud's own has the catalogue as it is."""
    monkeypatch.setattr(HostileBase, "script", "echo no such tool >&2; exit 3")
    settings, machine = Settings.load(), tmp_path / "i-1"
    machine.mkdir()
    disks.clone(next(settings.cache.glob("base/*/base.json")).with_name("disk.img"), machine / "disk.img")
    with pytest.raises(BakeError, match=r"exit code 3(.|\n)*no such tool"):
        plant(settings, find("umask-077"), machine / "disk.img", machine / "root")
    assert str(machine / "root") not in disks.mounted()
