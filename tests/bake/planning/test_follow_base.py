"""What a plan says of the base AMI's family: what is newer, what goes, what has gone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bake.account.images import BaseFacts
from bake.planning.plan import Plan
from bake.planning.render import as_dict, as_text
from bake.profile import Profile

from ..facts import AMI
from .test_pure import loaded, planned, refused

# The account is asked on 2026-06-01.
NEW = replace(AMI, id="ami-0fedcba9876543210", name="Ubuntu, newer", created="2026-05-01T00:00:00.000Z")
NEWER = "the newest of ssm:/bases/ubuntu is ami-0fedcba9876543210 (Ubuntu, newer, of 2026-05-01)"


def follows(follow: str | None) -> Profile:
    return loaded(base={"ami": None, "ssm": "/bases/ubuntu", "follow": follow})


def base(**changes: Any) -> BaseFacts:
    return replace(BaseFacts(NEW, newest=NEW, agreed=AMI, agreed_id=AMI.id), **changes)


def plan(follow: str | None = None, **changes: Any) -> Plan:
    return planned(follows(follow), base=base(**changes))


def fact(found: Plan, name: str) -> Any:
    return next(one.value for one in found.facts if one.name == name)


def test_a_pinned_base_is_used_and_the_newer_one_told() -> None:
    found = plan("pinned", ami=AMI)
    assert found.launch.base.id == AMI.id
    assert found.warnings == (f"base.follow: pinned: {AMI.id} is used, and {NEWER}",)


def test_a_pinned_base_that_is_the_newest_needs_no_word() -> None:
    assert plan("pinned", ami=AMI, newest=AMI).warnings == ()


def test_a_pinned_base_that_is_gone_is_a_problem_that_names_the_newest() -> None:
    assert refused(follows("pinned"), base=base(ami=None, agreed=None)) == [
        f"base.ssm: the agreed {AMI.id} does not exist in eu-north-1 any more, or is not shared with this "
        "account",
        f"    {NEWER}: base.follow: propose proposes it",
    ]


@pytest.mark.parametrize("follow", [None, "propose", "newest"])
def test_otherwise_the_newest_is_planned_with(follow: str | None) -> None:
    found = plan(follow)
    assert found.launch.base.id == NEW.id
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("agreed", "said"),
    [
        (None, f"the agreed {AMI.id} is not to be had any more; {NEWER}"),
        (replace(AMI, state="disabled"), f"the agreed {AMI.id} is disabled; {NEWER}"),
        (
            replace(AMI, deprecated="2026-05-31T00:00:00.000Z"),
            f"the agreed {AMI.id} is deprecated since 2026-05-31T00:00:00.000Z; {NEWER}",
        ),
        (
            replace(AMI, deprecated="2026-06-30T00:00:00.000Z"),
            f"the agreed {AMI.id} will be deprecated on 2026-06-30T00:00:00.000Z: its owner ends it; {NEWER}",
        ),
    ],
)
def test_an_agreed_base_that_goes_is_told(agreed: Any, said: str) -> None:
    assert plan("propose", agreed=agreed).warnings == (said,)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("2026-05-31T23:59:59.000Z", "is deprecated since 2026-05-31T23:59:59.000Z"),
        ("2026-06-01T00:00:00.000Z", "is deprecated since 2026-06-01T00:00:00.000Z"),
        ("2026-07-01T00:00:00.000Z", "will be deprecated on 2026-07-01T00:00:00.000Z: its owner ends it"),
        ("2026-07-01T00:00:01.000Z", None),
        (None, None),
    ],
)
def test_any_base_is_told_that_is_about_to_go(at: str | None, said: str | None) -> None:
    found = planned(base=BaseFacts(replace(AMI, deprecated=at)))
    assert found.warnings == ((f"{AMI.id} {said}",) if said else ())


def test_only_who_follows_the_newest_has_a_family_to_agree_to() -> None:
    assert fact(plan("newest"), "base_follow") == "newest of ssm:/bases/ubuntu"
    assert {fact(plan(other), "base_follow") for other in (None, "propose")} == {None}
    assert fact(planned(), "base_follow") is None
    named = loaded(base={"ami": None, "name": "ubuntu-*", "owner": "amazon", "follow": "newest"})
    assert fact(planned(named, base=base()), "base_follow") == "newest of name ubuntu-* of amazon"


def test_the_newest_must_be_of_the_same_system_and_fit() -> None:
    other = replace(NEW, name="al2023-ami", architecture="arm64")
    said = "\n".join(refused(follows("newest"), base=base(ami=other, newest=other)))
    assert "base.os: the profile says ubuntu, but" in said
    assert "is arm64" in said


def test_people_and_machines_are_told_how_it_is_followed() -> None:
    found = plan("propose")
    assert "propose: the newest of ssm:/bases/ubuntu" in as_text(found)
    assert as_dict(found)["follow"] == {
        "family": "ssm:/bases/ubuntu",
        "how": "propose",
        "newest": NEW.id,
        "agreed": AMI.id,
    }
    assert as_dict(planned())["follow"] is None


def test_an_id_has_nothing_to_follow() -> None:
    assert list(loaded(base={"follow": "newest"}).base.conflicts()) == [
        "follow goes with ssm, or name and owner: an id has no newer AMI to follow"
    ]
    assert list(follows("newest").base.conflicts()) == []
