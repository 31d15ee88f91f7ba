"""What `bake prune` removes, and what it leaves, in two regions of the local cloud's API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from bake.lifecycle import prune as pruning
from bake.lifecycle.holding import Holding
from bake.lifecycle.prune import Preview, Pruned, preview, prune
from bake.lifecycle.retention import Rule
from bake.localcloud.settings import SPOT_REGION
from tests.bake.lifecycle.kept_images import KEEP_1, Kept
from tests.localcloud.conftest import ebs, ebs_served
from tests.localcloud.ebs_account import ELSEWHERE, EbsAccount

__all__ = ["ebs", "ebs_served"]
pytestmark = pytest.mark.integration


@pytest.fixture
def kept(ebs: EbsAccount) -> Iterator[Kept]:
    made = Kept(ebs)
    yield made
    made.clean()


def looked(kept: Kept, rule: Rule = KEEP_1, **changed: Any) -> Preview:
    return preview(kept.scope(rule, **changed), prices=False)


def going(seen: Preview) -> set[str]:
    return {one.held.id for one in seen.going}


def ids(held: list[Holding]) -> set[str]:
    return {one.id for one in held}


def pruned(kept: Kept, seen: Preview, rule: Rule = KEEP_1, **changed: Any) -> Pruned:
    return prune(kept.scope(rule, **changed), seen)


def test_an_old_image_goes_with_its_copies_and_all_snapshots(kept: Kept) -> None:
    old = kept.bake()
    there, new = kept.copy(old), kept.bake()
    newer = kept.copy(new)
    seen = looked(kept)
    assert going(seen) == {old, there}
    held = [one.held for one in seen.verdicts]
    assert len(kept.snapshots(held)) == 4
    assert all(kept.there(*one) for one in ((old,), (there, ELSEWHERE)))  # a preview changes nothing
    done = pruned(kept, seen)
    assert (ids(done.removed), done.spared, done.leaks) == ({old, there}, [], [])
    assert [kept.there(one) for one in (old, new)] == [False, True]
    assert [kept.there(one, ELSEWHERE) for one in (there, newer)] == [False, True]
    assert len(kept.snapshots(held)) == 2
    again = pruned(kept, seen)  # by somebody who saw it before
    assert (again.removed, ids(again.gone), again.leaks) == ([], {old, there}, [])
    assert going(looked(kept)) == set()


def test_a_copy_in_use_keeps_itself_its_source_and_the_other_way_round(kept: Kept) -> None:
    old, older = kept.bake(), kept.bake()
    copies = {image: kept.copy(image) for image in (old, older)}
    kept.bake()
    name = kept.parameter(old)
    other = kept.clouds[ELSEWHERE].ssm
    other.put_parameter(Name=name, Value=copies[older], Type="String")
    seen = looked(kept)
    assert going(seen) == set()
    whys = {one.held.id: one.why for one in seen.verdicts}
    assert whys[copies[older]] == f"SSM parameter {name} refers to it"
    assert whys[older] == f"{copies[older]} in {ELSEWHERE} is of the same image: {whys[copies[older]]}"
    assert whys[copies[old]].startswith(f"{old} in {SPOT_REGION} is of the same image: SSM parameter")
    other.delete_parameter(Name=name)
    assert going(looked(kept)) == {older, copies[older]}


def test_with_nothing_to_remove_nothing_is_asked(kept: Kept) -> None:
    kept.bake()
    before = kept.aws.tally.api_calls + kept.clouds[ELSEWHERE].tally.api_calls
    assert looked(kept).proof.unanswered == {}
    asked = kept.aws.tally.api_calls + kept.clouds[ELSEWHERE].tally.api_calls - before
    assert asked <= 4  # the AMIs of two regions, and who runs them


MEANWHILE: dict[str, Callable[[Kept, str], object]] = {
    "an instance": lambda kept, image: kept.ebs.launch(image),
    "a template": lambda kept, image: kept.template(image),
    "a parameter": lambda kept, image: kept.parameter(image),
    "a share": lambda kept, image: kept.share(image, "999999999999"),
    "another state": lambda kept, image: kept.aws.ec2.create_tags(
        Resources=[image], Tags=[{"Key": "bake:state", "Value": "precious"}]
    ),
    "another's": lambda kept, image: kept.aws.ec2.delete_tags(Resources=[image], Tags=[{"Key": "bake:run"}]),
}


@pytest.mark.parametrize("what", MEANWHILE)
def test_what_came_after_the_preview_keeps_it(kept: Kept, what: str) -> None:
    old = kept.bake()
    kept.bake()
    seen = looked(kept)
    assert going(seen) == {old}
    made = MEANWHILE[what](kept, old)
    done = pruned(kept, seen)
    assert (done.removed, done.leaks) == ([], [])
    assert old in {one.held.id for one in done.spared} | ids(done.gone)
    assert kept.there(old) or what == "another's"
    assert kept.aws.ec2.describe_images(ImageIds=[old])["Images"]
    if what == "an instance":
        kept.aws.ec2.terminate_instances(InstanceIds=[str(made)])


@pytest.mark.parametrize("where", ["source", "copy"])
def test_an_instance_of_the_last_moment_keeps_it(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Between the second question and the removal: the copy is looked at first, and keeps its source."""
    old = kept.bake()
    there = kept.copy(old)
    kept.bake()
    seen = looked(kept)
    asked, wanted = pruning.machines.AMIS.ask, old if where == "source" else there

    def ask(aws: Any, one: str | None = None) -> list[Holding]:
        found = asked(aws, one)
        return [replace(held, used_by=("i-1",)) if one == wanted else held for held in found]

    monkeypatch.setattr(pruning.machines, "AMIS", replace(pruning.machines.AMIS, ask=ask))
    done = pruned(kept, seen)
    assert ids(done.removed) == ({there} if where == "source" else set())
    assert "instance i-1 runs from it" in [one.why for one in done.spared]
    assert [one.why for one in done.spared if one.held.id == old][-1:] == (
        ["instance i-1 runs from it"] if where == "source" else ["a copy of it in another region stays"]
    )
    assert kept.there(old)


