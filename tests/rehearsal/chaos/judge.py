"""Judge what a cut left: what there is in the account and on the host, and whether the message is true."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from bake.localcloud.images.store import ImageStore
from bake.localcloud.lifecycle.sweep import leftovers

from .cells import NOTICE, SIGNALS, Cell
from .cuts import NAMED
from .lane import BYSTANDER, Controller, Lane

FINISHED = ("good", "unproven")
# Exit codes that a run may have that was cut so; 0 where it went on.
CODES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys((*SIGNALS, "closed pipe"), (130, 5, 0)),
    **dict.fromkeys(("full disk", "SSH cut", "throttled", "500", "lost after success"), (0,)),
    "network gone for minutes": (0, 5),
    "builder rebooted": (0, 5),
    "builder terminated": (0, 5),
    NOTICE: (0, 5),
    "refused": (0, 2, 5, 6),
    "expired credentials": (0, 5, 6),
}
# A bake that can't note what it creates does not begin.
NOTHING_NOTED, NOT_BEGUN = (("local cloud", "full disk"), ("plan", "full disk")), (2, 5)
# On this host, of a cloud that is up: what belongs to no machine.
OF_THE_CLOUD = ("nftables ", "interface bk")


@dataclass
class Left:
    """What the bakes have in the account: drafts and the like by id, and finished AMIs by state."""

    things: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)


def left(lane: Lane) -> Left:
    """Look without the bake's own eyes: at tags, and at names where there are no tags."""
    aws, found = lane.aws, Left()
    tagged: Any = [{"Name": "tag-key", "Values": ["bake:run"]}]
    for image in aws.ec2.describe_images(Owners=["self"], Filters=tagged)["Images"]:
        state = _tags(image).get("bake:state", "")
        if image["ImageId"] == BYSTANDER:
            continue
        if state in FINISHED:
            found.images[image["ImageId"]] = state
        else:
            found.things[image["ImageId"]] = f"AMI, {image['State']}"
    for one in aws.ec2.describe_snapshots(OwnerIds=["self"], Filters=tagged)["Snapshots"]:
        if _tags(one).get("bake:state") not in FINISHED:
            found.things[one["SnapshotId"]] = "snapshot"
    for group in aws.ec2.describe_instances(Filters=tagged)["Reservations"]:
        for one in group["Instances"]:
            if one["State"]["Name"] not in ("terminated", "shutting-down"):
                found.things[one["InstanceId"]] = f"instance, {one['State']['Name']}"
    for one in aws.ec2.describe_volumes(Filters=tagged)["Volumes"]:
        if not any(each["InstanceId"] in found.things for each in one.get("Attachments", [])):
            found.things[one["VolumeId"]] = "volume"
    for one in aws.ec2.describe_spot_instance_requests(Filters=tagged)["SpotInstanceRequests"]:
        if one["State"] in ("open", "active", "disabled"):
            found.things[one["SpotInstanceRequestId"]] = "spot request"
    _by_name(lane, found.things)
    return found


def _by_name(lane: Lane, things: dict[str, str]) -> None:
    aws = lane.aws
    for pair in aws.ec2.describe_key_pairs()["KeyPairs"]:
        things[pair["KeyName"]] = "key pair"
    for group in aws.ec2.describe_security_groups()["SecurityGroups"]:
        if group["GroupName"].startswith("bake-"):
            things[group["GroupName"]] = "security group"
    for url in aws.sqs.list_queues().get("QueueUrls", []):
        things[url.rpartition("/")[2]] = "queue"
    for bucket in aws.s3.list_buckets()["Buckets"]:
        things[bucket["Name"]] = "bucket"
    for bus in aws.events.list_event_buses()["EventBuses"]:
        if bus["Name"] != "default":
            things[bus["Name"]] = "event bus"
    for group in aws.scheduler.list_schedule_groups(NamePrefix="bake-")["ScheduleGroups"]:
        things[group["Name"]] = "schedule group"
    for rule in aws.events.list_rules()["Rules"]:
        things[rule["Name"]] = "rule"


def _tags(facts: Any) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in facts.get("Tags", [])}


def on_host(lane: Lane) -> list[str]:
    """What this host has of machines, though no machine lives."""
    group = f"/bake-{lane.settings.tag}"  # of all its machines
    found = [one for one in leftovers(lane.settings) if not one.startswith(OF_THE_CLOUD)]
    found = [one for one in found if not one.endswith(group)]
    return found + [f"folder {folder}" for folder in lane.settings.instances.glob("*")]


def of_message(cell: Cell, bake: Controller, code: int, there: Left) -> list[str]:
    """What is wrong with how the bake ended, and with what it said."""
    wrong = []
    if code not in (NOT_BEGUN if (cell.step, cell.cut) in NOTHING_NOTED else CODES[cell.cut]):
        wrong.append(f"exit code {code}")
    if code == 0:
        return wrong + ["exit code 0, and no good AMI"] * ("good" not in there.images.values())
    # A bake that leaves something behind may all the same have released its AMI.
    text = bake.errors + "".join(str(one["text"]) for one in bake.events if one["event"] == "released")
    if f"`bake resume {bake.run}`" in text and cell.cut == NOTICE:
        return wrong  # the run holds all that is left, and has not ended
    unheard = cell.cut == "closed pipe"  # nobody reads it
    if not unheard and not re.search(f"{NAMED[cell.cut]}", text):
        wrong.append("the message does not name the cut")
    if not unheard:
        wrong += [
            f"{what} {name} is left, and the message does not say so"
            for name, what in there.things.items()
            if name not in text and not what.startswith(("volume", "snapshot")) and not _listed(what, text)
        ]
        wrong += [
            f"{name} is {state}, and the message does not say so"
            for name, state in there.images.items()
            if name not in text
        ]
    left = [name for name, what in there.things.items() if not _of_image(name, what, text)]
    if left and code != 6 and not unheard:
        wrong.append(f"exit code {code}, and these are left: {', '.join(left)}")
    if "Traceback" in text:
        wrong.append("a traceback")
    return wrong


def _listed(what: str, text: str) -> bool:
    """Whether the command that the message has finds all of these, by the run's tag."""
    return what == "spot request" and "describe-spot-instance-requests" in text


def _of_image(name: str, what: str, text: str) -> bool:
    """Whether it is an AMI that could not be tagged as unproven, of which the message says so."""
    return (what.startswith("AMI") and f"{name} (" in text and "kept as a draft" in text) or (
        what == "snapshot" and "kept as a draft" in text
    )


def of_images(lane: Lane, kept: Left) -> list[str]:
    """What is lost of finished AMIs, and of the bystander: its record, or its disk."""
    wrong, store = [], ImageStore(lane.settings.images)
    for identity in (BYSTANDER, *kept.images):
        found = lane.aws.ec2.describe_images(
            Owners=["self"], Filters=[{"Name": "image-id", "Values": [identity]}]
        )
        snapshots = [
            one["Ebs"]["SnapshotId"]
            for image in found["Images"]
            for one in image["BlockDeviceMappings"]
            if "Ebs" in one
        ]
        if not snapshots or not all(store.disk(one).exists() for one in snapshots):
            wrong.append(f"{identity} is lost")
    return wrong
