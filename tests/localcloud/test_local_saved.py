"""A cloud that was saved, and its copy: the same ids, tags, files, keys and messages."""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bake.errors import UsageError
from bake.instance import KeyPair
from bake.localcloud import Delays, Settings, down, over_socket, save, up
from bake.localcloud.settings import FIRST_INSTANCE
from bake.ssh import connect

from .test_local_scheduler import schedule
from .test_local_spot import market, requests, tagged

if TYPE_CHECKING:
    from .conftest import Account, Launched

pytestmark = pytest.mark.root
DATA = [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "VolumeType": "gp3"}}]
TAGGED: Any = [{"Name": "tag:bake:run", "Values": ["*"]}]


def command(launched: Launched, *words: str) -> str:
    with connect(launched.login) as session:
        return session.run(*words).stdout


def told(account: Account) -> dict[str, Any]:
    """What the API says, without what differs from cloud to cloud."""
    ec2, sqs, s3 = account.ec2, account.client("sqs"), account.client("s3")
    instances = ec2.describe_instances(Filters=TAGGED)["Reservations"]
    for group in instances:
        for one in group["Instances"]:
            one.pop("StateReason", None)
    snapshots = ec2.describe_snapshots(Filters=TAGGED)["Snapshots"]
    for snapshot in snapshots:
        snapshot.pop("FullSnapshotSizeInBytes")  # the room of the file, in which a copy may have other holes
    queues = sqs.list_queues()["QueueUrls"]
    return {
        "instances": instances,
        "keys": ec2.describe_key_pairs()["KeyPairs"],
        "groups": ec2.describe_security_groups()["SecurityGroups"],
        "images": ec2.describe_images(Owners=["self"], Filters=TAGGED)["Images"],
        "snapshots": snapshots,
        "volumes": ec2.describe_volumes()["Volumes"],
        "copies": account.client("ec2").describe_images(Owners=["self"])["Images"],
        "tags": sorted(ec2.describe_tags()["Tags"], key=repr),
        "queues": {url: sqs.list_queue_tags(QueueUrl=url).get("Tags") for url in queues},
        "objects": s3.list_objects_v2(Bucket="pictures")["Contents"],
        "rules": account.client("events").list_rules()["Rules"],
    }


def filled(account: Account) -> tuple[Launched, Launched]:
    """A machine that runs and one that is stopped, an AMI, and something of each service."""
    runs, stopped = account.launch(BlockDeviceMappings=DATA), account.launch()
    for one in (runs, stopped):
        account.reach(one.id, "running")
    command(runs, "sh", "-c", "echo kept > ~/file && printf data | sudo dd of=/dev/nvme1n1 && sync")
    account.ec2.stop_instances(InstanceIds=[stopped.id])
    account.reach(stopped.id, "stopped")
    tags = [{"Key": "bake:run", "Value": "x"}, {"Key": "bake:state", "Value": "good"}]
    for_image = [{"ResourceType": kind, "Tags": tags} for kind in ("image", "snapshot")]
    image = account.image_of(stopped.id, "an image", TagSpecifications=for_image)
    home = account.client("ec2")
    here = account.cloud.environment["SPOT_AWS_REGION"]
    copy = home.copy_image(Name="a copy", SourceImageId=image, SourceRegion=here)["ImageId"]
    home.get_waiter("image_available").wait(ImageIds=[copy], WaiterConfig={"Delay": 1})
    zone = account.ec2.describe_volumes()["Volumes"][0]["AvailabilityZone"]
    account.ec2.create_volume(AvailabilityZone=zone, Size=1, Encrypted=True)
    queue = account.client("sqs").create_queue(QueueName="jobs", tags={"bake:run": "x"})["QueueUrl"]
    account.client("sqs").send_message(QueueUrl=queue, MessageBody="a job")
    place = {"LocationConstraint": account.cloud.environment["AWS_REGION"]}
    account.client("s3").create_bucket(Bucket="pictures", CreateBucketConfiguration=place)
    account.client("s3").put_object(Bucket="pictures", Key="a", Body=b"png")
    account.client("events").put_rule(Name="done", EventPattern='{"source": ["x"]}')
    return runs, stopped