def test_protection_of_the_profiles_own_is_lifted_and_anothers_is_not(kept: Kept) -> None:
    old = kept.bake()
    kept.bake()
    kept.aws.ec2.enable_image_deregistration_protection(ImageId=old, WithCooldown=False)
    assert going(looked(kept)) == set()
    rule = replace(KEEP_1, protect=True)
    done = pruned(kept, looked(kept, rule), rule)
    assert (ids(done.removed), kept.there(old)) == ({old}, False)


def test_a_revoked_image_goes_as_soon_as_nothing_refers_to_it(kept: Kept) -> None:
    revoked = kept.bake("revoked", **{"bake:because": "it draws cats"})
    kept.aws.ec2.disable_image(ImageId=revoked)
    template = kept.template(revoked)
    assert going(looked(kept)) == set()
    kept.aws.ec2.delete_launch_template(LaunchTemplateId=template)
    seen = looked(kept)
    assert [one.why for one in seen.going] == ["it is revoked: it draws cats"]
    assert ids(pruned(kept, seen).removed) == {revoked}


def test_what_another_tool_made_is_never_touched(kept: Kept) -> None:
    others = [kept.bake(**{"bake:run": None}), kept.bake(**{"bake:profile": None, "bake:run": "r"})]
    other_profile = kept.bake(**{"bake:profile": "somebodys"})
    old = kept.bake()
    kept.bake()
    seen = looked(kept)
    assert {one.held.id for one in seen.verdicts}.isdisjoint({*others, other_profile})
    assert ids(pruned(kept, seen).removed) == {old}
    assert all(kept.there(one) for one in (*others, other_profile) if one != others[0])


