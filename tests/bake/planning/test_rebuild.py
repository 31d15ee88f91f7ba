"""Whether a bake would make another image than there is, and what it says of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bake.account.baked import Baked
from bake.account.facts import IdentityFacts
from bake.account.images import BaseFacts
from bake.account.worker_code import Objection, WorkerCode
from bake.planning import rebuild
from bake.planning.identity import TAG, Identity
from bake.planning.rebuild import Decision, decide, made_of, standard, with_updates
from bake.planning.sources import Sources
from bake.updates.pending import Pending, Update

from ..facts import AMI
from .test_identity import CODE, FIRST, LOCK, loaded
from .test_identity import made_of as identity_of

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def image(
    found: Identity = FIRST, number: int = 1, days: float = 3, state: str = "good", **facts: Any
) -> Baked:
    """An AMI of an identity that was made some days ago."""
    created = (NOW - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    tags = {"bake:plan": found.id, TAG: found.tag}
    return replace(Baked(f"ami-{number:017x}", created, True, state, tags), **facts)


def facts(*images: Baked, **changes: Any) -> IdentityFacts:
    return replace(IdentityFacts(BaseFacts(AMI), WorkerCode(CODE), images, NOW), **changes)


def decided(
    *images: Baked,
    now: Identity | None = FIRST,
    recorded: Mapping[str, Mapping[str, str]] | None = None,
    max_age: timedelta | None = None,
) -> Decision:
    profile = loaded(rebuild={"max_age": max_age})
    return decide(profile, now, facts(*images), recorded)


def test_a_good_image_of_the_same_plan_makes_a_bake_needless() -> None:
    found = decided(image())
    assert not found.changed
    assert found.image == image()
    assert found.sentence == f"nothing changed since {image().id}, of 2026-05-29T00:00:00.000Z"


@pytest.mark.parametrize("state", ["draft", "unproven", "revoked", "bad", ""])
def test_an_image_of_any_other_state_does_not_count(state: str) -> None:
    found = decided(image(state=state))
    assert found.changed
    assert found.reasons == ("there is no good image of the profile yet",)


def test_an_unproven_image_of_the_same_plan_is_named_with_the_command_that_proves_it() -> None:
    one = image(state="unproven")
    assert f"bake boot-check {one.id}" in decided(one).sentence
    assert decided(replace(one, available=False)).unproven is None


def test_an_image_that_cannot_be_launched_does_not_count() -> None:
    assert decided(image(available=False)).changed


def test_an_older_good_image_of_the_same_plan_is_enough() -> None:
    """Somebody went back to the code before the last one."""
    other = identity_of(code=replace(CODE, tree="u" * 64))
    found = decided(image(number=1, days=9), image(other, number=2, days=1))
    assert (found.changed, found.image) == (False, image(number=1, days=9))


def test_of_images_of_one_moment_the_same_one_is_chosen() -> None:
    one, two = image(number=1), image(number=2)
    assert standard(FIRST, (one, two)) == two


@pytest.mark.parametrize(
    ("days", "changed"), [(29.9, False), (30.0, False), (30.1, True), (400, True), (-1, False)]
)
def test_an_image_is_made_anew_when_it_is_too_old(days: float, changed: bool) -> None:
    found = decided(image(days=days), max_age=timedelta(days=30))
    assert found.changed is changed
    if changed:
        assert found.sentence == f"{image().id} is {int(days)} days old, and rebuild.max_age is 30d"


def test_a_day_that_nobody_can_read_counts_as_too_old() -> None:
    found = decided(image(created="yesterday"), max_age=timedelta(days=30))
    assert found.changed
    assert not decided(image(created="yesterday")).changed


OTHER_BASE = identity_of(base="ami-0fedcba9876543210")
OTHER_CODE = identity_of(code=replace(CODE, tree="3c4d3c4d" * 8))


def parts(**changes: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    """What an image before was made of."""
    return {**FIRST.parts, **changes}


def before(**changes: Mapping[str, str]) -> tuple[str, ...]:
    was = Identity(parts(**changes))
    return decided(image(was), recorded=was.parts).reasons


def test_the_tags_alone_tell_base_and_worker() -> None:
    now = identity_of(base="ami-0fedcba9876543210", code=replace(CODE, tree="3c4d3c4d" * 8))
    found = decided(image(), now=now)
    assert found.sentence == f"base {AMI.id} → ami-0fedcba9876543210; worker tttttttt → 3c4d3c4d"
    assert found.unknown == ()


def test_without_a_report_it_says_what_it_cannot_tell() -> None:
    was = Identity(parts(checks={"test_disk.py": "1"}))
    found = decided(image(was))
    assert found.sentence == (
        f"checks; not known: what changed in checks, as the report of {image().id} is not here"
    )


def test_an_image_of_an_older_bake_tells_its_base() -> None:
    old = image(OTHER_BASE, base="ami-0fedcba9876543210")
    found = decided(replace(old, tags={"bake:plan": "1234"}))
    assert found.reasons == (f"base ami-0fedcba9876543210 → {AMI.id}",)
    assert "worker, profile, settings" in found.sentence


def test_an_image_that_tells_nothing_has_another_plan() -> None:
    found = decided(image(tags={}))
    assert found.reasons == (f"plan unknown → {FIRST.id}",)
    assert "its report is not here" in found.sentence


def test_the_report_tells_how_many_checks() -> None:
    checks = dict(FIRST.parts["checks"])
    checks["test_disk.py"] = "another"
    checks.pop("test_system.py")
    assert before(checks=checks) == ("2 checks (test_disk.py, test_system.py)",)
    assert before(checks={"gone.py": "1"}) == (f"{len(checks) + 2} checks",)


def test_the_report_tells_which_settings_of_the_profile() -> None:
    was = {**FIRST.parts["profile"], "root_volume.size_gib": "60", "base.remove": '["conda"]'}
    assert before(profile=was) == ("base.remove conda → not set, root_volume.size_gib 60 → 80",)


@pytest.mark.parametrize(
    ("group", "was", "text"),
    [
        ("base", {"ami": "ami-1"}, f"base ami-1 → {AMI.id}"),
        ("worker", {"code": "1a2b" * 16}, "worker 1a2b1a2b → tttttttt"),
        ("weights", {**FIRST.parts["weights"], "revision": "9" * 40}, "weights 99999999 → aaaaaaaa"),
        ("weights", {**FIRST.parts["weights"], "x.json": "{}"}, "weights: 1 file (x.json)"),
        ("locks", {**FIRST.parts["locks"], "tools": "1"}, "locks: tools"),
        ("own checks", {"checks/a.py": "1"}, "1 own check (checks/a.py)"),
        ("bake", {**FIRST.parts["bake"], "layout.py": "1"}, "bake itself: 1 file (layout.py)"),
        ("settings", {**FIRST.parts["settings"], "BAKE_CUDA": "11"}, "settings: BAKE_CUDA"),
    ],
)
def test_the_report_tells_each_group_in_its_own_words(group: str, was: dict[str, str], text: str) -> None:
    assert before(**{group: was}) == (text,)


def test_settings_that_follow_from_the_profile_are_not_told_twice() -> None:
    profile = {**FIRST.parts["profile"], "weights.cache": '"/srv"'}
    settings = {**FIRST.parts["settings"], "HF_HUB_CACHE": "/srv"}
    [text] = before(profile=profile, settings=settings)
    assert text.startswith("weights.cache /srv → ")


def test_without_base_or_code_it_bakes_and_the_plan_says_why() -> None:
    profile = loaded()
    for wrong in (
        facts(base=BaseFacts(None)),
        facts(code=WorkerCode(None)),
        facts(code=WorkerCode(CODE, (Objection("worker.commit", "does not fit", ()),))),
    ):
        assert made_of(profile, wrong, Sources(), LOCK) is None
    assert made_of(profile, facts(), Sources(), LOCK) == FIRST
    found = decide(profile, None, facts(image()))
    assert found.changed
    assert "the plan says why" in found.sentence


def test_what_machines_get_is_the_same() -> None:
    told = decided(image()).as_dict()
    assert told == {
        "changed": False,
        "plan": FIRST.id,
        "image": image().id,
        "reasons": [f"nothing changed since {image().id}, of 2026-05-29T00:00:00.000Z"],
        "unknown": [],
        "unproven": None,
    }
    assert rebuild.PLAN_TAG == "bake:plan"


# Security updates

OPENSSL = Update("openssl", "3.0.2-0ubuntu1.15", "3.0.2-0ubuntu1.16", "USN-1")


def test_an_image_that_lacks_security_updates_is_made_anew() -> None:
    found = with_updates(decided(image()), Pending((OPENSSL,), ("security updates of another",)))
    assert found.changed
    assert found.image == image()
    assert found.sentence == (
        "1 security update: openssl 3.0.2-0ubuntu1.15 → 3.0.2-0ubuntu1.16 (USN-1); "
        "not known: security updates of another"
    )


def test_what_nobody_could_find_out_is_told_and_bakes_nothing() -> None:
    found = with_updates(decided(image()), Pending(unknown=("security updates of jammy-security: HTTP 404",)))
    assert not found.changed
    assert found.sentence.endswith("; not known: security updates of jammy-security: HTTP 404")
    assert found.as_dict()["unknown"] == ["security updates of jammy-security: HTTP 404"]


def test_without_any_update_the_decision_stays() -> None:
    assert with_updates(decided(image()), Pending()) == decided(image())
