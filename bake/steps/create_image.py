"""Stop the sealed builder and make the AMI."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bake import retries
from bake.agreement.facts import check_image
from bake.aws import Aws, call_errors, unanswered
from bake.aws_errors import denial, is_about_credentials
from bake.checks.case_list import IMAGE
from bake.checks.cases import Cases, recording
from bake.creation import Found, Resource, tag_of
from bake.errors import BakeError
from bake.image import IMDSV2, Image, describe_image, image_of, remove, remove_by_hand, root_of
from bake.instance import describe
from bake.planning import identity
from bake.planning.plan import Plan
from bake.publish import marks
from bake.retries import ALLOWED, error_code, is_passing, is_refused
from bake.run import Run
from bake.steps.attempt import attempt, ensure_imdsv2
from bake.steps.launch import Instance
from bake.steps.seal import undone
from bake.steps.tags import tags
from bake.undo import Removal, Undo

MADE = 4 * 3600  # seconds that an AMI may take
LOOK = 5.0  # seconds for asking how far a snapshot is, or whether there may be one
NOTHING_YET = "nothing was installed or downloaded yet, and the builder is removed"


def stop(aws: Aws, run: Run, instance: Instance) -> None:
    """Shut the builder down, so that its file system is consistent in the snapshot.

    From here on it is stopped rather than terminated even if it powers off by itself, as a spot builder is.
    """
    with run.progress.step("stop"):
        found = describe(aws, instance.id)
        if found and (wrong := undone(run, found)):
            raise BakeError(wrong, hint="it is removed: bake again")
        if found and found.get("InstanceLifecycle") != "spot" and found["State"]["Name"] == "running":
            keep: Any = {"Value": "stop"}
            aws.ec2.modify_instance_attribute(InstanceId=instance.id, InstanceInitiatedShutdownBehavior=keep)
        aws.ec2.stop_instances(InstanceIds=[instance.id])

        def stopped() -> bool | None:
            facts = describe(aws, instance.id)
            return True if facts and facts["State"]["Name"] == "stopped" else None

        aws.wait(f"{instance.id} to stop", stopped, timeout=900)


def create_image(
    plan: Plan, aws: Aws, run: Run, instance: Instance, undo: Undo, known: str | None = None
) -> tuple[Image, Removal]:
    """Stop the builder and create the AMI, unless it is `known`; wait until it is available.

    Its instances will require IMDSv2. The removal that is returned is registered; forget it once the image
    is to be kept whatever happens.
    """
    if known is None:
        stop(aws, run, instance)
    with (
        run.progress.step("create image"),
        recording(run, "sealed", "image", IMAGE, plan.verify.waivers) as cases,
    ):
        name = plan.image.name_for(run.id)

        def make() -> str:
            return aws.ec2.create_image(**_request(plan, run, instance.id))["ImageId"]

        def find() -> Found | None:
            filters: Any = [{"Name": "name", "Values": [name]}]
            images = aws.ec2.describe_images(Owners=["self"], Filters=filters)["Images"]
            return Found(images[0]["ImageId"], tag_of(images[0].get("Tags"))) if images else None

        resource = Resource(
            "AMI",
            name,
            run.id,
            aws,
            make,
            find,
            remove=lambda found: remove(aws, found, run=run.id, name=name),
            by_hand=lambda found: remove_by_hand(aws, found or _look_by_hand(aws, name)),
        )
        image_id, removal = _adopt(resource, aws, undo, known) if known else resource.create(undo)
        run.progress.note(f"{image_id} is being made")
        image = aws.wait(
            f"AMI {image_id}",
            lambda: _when_available(plan, aws, run, image_id, cases),
            timeout=MADE,
            hint="large first snapshots take long; the AMI was removed again",
        )
        image = ensure_imdsv2(aws, run, image)
        _take_watermark_off(plan, aws, run, image)
        with cases.case("security.image_imdsv2") as case:
            # A note has the command; what AWS refuses does not cost the image.
            case.holds(
                image.imds_support == IMDSV2, IMDSV2, image.imds_support or "optional", "DescribeImages"
            )
        return image, removal


def _take_watermark_off(plan: Plan, aws: Aws, run: Run, image: Image) -> None:
    """Take off a draft what it inherited: the profile's watermark says that an image was verified.

    A base that was baked itself has it. What others put on the base stays: it says what they mean by it.
    """
    name = plan.image.wanted.watermark
    if name is not None:
        by_hand = marks.take_off_by_hand(aws, image.id, name)
        failed = f"{image.id} may have the watermark {name!r} of its base, and is not verified yet"
        attempt(run, failed, lambda: _without(aws, run, image, name), by_hand)


def _without(aws: Aws, run: Run, image: Image, name: str) -> None:
    if marks.take_off(aws, image.id, name):
        run.progress.note(f"{image.id} had the watermark {name!r} of its base: it gets it once it is good")


def check_right(plan: Plan, aws: Aws, run: Run, instance: Instance) -> None:
    """Ask EC2 by a DryRun whether it would make the AMI; hours of work lie between here and the real call.

    Raises BakeError for what it would refuse. A question without an answer is noted.
    """
    try:
        with retries.until(time.monotonic() + LOOK):
            aws.ec2.create_image(**_request(plan, run, instance.id), DryRun=True)
    except call_errors() as error:
        if error_code(error) == ALLOWED:
            return
        if is_about_credentials(error):
            raise
        if not is_refused(error) or is_passing(error):
            run.progress.note(f"whether the AMI may be made is not known: AWS answers {unanswered(error)}")
            return
        raise _refused(error) from error


def _refused(error: Exception) -> BakeError:
    denied = denial(error)
    if denied is None:
        return BakeError(f"EC2 would refuse to make the AMI: {error}", hint=NOTHING_YET)
    needed = "CreateImage of image/* and snapshot/* with ec2:CreateTags of both"
    return BakeError(
        f"whoever bakes may not make the AMI: {replace(denied, action=denied.action or 'ec2:CreateImage')}",
        hint=f"add the right: ec2:{needed}; {NOTHING_YET}",
    )


def _request(plan: Plan, run: Run, instance: str) -> dict[str, Any]:
    """The arguments of CreateImage."""
    name = plan.image.name_for(run.id)
    kinds, image_tags = ("image", "snapshot"), tags(plan, run, name)
    image_tags.append({"Key": identity.TAG, "Value": plan.identity.tag})
    return {
        "InstanceId": instance,
        "Name": name,
        "Description": f"FLUX.1-dev worker, baked from {plan.launch.base.id} as plan {plan.id}",
        "TagSpecifications": [{"ResourceType": kind, "Tags": image_tags} for kind in kinds],
    }


def _adopt(resource: Resource, aws: Aws, undo: Undo, known: str) -> tuple[str, Removal]:
    """Take over an AMI of an earlier attempt; one that is still being made goes if this attempt fails."""
    removal, facts = resource.adopt(known), describe_image(aws, known)
    if facts is not None and facts["State"] == "pending":
        removal = undo.add(removal.what, removal.remove, by_hand=removal.by_hand)
    return known, removal


def _look_by_hand(aws: Aws, name: str) -> str:
    filters = ("--owners", "self", "--filters", f"Name=name,Values={name}")
    query = ("--query", "Images[].ImageId", "--output", "text")
    return f"$({aws.command('ec2', 'describe-images', *filters, *query)})"


def _when_available(plan: Plan, aws: Aws, run: Run, image_id: str, cases: Cases) -> Image | None:
    facts = describe_image(aws, image_id)
    if facts is None:
        if aws.fresh.any(iter([image_id])):
            return None
        raise BakeError(f"AMI {image_id} is gone: EC2 does not know it any more")
    root = root_of(facts)
    if facts["State"] == "failed":
        reason = facts.get("StateReason", {}).get("Message", "no reason given")
        raise BakeError(f"AMI {image_id} failed: {reason}")
    if facts["State"] != "available" or not root.get("SnapshotId"):
        run.progress.status(snapshot_progress(aws, root.get("SnapshotId")))
        return None
    # The agreement about disks covers the finished image too, whatever devices the base AMI adds.
    with cases.case("disk.image_as_agreed") as case:
        case(*_disks(plan, facts["BlockDeviceMappings"]), f"DescribeImages of {image_id}")
        check_image(plan.facts, facts["BlockDeviceMappings"], facts["RootDeviceName"])
    return image_of(facts)


def _disks(plan: Plan, mappings: Sequence[Any]) -> tuple[str, str]:
    """The disks that were agreed, and those of the AMI, in words."""
    volume = plan.profile.root_volume
    wanted = f"one disk: {volume.size_gib} GiB {volume.type}{', encrypted' if volume.kms_key else ''}"
    disks = [one["Ebs"] for one in mappings if "Ebs" in one]
    each = (f"{one.get('VolumeSize')} GiB {one.get('VolumeType')}" for one in disks)
    marks = (", encrypted" if one.get("Encrypted") else "" for one in disks)
    found = "; ".join(f"{size}{mark}" for size, mark in zip(each, marks, strict=True))
    return wanted, f"{len(disks)} disk{'' if len(disks) == 1 else 's'}: {found}"


def snapshot_progress(aws: Aws, snapshot: str | None) -> str:
    """How far a snapshot is; a next percent is progress."""
    if not snapshot:
        return "the snapshot has not started yet"
    try:
        with retries.until(time.monotonic() + LOOK):
            found = aws.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    except call_errors():
        return snapshot  # only shown: the image's own state decides
    if found:
        aws.tally.saw(f"snapshot {snapshot}", found[0].get("Progress", ""))
    return f"{snapshot} {found[0].get('Progress', '')}" if found else snapshot
