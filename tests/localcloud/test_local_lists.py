"""What finds a run's things by their tags answers as on AWS."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from .moto_account import new

LISTS = {
    "volume": ("describe_volumes", "Volumes", {"CreateTime", "State"}),
    "key-pair": ("describe_key_pairs", "KeyPairs", {"CreateTime"}),
    "security-group": ("describe_security_groups", "SecurityGroups", {"GroupId"}),
    "instance": ("describe_instances", "Reservations", {"Instances"}),
    "image": ("describe_images", "Images", {"CreationDate", "State"}),
    "snapshot": ("describe_snapshots", "Snapshots", {"StartTime", "State"}),
}


@pytest.mark.root
def test_a_runs_things_are_found_by_their_tags(account: Any) -> None:
    """By a tag's key alone, and by its value; a stranger's are left out."""
    name = new("lists")
    tags = [{"Key": "bake:run", "Value": name}, {"Key": f"only-{name}", "Value": "x"}]
    specified = [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")]
    launched = account.launch(TagSpecifications=specified)
    try:
        ec2 = account.ec2
        pair = launched.parameters["KeyName"]
        [described] = ec2.describe_key_pairs(KeyNames=[pair])["KeyPairs"]
        vpc = ec2.describe_subnets(SubnetIds=[launched.parameters["SubnetId"]])["Subnets"][0]["VpcId"]
        group = ec2.create_security_group(GroupName=name, Description="a test's", VpcId=vpc)["GroupId"]
        account.reach(launched.id, "running")
        image = account.image_of(launched.id, name, NoReboot=True)
        mapping = ec2.describe_images(ImageIds=[image])["Images"][0]["BlockDeviceMappings"][0]
        snapshot = mapping["Ebs"]["SnapshotId"]
        ec2.create_tags(Resources=[described["KeyPairId"], group, image, snapshot], Tags=tags)
        for kind, (operation, listed, fields) in LISTS.items():
            for key, value in (("tag-key", f"only-{name}"), ("tag:bake:run", name)):
                asked = [{"Name": key, "Values": [value]}]
                ask = getattr(ec2, operation)
                found = account.wait(
                    kind, lambda ask=ask, asked=asked, listed=listed: ask(Filters=asked)[listed] or None
                )
                assert len(found) == 1, (kind, key)
                assert fields <= found[0].keys(), kind
                shown = found[0]["Instances"][0] if kind == "instance" else found[0]
                assert {"Key": "bake:run", "Value": name} in shown["Tags"], kind
        ec2.delete_security_group(GroupId=group)
        with pytest.raises(ClientError, match=r"InvalidSnapshot\.InUse"):
            ec2.delete_snapshot(SnapshotId=snapshot)
        ec2.disable_image(ImageId=image)
        assert "disabled" in {
            one["State"] for one in ec2.describe_images(ImageIds=[image], IncludeDisabled=True)["Images"]
        }
        ec2.enable_image(ImageId=image)
        ec2.deregister_image(ImageId=image)
        ec2.delete_snapshot(SnapshotId=snapshot)
    finally:
        account.terminate(launched.id)


@pytest.mark.root
def test_queues_buckets_and_buses_are_listed_by_prefix_with_tags(account: Any) -> None:
    name, other = new("bake-lists"), new("other")
    sqs, events, s3 = (account.client(service) for service in ("sqs", "events", "s3"))
    tag = [{"Key": "bake:run", "Value": name}]
    urls = [sqs.create_queue(QueueName=one, tags={"bake:run": one})["QueueUrl"] for one in (name, other)]
    arns = [events.create_event_bus(Name=one, Tags=tag)["EventBusArn"] for one in (name, other)]
    region: Any = {"LocationConstraint": account.cloud.environment["AWS_REGION"], "Tags": tag}
    s3.create_bucket(Bucket=name, CreateBucketConfiguration=region)
    try:
        listed = account.wait(
            "a queue", lambda: sqs.list_queues(QueueNamePrefix=name).get("QueueUrls") or None
        )
        assert listed == [urls[0]]
        assert sqs.list_queue_tags(QueueUrl=urls[0])["Tags"] == {"bake:run": name}
        buses = account.wait("a bus", lambda: events.list_event_buses(NamePrefix=name)["EventBuses"] or None)
        assert [bus["Name"] for bus in buses] == [name]
        assert events.list_tags_for_resource(ResourceARN=arns[0])["Tags"] == tag
        [bucket] = [one for one in s3.list_buckets()["Buckets"] if one["Name"] == name]
        assert "CreationDate" in bucket
        assert s3.get_bucket_tagging(Bucket=name)["TagSet"] == tag
    finally:
        for url in urls:
            sqs.delete_queue(QueueUrl=url)
        for one in (name, other):
            events.delete_event_bus(Name=one)
        s3.delete_bucket(Bucket=name)
