"""A finished AMI is kept, condemned or left unproven, depending on how its check ended."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from bake.creation import tag_of
from bake.errors import (
    BakeError,
    ConnectionLost,
    Interrupted,
    LeftBehind,
    NotVerified,
    RemoteCommandError,
    TimedOut,
)
from bake.image import Image, describe_image, image_of, images_of, mark, mark_by_hand, state_of
from bake.steps.judge import Unproven, Untagged, judge
from bake.steps.publish import publish
from bake.steps.retire import outdated, retire
from bake.steps.wait_for_worker import ImageIsBad
from bake.undo import Undo, naming
from tests.patient import usable
from tests.plans import changed

if TYPE_CHECKING:
    from tests.bake.one_run import OneRun


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "RunInstances")


def facts(one_run: OneRun, image: Image) -> Any:
    return describe_image(one_run.witness, image.id)


def check(one_run: OneRun, image: Image, error: BaseException | None = None) -> list[str]:
    """A boot check that ends so; what the report is told."""
    told: list[str] = []
    run = one_run.run
    with naming(run.leaks), Undo(leaks=run.leaks) as undo:  # noqa: SIM117
        with judge(one_run.plan.image, one_run.aws, run, image, undo, lambda *named: told.append(named[-1])):
            if error is not None:
                raise error
    return told


def test_what_the_check_made_is_sent_away_before_anything_is_said_to_aws(one_run: OneRun) -> None:
    """A CI system kills seconds after its first signal, and an instance with a GPU costs money."""
    image, order = one_run.kept_image(), []
    one_run.aws.ec2.meta.events.register("before-call", lambda model, **_: order.append(model.name))
    with pytest.raises(Unproven), Undo() as undo:
        undo.add("instance", lambda: order.append("terminated"), by_hand="")
        with judge(one_run.plan.image, one_run.aws, one_run.run, image, undo):
            raise Interrupted("SIGTERM")
    assert order[:2] == ["terminated", "CreateTags"]


def test_one_that_drew_is_good_and_does_not_expire(one_run: OneRun) -> None:
    image = one_run.kept_image()
    assert state_of(facts(one_run, image)) == "draft"
    assert check(one_run, image) == ["good"]
    tags = facts(one_run, image)["Tags"]
    assert (tag_of(tags, "bake:state"), tag_of(tags, "bake:expires")) == ("good", "")
    snapshot = one_run.aws.ec2.describe_snapshots(SnapshotIds=[image.snapshot])["Snapshots"][0]
    assert tag_of(snapshot["Tags"], "bake:state") == "good"
    assert one_run.run.kept == [f"{image.id} ({image.name}) is good, and kept"]


def test_a_good_one_that_can_not_be_tagged_is_an_error(one_run: OneRun) -> None:
    """For AWS it is a draft still, which a sweep removes."""
    image = one_run.kept_image()
    one_run.fault("CreateTags", "refuse", times=None)
    with pytest.raises(Untagged, match=f"{image.id} .* is good, and could not be tagged so ") as caught:
        check(one_run, image)
    assert f"--resources {image.id} {image.snapshot} --tags Key=bake:state,Value=good" in str(caught.value)
    assert "`bake sweep` removes once the lease has ended: tag it before" in str(caught.value.hint)
    assert state_of(facts(one_run, image)) == "draft"


def test_a_good_one_whose_expiry_can_not_be_removed_is_good(one_run: OneRun) -> None:
    image = one_run.kept_image()
    one_run.fault("DeleteTags", "refuse", times=None)
    assert check(one_run, image) == ["good"]
    assert state_of(facts(one_run, image)) == "good"


def test_a_bad_one_is_removed_with_its_snapshots(one_run: OneRun) -> None:
    image = one_run.kept_image()
    with pytest.raises(ImageIsBad) as caught:
        check(one_run, image, ImageIsBad("no worker"))
    assert caught.value.message == f"no worker\n{image.id} is bad and was removed"
    assert caught.value.exit_code == 4
    assert one_run.left() == []


def test_a_bad_image_that_cannot_be_removed_is_named(one_run: OneRun) -> None:
    image = one_run.kept_image()
    one_run.fault("DeregisterImage", "refuse", code="UnauthorizedOperation")
    with pytest.raises(LeftBehind, match=f"aws ec2 deregister-image .*{image.id}"):
        check(one_run, image, ImageIsBad("no worker"))
    assert facts(one_run, image)["State"] == "available"


def test_one_that_drew_and_failed_a_check_is_kept_and_not_verified(one_run: OneRun) -> None:
    """Its exit code says that it is the image: 4, as of a builder that fails a check."""
    image = one_run.kept_image()
    with pytest.raises(Unproven, match="an open port") as caught:
        check(one_run, image, NotVerified("an open port"))
    assert caught.value.exit_code == 4
    assert state_of(facts(one_run, image)) == "unproven"


UNPROVEN = [
    pytest.param(TimedOut("capacity for g6e.xlarge: not there after 1800 s"), id="no-capacity"),
    pytest.param(refusal("VcpuLimitExceeded"), id="quota"),
    pytest.param(refusal("ExpiredToken"), id="credentials"),
    pytest.param(refusal("UnauthorizedOperation"), id="rights"),
    pytest.param(EndpointConnectionError(endpoint_url="https://ec2"), id="network"),
    pytest.param(BakeError("no SSH connection to ubuntu@192.0.2.1:22 within 300 s"), id="ssh-unreachable"),
    pytest.param(ConnectionLost("the SSH connection to 192.0.2.1 broke"), id="ssh-broke"),
    pytest.param(RemoteCommandError("systemctl ended with 1"), id="a-command"),
    pytest.param(BakeError("the worker still reads its model from the disk"), id="slow-disk"),
    pytest.param(Interrupted("SIGINT"), id="Ctrl-C"),
    pytest.param(Interrupted("SIGTERM"), id="SIGTERM"),
]


@pytest.mark.parametrize("error", UNPROVEN)
def test_what_says_nothing_about_the_image_keeps_it(one_run: OneRun, error: BaseException) -> None:
    image = one_run.kept_image()
    with pytest.raises(Unproven, match=f"{image.id} .* is there, and unproven") as caught:
        check(one_run, image, error)
    assert caught.value.exit_code == 5
    assert caught.value.__cause__ is error
    assert f"bake boot-check {image.id}" in str(caught.value.hint)
    found = facts(one_run, image)
    assert (found["State"], state_of(found)) == ("available", "unproven")


def test_a_bug_keeps_it_and_names_it(one_run: OneRun) -> None:
    image = one_run.kept_image()
    with pytest.raises(KeyError) as caught:
        check(one_run, image, KeyError("detail"))
    assert f"bake boot-check {image.id}" in caught.value.__notes__[0]
    assert state_of(facts(one_run, image)) == "unproven"


def test_without_credentials_it_is_kept_although_nothing_can_be_said_to_aws(one_run: OneRun) -> None:
    image = one_run.kept_image()
    one_run.fault("*", "expired", times=None)
    with pytest.raises(Unproven, match=image.id):
        check(one_run, image, refusal("ExpiredToken"))
    one_run.cloud.faults.clear()
    assert facts(one_run, image)["State"] == "available"
    assert any("aws ec2 create-tags" in note for note in one_run.run.progress.notes)


def numbered(one_run: OneRun, number: int, **image: Any) -> OneRun:
    """The run with a profile and a name of its own for each image: the account is shared."""
    profile = one_run.plan.profile
    section = profile.image.model_copy(update={"name": f"{one_run.run.id}-{number}", **image})
    plan = changed(one_run.plan, profile.model_copy(update={"name": f"p-{one_run.run.id}", "image": section}))
    return dataclasses.replace(one_run, plan=plan, role=f"builder-{number}")


def test_no_more_unproven_ones_are_kept_than_the_profile_says(one_run: OneRun) -> None:
    made = []
    for number in range(3):
        run = numbered(one_run, number)
        made.append(run.kept_image())
        with pytest.raises(Unproven):
            check(run, made[-1], TimedOut("no capacity"))
    left = [image["ImageId"] for image in images_of(one_run.aws, f"p-{one_run.run.id}")]
    assert sorted(left) == sorted(image.id for image in made[1:])
    assert f"removed {made[0].id}: the profile keeps 2 unproven ones" in one_run.run.progress.notes


def test_only_good_ones_count_for_what_is_kept_and_those_of_before_are_good(one_run: OneRun) -> None:
    states = ["", "good", "unproven", "draft", "good"]
    made = []
    for number, state in enumerate(states):
        run = numbered(one_run, number, keep=2)
        image = run.kept_image()
        made.append(image.id)
        if state in ("good", "unproven"):
            mark(run.aws, image, state)  # type: ignore[arg-type]
        elif not state:  # baked before there were states
            run.aws.ec2.delete_tags(Resources=[image.id], Tags=[{"Key": "bake:state"}])
    assert outdated(run.plan.image, run.aws, made[-1]) == [made[0]]
    publish(run.plan.image, run.aws, run.run, image)
    left = {image["ImageId"] for image in images_of(run.aws, run.plan.profile.name)}
    assert left == set(made[1:])


@pytest.mark.parametrize("action", ["ModifyImageAttribute", "ModifySnapshotAttribute"])
def test_a_share_that_fails_is_a_note_with_the_command(one_run: OneRun, action: str) -> None:
    run = numbered(one_run, 0, share_with=("111122223333",))
    image = run.kept_image()
    run.fault(action, "refuse", code="InvalidParameter")
    publish(run.plan.image, run.aws, run.run, image)
    (note,) = [note for note in run.run.progress.notes if "not shared" in note]
    assert f"aws ec2 modify-image-attribute --region eu-north-1 --endpoint-url {run.cloud.endpoint}" in note
    assert f"--snapshot-id {image.snapshot}" in note


def imdsv2_notes(run: OneRun) -> list[str]:
    return [note for note in run.run.progress.notes if "do not need IMDSv2" in note]


def test_every_ami_needs_imdsv2(one_run: OneRun) -> None:
    image = one_run.kept_image()
    shown = one_run.witness.ec2.describe_images(ImageIds=[image.id])["Images"][0]
    assert shown["ImdsSupport"] == image.imds_support == "v2.0"
    assert publish(one_run.plan.image, one_run.aws, one_run.run, image) == image
    assert imdsv2_notes(one_run) == []


def test_an_ami_that_does_not_get_it_is_kept_and_publishing_tries_again(one_run: OneRun) -> None:
    one_run.fault("ModifyImageAttribute", "refuse", code="UnauthorizedOperation", times=2)
    image = one_run.kept_image()
    assert image.imds_support is None
    assert publish(one_run.plan.image, one_run.aws, one_run.run, image) == image
    for note in imdsv2_notes(one_run):
        assert "UnauthorizedOperation" in note
        assert f"--image-id {image.id} --imds-support v2.0" in note
    assert len(imdsv2_notes(one_run)) == 2
    assert publish(one_run.plan.image, one_run.aws, one_run.run, image).imds_support == "v2.0"
    assert len(imdsv2_notes(one_run)) == 2


def test_imdsv2_that_does_not_show_up_is_a_note(one_run: OneRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bake.image.SHOWN", 1.0)
    monkeypatch.setattr("bake.image.IMDSV2", "v3.0")  # the account answers v2.0
    image = one_run.kept_image()
    assert "not there after 1 s" in imdsv2_notes(one_run)[0]
    assert one_run.witness.ec2.describe_images(ImageIds=[image.id])["Images"]


def test_an_ami_that_is_not_quite_available_yet_is_asked_again(one_run: OneRun) -> None:
    one_run.fault("ModifyImageAttribute", "refuse", code="InvalidAMIID.Unavailable")
    assert one_run.kept_image().imds_support == "v2.0"
    assert imdsv2_notes(one_run) == []


@pytest.mark.parametrize("action", ["DescribeImages", "DeregisterImage", "DescribeInstances"])
def test_retiring_that_fails_is_a_note_and_the_image_stays_good(one_run: OneRun, action: str) -> None:
    made = []
    for number in range(2):
        run = numbered(one_run, number, keep=1)
        made.append(run.kept_image())
        mark(run.aws, made[-1], "good")
    run.fault(action, "refuse", code="UnauthorizedOperation", times=None)
    publish(run.plan.image, run.aws, run.run, made[-1])
    assert [note for note in run.run.progress.notes if "UnauthorizedOperation" in note]


def test_a_pending_ami_that_names_no_snapshot_leaves_none(
    one_run: OneRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deregistering alone would leave it: it is found by its tags."""
    image = one_run.kept_image()
    monkeypatch.setattr("bake.image._mapped", lambda facts: set())
    with pytest.raises(ImageIsBad):
        check(one_run, image, ImageIsBad("no worker"))
    assert one_run.left() == []