def test_a_copy_has_all_that_was_saved(own: Settings, tmp_path: Path, account_of: type[Account]) -> None:
    # The original shows all that it has at once; in the copy nothing is new.
    account = account_of(up(owner_pid=os.getpid(), delays=Delays(lenient=True)))
    runs, stopped = filled(account)
    over_socket(own)("POST", "/-/clock", b"+3h")
    save(tmp_path / "saved")
    before = told(account)
    command(runs, "sh", "-c", "echo later > ~/file && sync")  # the original goes on; the copy knows nothing
    account.terminate(stopped.id)
    down()

    copy = account_of(up(owner_pid=os.getpid(), saved=tmp_path / "saved"))
    assert told(copy) == before
    assert command(runs, "cat", "file").strip() == "kept"  # by the same key, at the same address
    assert command(runs, "sudo", "head", "-c", "4", "/dev/nvme1n1") == "data"
    assert over_socket(own)("GET", "/-/clock", None)["ahead_s"] == 3 * 3600
    sqs = copy.client("sqs")
    [message] = sqs.receive_message(QueueUrl=sqs.list_queues()["QueueUrls"][0])["Messages"]
    assert message["Body"] == "a job"
    assert copy.client("s3").get_object(Bucket="pictures", Key="a")["Body"].read() == b"png"
    copy.ec2.start_instances(InstanceIds=[stopped.id])
    copy.reach(stopped.id, "running")
    [image] = copy.ec2.describe_images(Owners=["self"], Filters=TAGGED)["Images"]
    again = copy.launch(image["ImageId"])
    copy.reach(again.id, "running")
    for one in (runs, stopped, again):
        copy.terminate(one.id)


def test_the_same_cloud_gives_many_copies(own: Settings, tmp_path: Path, account_of: type[Account]) -> None:
    account = account_of(up(owner_pid=os.getpid()))
    account.ec2.import_key_pair(KeyName="one", PublicKeyMaterial=KeyPair.generate().public.encode())
    save(tmp_path / "saved")
    for _ in range(2):
        down()
        copy = account_of(up(owner_pid=os.getpid(), saved=tmp_path / "saved"))
        subnet = copy.ec2.describe_subnets(SubnetIds=[copy.cloud.environment["BAKE_SUBNET_ID"]])
        network = ip_network(subnet["Subnets"][0]["CidrBlock"])
        launched = copy.launch()  # at the address that the original would give
        assert launched.login.address == str(network[FIRST_INSTANCE])
        copy.terminate(launched.id)
        copy.ec2.delete_key_pair(KeyName=launched.parameters["KeyName"])
        assert [pair["KeyName"] for pair in copy.ec2.describe_key_pairs()["KeyPairs"]] == ["one"]
        copy.ec2.delete_key_pair(KeyName="one")


def test_a_copy_fills_spot_requests_and_carries_out_schedules(
    own: Settings, tmp_path: Path, account_of: type[Account]
) -> None:
    """EC2's notice is forgotten, for nobody would carry it out."""
    account = account_of(up(owner_pid=os.getpid()))
    launched = account.launch(TagSpecifications=tagged("x"), **market())
    account.reach(launched.id, "running")
    control = over_socket(own)
    control("POST", f"/-/interruptions?instance={launched.id}&notice=1h", None)
    scheduler = account.client("scheduler", "SPOT_AWS_REGION")
    scheduler.create_schedule_group(Name="bake-x")
    scheduler.create_schedule(**schedule(account, "bake-x", launched.id, 3))
    save(tmp_path / "saved")
    down()

    copy = account_of(up(owner_pid=os.getpid(), saved=tmp_path / "saved"))
    [request] = requests(copy, "x")
    assert (request["Status"]["Code"], request["InstanceId"]) == ("fulfilled", launched.id)
    control("POST", "/-/clock", b"+2h")
    copy.reach(launched.id, "running")
    control("POST", "/-/clock", b"+2h")
    copy.reach(launched.id, "terminated")

    def another() -> str | None:
        [found] = requests(copy, "x")
        return found["InstanceId"] if found["InstanceId"] != launched.id else None

    second = copy.wait("another instance", another)
    copy.reach(second, "running")
    copy.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request["SpotInstanceRequestId"]])
    copy.terminate(second)


def test_what_can_not_be_a_copy_is_refused(
    own: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="has no saved cloud"):
        up(owner_pid=os.getpid(), saved=tmp_path)
    with pytest.raises(UsageError, match="is not up"):
        save(tmp_path / "saved")
    up(owner_pid=os.getpid())
    save(tmp_path / "saved")
    with pytest.raises(UsageError, match="exists already"):
        save(tmp_path / "saved")
    with pytest.raises(UsageError, match="is up already"):
        up(owner_pid=os.getpid(), saved=tmp_path / "saved")
    down()
    assert (tmp_path / "saved").stat().st_mode & 0o777 == 0o700
    for theirs in (tmp_path / "saved", tmp_path / "saved/api.pickle"):
        theirs.chmod(0o777)
        with pytest.raises(UsageError, match="not trusted"):
            up(owner_pid=os.getpid(), saved=tmp_path / "saved")
        theirs.chmod(0o700)
    monkeypatch.setenv("BAKE_LOCAL_NETWORK", "10.214.78.0/24")
    with pytest.raises(UsageError, match=f"saved on the network {own.network}"):
        up(owner_pid=os.getpid(), saved=tmp_path / "saved")
