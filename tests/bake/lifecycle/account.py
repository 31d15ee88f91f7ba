"""Things of every kind in an account of moto, as bakes and as others make them."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from bake.aws import Aws
from bake.creation import stamp
from bake.lifecycle import inventory
from bake.lifecycle.sweep import Swept
from tests.patient import usable

SPOT, HOME = "us-west-2", "us-east-2"  # no other test is there
Tags = Mapping[str, str]


def run_id() -> str:
    return f"20260101-120000-{secrets.token_hex(3)}"


def listed(tags: Tags) -> Any:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def of(kind: str, tags: Tags) -> Any:
    return [{"ResourceType": kind, "Tags": listed(tags)}] if tags else []


@dataclass
class Account:
    """`aws` are the clients of the sweep; things are made with others, `maker`, which no fault concerns."""

    aws: Aws
    maker: Aws
    makers: Mapping[str, Callable[[str, Tags], str]] = field(init=False)
    made: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.makers = {
            "key pair": self.key_pair,
            "security group": self.group,
            "volume": self.volume,
            "network interface": self.interface,
            "instance": self.instance,
            "spot request": self.spot_request,
            "AMI": self.image,
            "snapshot": self.snapshot,
            "queue": self.queue,
            "bucket": self.bucket,
            "event bus": self.bus,
            "schedule group": self.schedule_group,
        }

    def tags(self, run: str, /, *, hours: float = -1, **changed: str | None) -> dict[str, str]:
        """The tags of a bake's thing whose lease ends in so many hours; None takes one away."""
        ends = stamp(self.aws.now() + timedelta(hours=hours))
        known: dict[str, str | None] = {"Name": f"bake-{run}", "bake:run": run, "bake:profile": "g6e-ubuntu"}
        known |= {"bake:state": "draft", "bake:expires": ends}
        known |= {f"bake:{key}": value for key, value in changed.items()}
        return {key: value for key, value in known.items() if value is not None}

    def make(self, kind: str, tags: Tags, name: str | None = None) -> str:
        name = name or tags.get("Name") or f"bake-{run_id()}"
        made = self.makers[kind](f"{name}-{secrets.token_hex(2)}", tags)
        self.made.append((kind, made))
        return made

    def clean(self) -> None:
        """Remove what was made; the account is slower for each thing in it."""
        held = {held.id: held for held in inventory.take(self.maker, prices=False).holdings}
        asked = {(one.kind.name, one.region): one for one in inventory.questions(self.maker)}
        for kind, one in self.made:
            if one in held:
                question = asked[kind, held[one].region]
                question.kind.remove(question.aws, held[one])

    @property
    def subnet(self) -> Any:
        return self.maker.ec2.describe_subnets()["Subnets"][0]

    def key_pair(self, name: str, tags: Tags) -> str:
        self.maker.ec2.create_key_pair(KeyName=name, TagSpecifications=of("key-pair", tags))
        return name

    def group(self, name: str, tags: Tags) -> str:
        return self.maker.ec2.create_security_group(
            GroupName=name,
            Description="a test's",
            VpcId=self.subnet["VpcId"],
            TagSpecifications=of("security-group", tags),
        )["GroupId"]

    def volume(self, name: str, tags: Tags) -> str:
        zone = self.subnet["AvailabilityZone"]
        return self.maker.ec2.create_volume(
            Size=80, VolumeType="gp3", AvailabilityZone=zone, TagSpecifications=of("volume", tags)
        )["VolumeId"]

    def interface(self, name: str, tags: Tags, group: str | None = None) -> str:
        return self.maker.ec2.create_network_interface(
            SubnetId=self.subnet["SubnetId"],
            TagSpecifications=of("network-interface", tags),
            **({"Groups": [group]} if group else {}),
        )["NetworkInterface"]["NetworkInterfaceId"]  # fmt: skip

    def instance(self, name: str, tags: Tags, image: str | None = None, **more: Any) -> str:
        return self.maker.ec2.run_instances(
            ImageId=image or self.base,
            MinCount=1,
            MaxCount=1,
            InstanceType="g6e.xlarge",
            SubnetId=self.subnet["SubnetId"],
            TagSpecifications=of("instance", tags),
            ClientToken=secrets.token_hex(8),
            **more,
        )["Instances"][0]["InstanceId"]

    @property
    def base(self) -> str:
        names: Any = [{"Name": "name", "Values": ["ubuntu/images/*"]}]
        return str(self.maker.ec2.describe_images(Filters=names)["Images"][0]["ImageId"])

    def spot_request(self, name: str, tags: Tags) -> str:
        return self.maker.ec2.request_spot_instances(
            SpotPrice="1",
            LaunchSpecification={"ImageId": self.base, "InstanceType": "g6e.xlarge"},
            TagSpecifications=of("spot-instances-request", tags),
        )["SpotInstanceRequests"][0]["SpotInstanceRequestId"]

    def image(self, name: str, tags: Tags, snapshot: Tags | None = None) -> str:
        """An AMI of a machine that is nobody's; its snapshot has the same tags, or others."""
        machine = self.instance("", {})
        both = [*of("image", tags), *of("snapshot", tags if snapshot is None else snapshot)]
        made = self.maker.ec2.create_image(InstanceId=machine, Name=name, TagSpecifications=both)["ImageId"]
        self.maker.ec2.terminate_instances(InstanceIds=[machine])
        return made

    def snapshot_of(self, image: str) -> str:
        facts = self.maker.ec2.describe_images(ImageIds=[image])["Images"][0]
        return facts["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]

    def snapshot(self, name: str, tags: Tags) -> str:
        volume = usable(self.maker, self.volume("", {}))
        made = self.maker.ec2.create_snapshot(VolumeId=volume, TagSpecifications=of("snapshot", tags))
        self.maker.ec2.delete_volume(VolumeId=volume)
        return made["SnapshotId"]

    def queue(self, name: str, tags: Tags) -> str:
        return self.maker.sqs.create_queue(QueueName=name, tags=dict(tags))["QueueUrl"]

    def bucket(self, name: str, tags: Tags) -> str:
        where: Any = {"LocationConstraint": HOME}
        self.maker.s3.create_bucket(Bucket=name, CreateBucketConfiguration=where)
        if tags:
            self.maker.s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": listed(tags)})
        self.maker.s3.put_object(Bucket=name, Key="pictures/one.png", Body=b"png")
        return name

    def bus(self, name: str, tags: Tags, rule: Tags | None = None) -> str:
        self.maker.events.create_event_bus(Name=name, Tags=listed(tags))
        pattern = json.dumps({"source": ["flux.worker"]})
        # moto takes a bus and a rule of one name for the same when it is asked for tags.
        named, chosen = (name, tags) if rule is None else ("somebodys", rule)
        self.maker.events.put_rule(Name=named, EventBusName=name, EventPattern=pattern, Tags=listed(chosen))
        arn = f"arn:aws:sqs:{HOME}:123456789012:nobodys"
        self.maker.events.put_targets(Rule=named, EventBusName=name, Targets=[{"Id": "results", "Arn": arn}])
        return name

    def schedule_group(self, name: str, tags: Tags) -> str:
        self.maker.scheduler.create_schedule_group(Name=name, Tags=listed(tags))
        return name

    def retag(self, kind: str, one: str, tags: Tags) -> None:
        """Write these tags over those of a thing."""
        if kind == "queue":
            self.maker.sqs.tag_queue(QueueUrl=one, Tags=dict(tags))
        elif kind == "bucket":
            self.maker.s3.put_bucket_tagging(Bucket=one, Tagging={"TagSet": listed(tags)})
        elif kind == "event bus":
            arn = self.maker.events.describe_event_bus(Name=one)["Arn"]
            self.maker.events.tag_resource(ResourceARN=arn, Tags=listed(tags))
        elif kind == "schedule group":
            arn = self.maker.scheduler.get_schedule_group(Name=one)["Arn"]
            self.maker.scheduler.tag_resource(ResourceArn=arn, Tags=listed(tags))
        else:
            resource = self.key_id(one) if kind == "key pair" else one
            self.maker.ec2.create_tags(Resources=[resource], Tags=listed(tags))

    def key_id(self, name: str) -> str:
        return self.maker.ec2.describe_key_pairs(KeyNames=[name])["KeyPairs"][0]["KeyPairId"]


def everything(account: Account) -> dict[tuple[str, str], str]:
    """All that is in the account's two regions, by kind and id, with all that the API tells of it."""
    return dict(_machines(account.maker)) | dict(_services(account.maker))


def _machines(aws: Aws) -> Iterator[tuple[tuple[str, str], str]]:
    ec2: Any = aws.ec2
    for group in ec2.describe_instances()["Reservations"]:
        for one in group["Instances"]:
            if one["State"]["Name"] != "terminated":
                yield ("instance", one["InstanceId"]), repr(one)
    for one in ec2.describe_spot_instance_requests()["SpotInstanceRequests"]:
        if one["State"] in ("open", "active"):
            yield ("spot request", one["SpotInstanceRequestId"]), repr(one)
    for kind, answer, key, parameters in (
        ("key pair", "KeyPairs", "KeyName", {}),
        ("security group", "SecurityGroups", "GroupId", {}),
        ("volume", "Volumes", "VolumeId", {}),
        ("network interface", "NetworkInterfaces", "NetworkInterfaceId", {}),
        ("AMI", "Images", "ImageId", {"Owners": ["self"]}),
        ("snapshot", "Snapshots", "SnapshotId", {"OwnerIds": ["self"]}),
    ):
        operation = "describe_" + re.sub(r"(?<!^)([A-Z])", r"_\1", answer).lower()
        for one in getattr(ec2, operation)(**parameters)[answer]:
            yield (kind, one[key]), repr(one)


def _services(aws: Aws) -> Iterator[tuple[tuple[str, str], str]]:
    for url in aws.sqs.list_queues().get("QueueUrls", []):
        yield ("queue", url), repr(aws.sqs.list_queue_tags(QueueUrl=url).get("Tags"))
    for bucket in aws.s3.list_buckets()["Buckets"]:
        if bucket["Name"].startswith("bake-"):
            objects = aws.s3.list_objects_v2(Bucket=bucket["Name"]).get("Contents", [])
            yield ("bucket", bucket["Name"]), repr([item["Key"] for item in objects])
    for bus in aws.events.list_event_buses()["EventBuses"]:
        yield ("event bus", bus["Name"]), repr(aws.events.list_rules(EventBusName=bus["Name"])["Rules"])
    for group in aws.scheduler.list_schedule_groups()["ScheduleGroups"]:
        yield ("schedule group", group["Name"]), repr(group)


def there(account: Account, run: str) -> set[str]:
    return {held.id for held in inventory.take(account.maker, prices=False).of(run)}


def removed(done: Swept) -> set[str]:
    return {held.id for held in done.removed}