def test_every_snapshot_of_an_ami_is_marked(one_run: OneRun) -> None:
    """A base AMI may have more disks than the root; a sweep must take none of their snapshots."""
    image = one_run.kept_image()
    ec2 = one_run.witness.ec2
    zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    volume = usable(one_run.witness, ec2.create_volume(Size=1, AvailabilityZone=zone)["VolumeId"])
    tags: Any = [
        {"Key": "bake:run", "Value": one_run.run.id},
        {"Key": "bake:expires", "Value": "2027-01-01T00:00:00Z"},
    ]
    made = ec2.create_snapshot(
        VolumeId=volume, TagSpecifications=[{"ResourceType": "snapshot", "Tags": tags}]
    )["SnapshotId"]
    both = dataclasses.replace(image, snapshots=(image.snapshot, made))
    mark(one_run.aws, both, "good")
    found = {
        one["SnapshotId"]: one["Tags"] for one in ec2.describe_snapshots(SnapshotIds=[made])["Snapshots"]
    }
    assert tag_of(found[made], "bake:state") == "good"
    assert tag_of(found[made], "bake:expires") == ""
    assert made in mark_by_hand(one_run.aws, both, "good")
    ec2.delete_volume(VolumeId=volume)


def test_an_image_knows_all_of_its_snapshots() -> None:
    disks = [("/dev/sda1", "snap-1"), ("/dev/sdb", "snap-2")]
    mappings = [{"DeviceName": name, "Ebs": {"SnapshotId": one, "VolumeSize": 8}} for name, one in disks]
    mappings.append({"DeviceName": "/dev/sdc", "VirtualName": "ephemeral0"})
    facts: Any = {
        "ImageId": "ami-1",
        "Name": "x",
        "RootDeviceName": "/dev/sda1",
        "BlockDeviceMappings": mappings,
    }
    assert image_of(facts).snapshot == "snap-1"
    assert image_of(facts).snapshots == ("snap-1", "snap-2")


