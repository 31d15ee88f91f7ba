"""One run of a bake in the moto account: it creates resources, but no machines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bake.aws import Aws
from bake.image import Image
from bake.localcloud.api.faults.faults import AwsFault
from bake.planning.plan import Plan
from bake.run import Run
from bake.steps.create_image import create_image
from bake.steps.launch import Instance, LaunchSpec, launch
from bake.steps.tags import tags
from bake.undo import Undo
from bake.wiring import wire
from tests.plans import changed

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud


REAPER = "arn:aws:iam::123456789012:role/bake-reaper"


@dataclass
class OneRun:
    """`patience` are the seconds that its calls outlast trouble."""

    cloud: PlanCloud
    plan: Plan
    run: Run
    patience: float = 60
    role: str = "builder"

    @cached_property
    def aws(self) -> Aws:
        """Clients of its own; set `patience` before."""
        return self.cloud.aws().patiently(seconds=self.patience)

    @cached_property
    def witness(self) -> Aws:
        """Clients that look at what is there."""
        return self.cloud.aws()

    def fault(self, action: str, kind: str, **fields: Any) -> None:
        self.cloud.faults.add(AwsFault(service="*", action=action, kind=kind, **fields))  # type: ignore[arg-type]

    def launch(self, undo: Undo, **changes: Any) -> Instance:
        types = self.plan.profile.builder.types
        spec = LaunchSpec(self.role, self.plan.launch.base.id, types)
        return launch(replace(spec, **changes), self.plan, self.aws, self.run, undo)

    def schedules(self) -> dict[str, dict[str, Any]]:
        """The schedules of the run, by group and name, as Scheduler has them."""
        scheduler = self.witness.scheduler
        found = {}
        for group in self._groups():
            for one in scheduler.list_schedules(GroupName=group)["Schedules"]:
                name = one["Name"]
                found[f"{group}/{name}"] = scheduler.get_schedule(GroupName=group, Name=name)
        return found

    def _groups(self) -> list[str]:
        listed = self.witness.scheduler.list_schedule_groups(NamePrefix=f"bake-{self.run.id}")
        return [one["Name"] for one in listed["ScheduleGroups"]]

    def launch_with_reaper(self, undo: Undo) -> Instance:
        """An instance that a schedule ends when its lease is over."""
        more = {"reaper": "scheduler", "reaper_role": REAPER}
        profile = self.plan.profile
        builder = profile.builder.model_copy(update=more)
        self.plan = changed(self.plan, profile.model_copy(update={"builder": builder}))
        return self.launch(undo)

    def wire(self, undo: Undo) -> None:
        known = {tag["Key"]: tag["Value"] for tag in tags(self.plan, self.run, f"bake-{self.run.id}")}
        wire(self.aws, self.run.id, known, undo)

    def clean(self) -> None:
        """Remove what a test has left on purpose: the account is everybody's."""
        self.cloud.faults.clear()
        if not (left := self.left()):
            return
        ec2, mine = self.witness.ec2, [{"Name": "tag:bake:run", "Values": [self.run.id]}]
        for one in left:
            if one.startswith("i-"):
                ec2.terminate_instances(InstanceIds=[one])
            elif one.startswith("http"):
                self.witness.sqs.delete_queue(QueueUrl=one)
            elif one.startswith("ami-"):
                ec2.deregister_image(ImageId=one)
        for pair in ec2.describe_key_pairs(Filters=mine)["KeyPairs"]:  # type: ignore[arg-type]
            ec2.delete_key_pair(KeyName=pair["KeyName"])
        for group in ec2.describe_security_groups(Filters=mine)["SecurityGroups"]:  # type: ignore[arg-type]
            ec2.delete_security_group(GroupId=group["GroupId"])
        for group_of_schedules in self._groups():
            self.witness.scheduler.delete_schedule_group(Name=group_of_schedules)
        for snapshot in ec2.describe_snapshots(OwnerIds=["self"], Filters=mine)["Snapshots"]:  # type: ignore[arg-type]
            ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])
        assert self.left() == []

    def left(self) -> list[str]:
        """What is there of this run."""
        aws = self.witness
        mine: Any = [{"Name": "tag:bake:run", "Values": [self.run.id]}]
        name = f"bake-{self.run.id}"
        groups = aws.ec2.describe_instances(Filters=mine)["Reservations"]
        found = [
            one["InstanceId"]
            for group in groups
            for one in group["Instances"]
            if one["State"]["Name"] != "terminated"
        ]
        found += [pair["KeyName"] for pair in aws.ec2.describe_key_pairs(Filters=mine)["KeyPairs"]]
        found += [
            group["GroupId"] for group in aws.ec2.describe_security_groups(Filters=mine)["SecurityGroups"]
        ]
        found += [
            image["ImageId"] for image in aws.ec2.describe_images(Owners=["self"], Filters=mine)["Images"]
        ]
        found += [
            one["SnapshotId"]
            for one in aws.ec2.describe_snapshots(OwnerIds=["self"], Filters=mine)["Snapshots"]
        ]
        found += [url for url in aws.sqs.list_queues().get("QueueUrls", []) if name in url]
        found += [bucket["Name"] for bucket in aws.s3.list_buckets()["Buckets"] if name in bucket["Name"]]
        found += [bus["Name"] for bus in aws.events.list_event_buses()["EventBuses"] if name in bus["Name"]]
        return found + self._groups()

    def image(self, undo: Undo) -> Image:
        """A builder, and an AMI of it; both go with `undo`."""
        builder = self.launch(undo)
        image, _ = create_image(self.plan, self.aws, self.run, builder, undo)
        return image

    def kept_image(self) -> Image:
        """An AMI that is to be kept; its builder is gone."""
        with Undo() as undo:
            builder = self.launch(undo)
            image, removal = create_image(self.plan, self.aws, self.run, builder, undo)
            undo.forget(removal)
        return image


def temporary(plan: Plan) -> Plan:
    """The plan with a security group of the bake's own."""
    builder = plan.profile.builder.model_copy(
        update={"security_group": "temporary", "ssh_from": "192.0.2.7/32"}
    )
    return changed(plan, plan.profile.model_copy(update={"builder": builder}))
