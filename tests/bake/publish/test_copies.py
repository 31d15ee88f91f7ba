"""Copies of a good AMI in other regions."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from bake import creation
from bake.aws import Aws
from bake.image import remove

from .failing import answer_lost, refused
from .images import COPIED, THIRD, Good, states

pytestmark = pytest.mark.integration


def test_a_copy_is_good_encrypted_shared_and_says_what_it_is_of(aws: Aws, good: Good) -> None:
    key = aws.within(COPIED).kms.create_key()["KeyMetadata"]["Arn"]
    [row] = good.publish(aws, ("111122223333",), regions=(COPIED,), keys={COPIED: key})
    [copy] = good.copies(COPIED)
    assert (row.what, row.region, row.id, row.state) == ("copy", COPIED, copy["ImageId"], "published")
    assert (good.tag(copy, "state"), good.tag(copy, "expires")) == ("good", "")
    assert good.tag(copy, "copy-of") == f"{good.image.id} {aws.region}"
    assert good.tag(copy, "profile") == good.profile
    assert (copy["Name"], copy["ImdsSupport"]) == (good.image.name, "v2.0")
    there = good.witness.within(COPIED)
    snapshot = copy["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    [told] = there.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    assert (told["Encrypted"], told["KmsKeyId"], good.tag(told, "state")) == (True, key, "good")
    permission: Any = there.ec2.describe_image_attribute(ImageId=row.id, Attribute="launchPermission")
    assert permission["LaunchPermissions"] == [{"UserId": "111122223333"}]


def test_a_second_run_copies_nothing_again(aws: Aws, good: Good) -> None:
    first = good.publish(aws, regions=(COPIED, THIRD))
    assert good.publish(aws, regions=(COPIED, THIRD)) == first
    assert [len(good.copies(region)) for region in (COPIED, THIRD)] == [1, 1]


def test_a_copy_that_is_refused_in_one_region_stops_no_other(aws: Aws, good: Good) -> None:
    within = aws.within
    there = {region: within(region) for region in (COPIED, THIRD)}
    aws.within = there.__getitem__  # type: ignore[method-assign]
    with refused(there[COPIED].ec2, "CopyImage", "ResourceLimitExceeded"):
        rows = good.publish(aws, regions=(COPIED, THIRD))
    assert states(rows) == {("copy", COPIED): "failed", ("copy", THIRD): "published"}
    failed = rows[0]
    assert failed.why == "AWS answers ResourceLimitExceeded"
    assert f"aws ec2 copy-image --region {COPIED}" in failed.by_hand
    assert f"{{Key=bake:copy-of,Value={good.image.id} {aws.region}}}" in failed.by_hand
    assert set(states(good.publish(aws, regions=(COPIED, THIRD))).values()) == {"published"}
    assert [len(good.copies(region)) for region in (COPIED, THIRD)] == [1, 1]


def test_a_lost_answer_and_throttling_make_one_copy(aws: Aws, good: Good) -> None:
    there = aws.within(COPIED)
    aws.within = lambda region: there  # type: ignore[method-assign]
    with answer_lost(there.ec2, "CopyImage") as lost, refused(there.ec2, "CopyImage", "Throttling", times=2):
        [row] = good.publish(aws, regions=(COPIED,))
    assert lost
    assert [one["ImageId"] for one in good.copies(COPIED)] == [row.id]


def test_a_run_that_was_killed_leaves_a_draft_that_the_next_one_finishes(aws: Aws, good: Good) -> None:
    there = aws.within(COPIED)
    aws.within = lambda region: there  # type: ignore[method-assign]
    with refused(there.ec2, "CreateTags", "UnauthorizedOperation"):
        [row] = good.publish(aws, regions=(COPIED,))
    assert row.state == "failed"
    [draft] = good.copies(COPIED)
    assert good.tag(draft, "state") == "draft"
    assert good.tag(draft, "expires") > creation.stamp(aws.now())
    [row] = good.publish(aws, regions=(COPIED,))
    assert (row.state, row.id) == ("published", draft["ImageId"])
    assert good.tag(good.facts(COPIED, draft["ImageId"]), "state") == "good"


def test_a_copy_that_somebody_deregistered_is_made_anew(aws: Aws, good: Good) -> None:
    [first] = good.publish(aws, regions=(COPIED,))
    remove(good.witness.within(COPIED), first.id)
    [second] = good.publish(aws, regions=(COPIED,))
    assert second.state == "published"
    assert second.id != first.id


def test_a_copy_that_fails_is_removed_and_told(aws: Aws, good: Good) -> None:
    """As one whose key the caller may not use: EC2 takes the call, and the copy fails."""
    there = aws.within(COPIED)
    aws.within = lambda region: there  # type: ignore[method-assign]

    def fail(parsed: Any, **_: Any) -> None:
        for one in parsed.get("Images", []):
            one.update(State="failed", StateReason={"Message": "Given key ID is not accessible"})

    name = "after-call.ec2.DescribeImages"
    there.ec2.meta.events.register(name, fail)
    [row] = good.publish(aws, regions=(COPIED,))
    there.ec2.meta.events.unregister(name, fail)
    assert "failed: Given key ID is not accessible" in row.why
    assert good.copies(COPIED) == []
    assert good.publish(aws, regions=(COPIED,))[0].state == "published"


def test_the_name_of_another_ami_is_left_alone(aws: Aws, good: Good, monkeypatch: pytest.MonkeyPatch) -> None:
    there = good.witness.within(COPIED)
    other = there.ec2.copy_image(
        Name=good.image.name,
        SourceImageId=good.image.id,
        SourceRegion=aws.region,
        ClientToken=secrets.token_hex(8),
    )["ImageId"]
    [row] = good.publish(aws, regions=(COPIED,))
    assert row.state == "failed"
    assert f"{other} in {COPIED} is called {good.image.name!r} already, and is no copy" in row.why
    assert good.facts(COPIED, other) is not None