@pytest.mark.parametrize("error", [TimedOut("no answer"), None], ids=["unproven", "good"])
def test_an_ami_that_was_removed_meanwhile_is_not_told_as_kept(
    one_run: OneRun, error: TimedOut | None
) -> None:
    """A sweep did, after the lease had ended while this machine was suspended."""
    image = one_run.kept_image()
    one_run.aws.fresh.drop(image.id, kind="Image")
    one_run.aws.fresh.drop(image.snapshot, kind="")  # which is tagged by the same call
    one_run.fault("CreateTags", "refuse", code="InvalidAMIID.NotFound", times=None)
    with pytest.raises(BakeError, match=rf"{image.id} .* is gone, ") as caught:
        check(one_run, image, error)
    assert not isinstance(caught.value, Unproven)
    assert one_run.run.kept == []


def test_what_a_template_names_stays_with_a_note_and_the_rest_goes(one_run: OneRun) -> None:
    made = []
    for number in range(4):
        run = numbered(one_run, number, keep=1)
        image = run.kept_image()
        mark(run.aws, image, "good")
        made.append(image.id)
    data: Any = {"LaunchTemplateName": f"t-{one_run.run.id}", "LaunchTemplateData": {"ImageId": made[0]}}
    template = run.aws.ec2.create_launch_template(**data)["LaunchTemplate"]["LaunchTemplateId"]
    publish(run.plan.image, run.aws, run.run, image)
    run.aws.ec2.delete_launch_template(LaunchTemplateId=template)
    left = {found["ImageId"] for found in images_of(run.aws, run.plan.profile.name)}
    assert left == {made[0], made[3]}
    why = f"launch template {template} version 1 refers to it"
    notes = run.run.progress.notes
    assert f"{made[0]} is older than what is kept, and left alone: {why}" in notes
    assert {f"removed {one}: the profile keeps 1" for one in made[1:3]} <= set(notes)


