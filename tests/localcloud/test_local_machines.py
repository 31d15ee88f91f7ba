"""Instances of the local cloud are real machines, and the API says what they really do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bake.errors import BakeError, ConnectionLost, RemoteCommandError
from bake.localcloud.lifecycle.local_cloud import LocalCloud
from bake.localcloud.machines.cgroups import Cgroups
from bake.localcloud.network import bridge
from bake.localcloud.settings import Settings
from bake.ssh import Login, Session, connect
from bake.steps.launch import KeyPair
from bake.wiring import queue_policy

pytestmark = pytest.mark.root

LIMITS = {"memory.max", "memory.limit_in_bytes"}
BOOT_ID = "/proc/sys/kernel/random/boot_id"
METADATA = "http://169.254.169.254/latest/meta-data"
GET = (
    'curl -sf -H "X-aws-ec2-metadata-token: $(curl -sf -X PUT '
    "-H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)\""
)


@pytest.fixture(scope="module")
def machine(account: Any) -> Iterator[Any]:
    machine = account.launch()
    yield machine
    account.terminate(machine.id)


@pytest.fixture(scope="module")
def session(machine: Any) -> Iterator[Session]:
    with connect(machine.login) as session:
        wait_for_cloud_init(session)
        yield session


def test_user_data_and_login_work_as_on_ec2(session: Session) -> None:
    assert session.run("cat", "/etc/greeting").stdout == "hello\n"
    assert session.run("cloud-init", "query", "cloud_name").stdout.strip() == "aws"
    assert session.run("whoami", sudo=True).stdout.strip() == "root"
    assert "running" in session.run("systemctl", "is-system-running", "--wait").stdout
    assert session.run_shell("systemctl --failed --no-legend").stdout == ""


def test_another_host_key_is_refused(machine: Any, session: Session) -> None:
    with pytest.raises(BakeError, match="another SSH host key"):
        connect(replace(machine.login, host_key=KeyPair.generate().public))


def test_metadata_demands_a_token(session: Session, machine: Any) -> None:
    metadata = f"{METADATA}/instance-id"
    refused = session.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", metadata)
    assert refused.stdout == "401"
    given = session.run_shell(f"{GET} {metadata}")
    assert given.stdout == machine.id


def test_the_root_volume_has_the_size_asked_for(session: Session, machine: Any, account: Any) -> None:
    size = int(session.run("df", "--output=size", "-B1", "/").stdout.split()[1])
    assert 77 << 30 < size < 80 << 30
    assert session.run("findmnt", "-no", "FSTYPE", "/").stdout.strip() == "ext4"
    filters = [{"Name": "attachment.instance-id", "Values": [machine.id]}]
    [volume] = account.ec2.describe_volumes(Filters=filters)["Volumes"]
    assert (volume["Size"], volume["VolumeType"], volume["Iops"], volume["Throughput"]) == (
        80,
        "gp3",
        3000,
        250,
    )


def test_it_has_the_memory_of_its_type(session: Session, machine: Any, cloud_settings: Settings) -> None:
    """g6e.xlarge: 32 GiB. That more is refused, tests/rehearsal/test_memory.py shows on a small type."""
    folder = Cgroups(cloud_settings, machine.id).memory
    assert folder is not None
    limits = {file.name: file.read_text() for file in folder.glob("memory.*") if file.name in LIMITS}
    assert [int(limit) for limit in limits.values()] == [32 << 30]


def test_fstrim_gives_deleted_blocks_back(session: Session, machine: Any, cloud_settings: Settings) -> None:
    disk = cloud_settings.instances / machine.id / "disk.img"
    session.run("fstrim", "/", sudo=True)
    before = disk.stat().st_blocks
    session.run_shell("sudo dd if=/dev/urandom of=/big bs=1M count=100 conv=fsync && sudo rm /big && sync")
    assert (disk.stat().st_blocks - before) * 512 > 90 << 20
    session.run("fstrim", "/", sudo=True)
    assert (disk.stat().st_blocks - before) * 512 < 20 << 20


def test_the_network_reaches_the_servers_and_never_the_hosts_metadata(
    session: Session, cloud: LocalCloud
) -> None:
    for url in (f"{cloud.wheels}/", f"{cloud.hub}/api/models/black-forest-labs/FLUX.1-dev"):
        assert session.run("curl", "-sf", "-o", "/dev/null", url).exit_code == 0
    assert session.run_shell("curl -s -m 2 http://169.254.169.254:81/").exit_code != 0


def test_a_repeated_launch_is_the_same_instance(machine: Any, account: Any) -> None:
    ec2 = account.ec2
    [again] = ec2.run_instances(**machine.parameters)["Instances"]
    assert again["InstanceId"] == machine.id
    with pytest.raises(ClientError, match="IdempotentParameterMismatch"):
        ec2.run_instances(**{**machine.parameters, "InstanceType": "g6.xlarge"})


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound", id="image"),
        pytest.param({"KeyName": "nobody"}, "InvalidKeyPair.NotFound", id="key"),
        pytest.param({"SubnetId": "subnet-0"}, "InvalidSubnetID.NotFound", id="subnet"),
        pytest.param({"InstanceType": "g99.huge"}, "InvalidParameterValue", id="type"),
        pytest.param({"UserData": "x" * 16385}, "InvalidParameterValue", id="user-data"),
        pytest.param(
            {"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 2}}]},
            "InvalidBlockDeviceMapping",
            id="small-volume",
        ),
    ],
)
def test_a_wrong_launch_is_refused(changes: dict[str, object], code: str, account: Any) -> None:
    with pytest.raises(ClientError) as refused:
        account.launch(**changes)
    assert refused.value.response["Error"]["Code"].startswith(code)


def test_the_status_is_ok_once_ssh_answers(machine: Any, session: Session, account: Any) -> None:
    def ok() -> bool | None:
        [status] = account.ec2.describe_instance_status(InstanceIds=[machine.id])["InstanceStatuses"]
        return {status["InstanceStatus"]["Status"], status["SystemStatus"]["Status"]} == {"ok"} or None

    assert account.wait("its status to be ok", ok)


def test_the_console_is_the_machines_own(machine: Any, session: Session, account: Any) -> None:
    output = account.ec2.get_console_output(InstanceId=machine.id)["Output"]
    assert "Reached target" in output
    assert len(output) <= 64 << 10


def test_what_the_local_cloud_lacks_is_refused_at_once(account: Any) -> None:
    with pytest.raises(ClientError, match="UnsupportedOperation") as refused:
        account.ec2.describe_bundle_tasks()
    assert refused.value.response["ResponseMetadata"]["RetryAttempts"] == 0


def wait_for_cloud_init(session: Session) -> None:
    """Until it is done: with 2, newer ones say that they had to ask the metadata service again."""
    assert session.run("cloud-init", "status", "--wait", check=False).exit_code in (0, 2)


def another_boot(login: Login, last: str) -> bool | None:
    """Whether the machine has booted since it had this boot id: on its way down it still answers."""
    with suppress(ConnectionLost, RemoteCommandError), connect(login) as session:
        return True if session.run("cat", BOOT_ID).stdout != last else None
    return None


def test_image_stop_start_and_boot_from_the_image(
    cloud: LocalCloud, cloud_settings: Settings, account: Any
) -> None:
    """The whole life of a builder and of what is booted from its image, in order."""
    ec2 = account.ec2
    builder = account.launch()
    with connect(builder.login) as session:
        wait_for_cloud_init(session)
        session.run_shell("echo mark | sudo tee /etc/mark && sync")
    ec2.stop_instances(InstanceIds=[builder.id])
    assert account.reach(builder.id, "stopped") <= {"stopping", "stopped"}

    tags = [{"Key": "bake:run", "Value": "r"}]
    kinds = [{"ResourceType": kind, "Tags": tags} for kind in ("image", "snapshot")]
    image = ec2.create_image(InstanceId=builder.id, Name="test image", TagSpecifications=kinds)["ImageId"]
    [first] = ec2.describe_images(ImageIds=[image])["Images"]
    assert first["State"] in {"pending", "available"}
    ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig={"Delay": 1, "MaxAttempts": 300})
    [found] = ec2.describe_images(Owners=["self"], ImageIds=[image])["Images"]
    [mapping] = found["BlockDeviceMappings"]
    assert (found["ImageId"], found["Tags"], mapping["Ebs"]["VolumeSize"]) == (image, tags, 80)
    [snapshot] = ec2.describe_snapshots(SnapshotIds=[mapping["Ebs"]["SnapshotId"]])["Snapshots"]
    assert (snapshot["State"], snapshot["Progress"], snapshot["VolumeSize"]) == ("completed", "100%", 80)
    assert snapshot["Tags"] == tags
    with pytest.raises(ClientError, match=r"InvalidAMIName\.Duplicate"):
        ec2.create_image(InstanceId=builder.id, Name="test image")

    ec2.start_instances(InstanceIds=[builder.id])
    assert account.reach(builder.id, "running") <= {"pending", "running"}
    with connect(builder.login) as session:
        assert session.run("cat", "/etc/mark").stdout == "mark\n"
    ec2.terminate_instances(InstanceIds=[builder.id])
    assert account.state(builder.id) in {"shutting-down", "terminated"}
    account.reach(builder.id, "terminated")
    assert not (cloud_settings.instances / builder.id).exists()

    booted = account.launch(image, InstanceInitiatedShutdownBehavior="terminate")
    with connect(booted.login) as session:
        assert session.run("cat", "/etc/mark").stdout == "mark\n"
        boot = session.run("cat", BOOT_ID).stdout
        with suppress(ConnectionLost):  # it may be gone before the command's exit code comes
            session.run("reboot", sudo=True, check=False)
    account.wait("another boot", lambda: another_boot(booted.login, boot))
    with connect(booted.login) as session:
        assert account.state(booted.id) == "running"
        with suppress(ConnectionLost):
            session.run("poweroff", sudo=True, check=False)
    account.reach(booted.id, "terminated")
    with pytest.raises(ClientError, match=r"InvalidSnapshot\.InUse"):
        ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])
    ec2.deregister_image(ImageId=image)
    ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])
    ours = (image, snapshot["SnapshotId"])
    assert [file for file in cloud_settings.images.iterdir() if file.name.startswith(ours)] == []


@pytest.mark.parametrize(
    "name", ["x" * 129, "flux:1", "a+b", "flüx", "a\tb", "{run}", "a\nb", "abc\n"], ids=ascii
)
def test_a_name_that_ec2_would_refuse(account: Any, name: str) -> None:
    with pytest.raises(ClientError) as caught:
        account.ec2.create_image(InstanceId="i-0123456789abcdef0", Name=name)
    assert caught.value.response["Error"]["Code"] == "InvalidAMIName.Malformed"


@pytest.mark.parametrize("name", ["abc", "x" * 128, "a (b) [c] d.e/f-g'h@i_j"])
def test_a_name_that_ec2_takes(account: Any, name: str) -> None:
    with pytest.raises(ClientError) as caught:
        account.ec2.create_image(InstanceId="i-0123456789abcdef0", Name=name)
    assert caught.value.response["Error"]["Code"] == "InvalidInstanceID.NotFound"


def test_an_image_of_a_running_machine(machine: Any, session: Session, account: Any) -> None:
    ec2 = account.ec2
    boot = session.run("cat", BOOT_ID).stdout
    image = ec2.create_image(InstanceId=machine.id, Name="running", NoReboot=True)["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig={"Delay": 1, "MaxAttempts": 300})
    assert session.run("cat", BOOT_ID).stdout == boot
    ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)
    assert image not in [one["ImageId"] for one in ec2.describe_images(Owners=["self"])["Images"]]
    mine = ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    assert [snapshot for snapshot in mine if image in snapshot["Description"]] == []


def test_the_instance_has_credentials_and_events_arrive(session: Session, account: Any) -> None:
    """A rule on the bus delivers to a queue; the role's credentials are there for boto3."""
    sqs, events = account.client("sqs"), account.client("events")
    queue = sqs.create_queue(QueueName="test-events")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.create_event_bus(Name="test")
    pattern = json.dumps({"source": ["flux.worker"]})
    rule = events.put_rule(Name="all", EventBusName="test", EventPattern=pattern)["RuleArn"]
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": queue_policy(arn, rule)})
    events.put_targets(Rule="all", EventBusName="test", Targets=[{"Id": "q", "Arn": arn}])
    entry = {"Source": "flux.worker", "DetailType": "t", "Detail": '{"id": "1"}', "EventBusName": "test"}

    def sent() -> Any:
        """Send it until it arrives: a new bus may lose an event."""
        assert events.put_events(Entries=[entry])["FailedEntryCount"] == 0
        return sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=1).get("Messages")

    [message] = account.wait("the event", sent)
    assert json.loads(message["Body"])["detail"] == {"id": "1"}
    role = session.run_shell(f"roles={METADATA}/iam/security-credentials; {GET} $roles/$({GET} $roles/)")
    assert {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"} <= json.loads(role.stdout).keys()


def test_terminate_leaves_nothing(cloud_settings: Settings, account: Any) -> None:
    machine = account.launch()
    account.reach(machine.id, "running")
    account.ec2.terminate_instances(InstanceIds=[machine.id])
    account.reach(machine.id, "terminated")
    number = machine.login.address.split(".")[-1]
    assert f"interface {cloud_settings.bridge}-{number}" not in bridge.left(cloud_settings)
    assert machine.id not in Path("/proc/self/mountinfo").read_text()
    filters = [{"Name": "attachment.instance-id", "Values": [machine.id]}]
    assert account.ec2.describe_volumes(Filters=filters)["Volumes"] == []


def test_no_disk_of_the_hosts_shows_inside(session: Session) -> None:
    """Except nspawn's own way in, which is in memory where /run is."""
    mounts = session.run("findmnt", "-rno", "TARGET,SOURCE", "--real").stdout.splitlines()
    assert [
        mount for mount in mounts if " /dev/" in mount and not mount.startswith(("/ ", "/run/host/"))
    ] == []