def refusing(client: Any, *operations: str) -> Callable[[], None]:
    """Let calls fail as IAM does; what ends that."""

    def refuse(model: Any, **_: Any) -> Any:
        if model.name not in operations:
            return None
        denied = {"Error": {"Code": "UnauthorizedOperation", "Message": "no"}}
        return AWSResponse("", 403, {}, None), {**denied, "ResponseMetadata": {"HTTPStatusCode": 403}}

    client.meta.events.register("before-call", refuse)
    return lambda: client.meta.events.unregister("before-call", refuse)


def test_what_can_not_be_removed_is_named_and_keeps_nothing_else(kept: Kept) -> None:
    old = kept.bake()
    there, older = kept.copy(old), kept.bake()
    kept.bake()
    seen = looked(kept)
    end = refusing(kept.clouds[ELSEWHERE].ec2, "DeregisterImage")
    done = pruned(kept, seen)
    end()
    (leak,) = done.leaks
    assert leak.startswith(f"AMI {there} could not be removed (")
    assert f"aws ec2 deregister-image --region {ELSEWHERE}" in leak
    assert there in leak
    assert ids(done.removed) == {older}  # the source waits for its copy
    assert [one.why for one in done.spared] == ["a copy of it in another region stays"]
    assert ids(pruned(kept, looked(kept)).removed) == {old, there}


def test_without_an_answer_nothing_goes_and_it_is_said(kept: Kept) -> None:
    old = kept.bake()
    kept.bake()
    seen = looked(kept)
    end = refusing(kept.aws.ec2, "DescribeLaunchTemplates")
    done = pruned(kept, seen)
    blind = looked(kept)
    end()
    where = f"launch templates in {SPOT_REGION}"
    assert (done.removed, done.unanswered) == ([], {where: "AWS answers UnauthorizedOperation"})
    assert [one.why for one in done.spared] == [
        f"{where} could not be asked: AWS answers UnauthorizedOperation"
    ]
    assert (going(blind), dict(blind.unanswered)) == (set(), done.unanswered)
    assert kept.there(old)


def test_a_region_that_answers_nothing_keeps_all_images(kept: Kept) -> None:
    kept.bake()
    kept.bake()
    end = refusing(kept.clouds[ELSEWHERE].ec2, "DescribeImages")
    seen = looked(kept)
    end()
    assert going(seen) == set()
    assert dict(seen.unanswered) == {f"AMIs in {ELSEWHERE}": "AWS answers UnauthorizedOperation"}
    assert f"AMIs in {ELSEWHERE} could not be looked at" in seen.verdicts[-1].why


def test_only_some_can_be_chosen(kept: Kept) -> None:
    first, second = kept.bake(), kept.bake()
    there = kept.copy(first)
    kept.bake()
    seen = looked(kept, only=frozenset({first}))
    assert going(seen) == {first, there}
    assert {one.why for one in seen.verdicts if one.held.id == second} == {"it is not to be removed now"}
    assert ids(pruned(kept, seen, only=frozenset({first})).removed) == {first, there}


def test_profiles_without_a_rule_lose_nothing_unless_one_is_given(kept: Kept) -> None:
    old = kept.bake()
    kept.bake()
    assert going(preview(replace(kept.scope(), rules={}), prices=False)) == set()
    given = preview(replace(kept.scope(), rules={}, otherwise=KEEP_1), prices=False)
    assert going(given) == {old}


def test_the_dollars_are_those_of_its_snapshots(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    old = kept.bake()
    kept.bake()
    monkeypatch.setattr(pruning, "snapshot_month", lambda aws: 0.05)
    (one,) = preview(kept.scope()).going
    assert (one.held.id, one.held.size) == (old, 2)
    assert one.held.dollars == pytest.approx(0.1)
    monkeypatch.setattr(pruning, "snapshot_month", lambda aws: None)
    assert [one.held.dollars for one in preview(kept.scope()).going] == [None]