def test_without_an_answer_old_images_stay_with_a_note(one_run: OneRun) -> None:
    made = []
    for number in range(2):
        run = numbered(one_run, number, keep=1)
        image = run.kept_image()
        mark(run.aws, image, "good")
        made.append(image.id)
    run.fault("DescribeImageReferences", "refuse", code="UnauthorizedOperation", times=None)
    publish(run.plan.image, run.aws, run.run, image)
    run.cloud.faults.clear()
    assert {found["ImageId"] for found in images_of(run.aws, run.plan.profile.name)} == set(made)
    (note,) = [note for note in run.run.progress.notes if f"{made[0]} is older" in note]
    assert "the references that EC2 knows in eu-north-1 could not be asked: AWS answers Unauthorized" in note


def test_with_nothing_to_remove_nothing_is_asked(one_run: OneRun) -> None:
    run = numbered(one_run, 0, keep=1)
    image = run.kept_image()
    mark(run.aws, image, "good")
    run.fault("DescribeImageReferences", "refuse", code="UnauthorizedOperation", times=None)
    before = run.aws.tally.api_calls
    retire(run.plan.image, run.aws, run.run, image)
    assert run.aws.tally.api_calls == before + 1  # the profile's AMIs
    assert not [note for note in run.run.progress.notes if "older" in note or "not looked at" in note]
