"""What may be pruned: the judgement alone, also of accounts that nobody has thought of."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bake.lifecycle.holding import Holding
from bake.lifecycle.proof import Proof, Reference, by_image
from bake.lifecycle.retention import NO_RULE, Rule, beyond, judge

START = datetime(2026, 11, 1, tzinfo=UTC)
NAMED = Reference("launch template", "lt-0123456789abcdef0", "version 3")
NOTHING = Proof()
KEEP_2 = Rule(keep=2, keep_unproven=1, share_with=frozenset({"111122223333"}))


def ami(day: int, state: str | None = "good", **changed: Any) -> Holding:
    """The AMI of a day in November; `tags` are added to its own, without the prefix."""
    tags = {"run": f"run-{day}", "profile": "p", "state": state, **changed.pop("tags", {})}
    known = {f"bake:{key}": value for key, value in tags.items() if value is not None}
    created = START + timedelta(days=day)
    made = Holding("AMI", f"ami-{day}", "n", "eu-north-1", known, f"remove ami-{day}", "available", created)
    return replace(made, **changed)


def copy(day: int, **changed: Any) -> Holding:
    tags = {"copy-of": f"ami-{day} eu-north-1", **changed.pop("tags", {})}
    return ami(day, id=f"ami-{day}c", region="eu-west-1", tags=tags, **changed)


def outcomes(
    *held: Holding, rule: Rule | None = KEEP_2, proof: Proof = NOTHING
) -> dict[str, tuple[str, str]]:
    rules = {} if rule is None else {"p": rule}
    return {one.held.id: (one.outcome, one.why) for one in judge(held, rules, proof)}


def about_the_oldest(oldest: Holding, proof: Proof = NOTHING, rule: Rule = KEEP_2) -> tuple[str, str]:
    """What becomes of an AMI that two newer good ones make superfluous."""
    return outcomes(oldest, ami(8), ami(7), rule=rule, proof=proof)[oldest.id]


@pytest.mark.parametrize(
    ("oldest", "outcome", "why"),
    [
        pytest.param(ami(1), "prune", "good, and older than the newest 2", id="good"),
        pytest.param(ami(1, None), "prune", "older than the newest 2", id="from before there were states"),
        pytest.param(ami(9), "keep", "one of the newest 2 good", id="the newest"),
        pytest.param(ami(1, created=None), "keep", "one of the newest 2 good", id="of unknown age"),
        pytest.param(ami(1, "unproven"), "keep", "the newest unproven", id="unproven"),
        pytest.param(ami(1, "draft"), "keep", "bake sweep removes it", id="a draft"),
        pytest.param(ami(1, "Good"), "keep", "its tag bake:state is 'Good'", id="another state"),
        pytest.param(ami(1, "revoked"), "prune", "it is revoked", id="revoked"),
        pytest.param(ami(1, "revoked", status="disabled"), "prune", "it is revoked", id="disabled"),
        pytest.param(
            ami(9, "revoked", tags={"because": "it draws cats"}),
            "prune",
            "revoked: it draws cats",
            id="the newest revoked",
        ),
        pytest.param(ami(1, status="disabled"), "keep", "somebody has disabled it", id="disabled by hand"),
        pytest.param(ami(1, status="pending"), "keep", "EC2 says that it is pending", id="pending"),
        pytest.param(ami(1, status="failed"), "keep", "EC2 says that it is failed", id="failed"),
        pytest.param(ami(1, status=""), "keep", "in no state", id="in no state"),
        pytest.param(
            ami(1, protection="enabled-without-cooldown"),
            "keep",
            "protected from deregistration",
            id="protected",
        ),
        pytest.param(ami(1, used_by=("i-1",)), "keep", "instance i-1 runs from it", id="in use"),
    ],
)
def test_the_rule_and_its_own_facts_decide(oldest: Holding, outcome: str, why: str) -> None:
    told = about_the_oldest(oldest)
    assert told[0] == outcome
    assert why in told[1]


@pytest.mark.parametrize(
    ("proof", "outcome", "why"),
    [
        pytest.param(
            Proof({"ami-1": (NAMED,)}),
            "keep",
            "launch template lt-0123456789abcdef0 version 3 refers to it",
            id="a template",
        ),
        pytest.param(
            Proof({"ami-1": (Reference("SSM parameter", "/flux/stable"),)}),
            "keep",
            "it is in the channel stable (SSM parameter /flux/stable)",
            id="a channel",
        ),
        pytest.param(
            Proof({"ami-1": (Reference("SSM parameter", "/other"),)}),
            "keep",
            "SSM parameter /other refers to it",
            id="a parameter",
        ),
        pytest.param(
            Proof(
                {"ami-1": (Reference("account", "111122223333", "(2 instances)"),)},
                {"ami-1": ("111122223333",)},
            ),
            "keep",
            "account 111122223333 (2 instances) refers to it",
            id="another account's use",
        ),
        pytest.param(Proof({}, {"ami-1": ("111122223333",)}), "prune", "older", id="shared as agreed"),
        pytest.param(
            Proof({}, {"ami-1": ("111122223333", "999")}),
            "keep",
            "shared with 999, which the profile's",
            id="shared otherwise",
        ),
        pytest.param(Proof({}, {"ami-1": ("all",)}), "keep", "shared with all", id="public"),
        pytest.param(
            Proof(
                doubts={
                    "ami-1": ("SSM parameters in eu-north-1 could not be asked: AWS answers AccessDenied",)
                }
            ),
            "keep",
            "SSM parameters in eu-north-1 could not be asked",
            id="no answer",
        ),
        pytest.param(Proof({"ami-8": (NAMED,)}), "prune", "older", id="another's reference"),
    ],
)
def test_what_refers_to_it_keeps_it(proof: Proof, outcome: str, why: str) -> None:
    told = about_the_oldest(ami(1), proof, replace(KEEP_2, channels={"/flux/stable": "stable"}))
    assert told[0] == outcome
    assert why in told[1]


def test_many_reasons_are_told_in_short_with_the_channel_first() -> None:
    some = tuple(Reference("instance", f"i-{number}") for number in range(5))
    proof = Proof({"ami-1": (*some, Reference("SSM parameter", "/flux/stable"))})
    told = about_the_oldest(
        ami(1, used_by=("i-1",)), proof, replace(KEEP_2, channels={"/flux/stable": "stable"})
    )
    assert told[1].startswith("it is in the channel stable (")
    assert told[1].endswith("; instance i-0 refers to it; instance i-1 refers to it; and 3 more")


def test_a_channel_is_known_by_its_parameters_arn_too() -> None:
    proof = Proof({"ami-1": (Reference("SSM parameter", "flux/stable"), Reference("file", "/flux/stable"))})
    told = about_the_oldest(ami(1), proof, replace(KEEP_2, channels={"/flux/stable": "stable"}))
    assert told[1] == (
        "it is in the channel stable (SSM parameter flux/stable); file /flux/stable refers to it"
    )


def test_without_a_rule_nothing_goes_and_it_is_said() -> None:
    assert set(outcomes(ami(1), ami(2), ami(3, "revoked"), rule=None).values()) == {("keep", NO_RULE)}
    only_unproven = outcomes(ami(1, "unproven"), ami(2, "unproven"), ami(3), rule=Rule(None, 1))
    assert only_unproven["ami-1"] == ("prune", "unproven, and older than the newest 1")
    assert only_unproven["ami-3"] == ("keep", NO_RULE)


def test_a_profiles_own_protection_holds_nothing() -> None:
    protected = ami(1, protection="enabled-without-cooldown")
    own = replace(KEEP_2, protect=True)
    assert about_the_oldest(protected, rule=own)[0] == "prune"
    assert about_the_oldest(ami(1, protection="enabled-with-cooldown"), rule=own)[0] == "keep"


def test_what_cannot_be_used_does_not_count_for_what_is_kept() -> None:
    told = outcomes(ami(1), ami(2), ami(3, "revoked"), ami(4, status="disabled"), ami(5, "unproven"))
    assert [told[f"ami-{day}"][0] for day in (1, 2)] == ["keep", "keep"]


def test_each_profile_has_its_own() -> None:
    other = [ami(day, tags={"profile": "q"}, id=f"ami-q{day}") for day in (1, 2)]
    verdicts = judge([ami(1), ami(2), *other], {"p": Rule(1, 1), "q": Rule(2, 1)}, Proof())
    assert {one.held.id for one in verdicts if one.outcome == "prune"} == {"ami-1"}


def test_an_image_and_its_copies_stay_or_go_together() -> None:
    newer = (ami(8), ami(7), copy(8))
    assert {one for one, told in outcomes(ami(1), copy(1), *newer).items() if told[0] == "prune"} == {
        "ami-1",
        "ami-1c",
    }
    in_use = outcomes(ami(1), copy(1), *newer, proof=Proof({"ami-1c": (NAMED,)}))
    assert in_use["ami-1c"] == ("keep", f"{NAMED} refers to it")
    assert in_use["ami-1"] == ("keep", f"ami-1c in eu-west-1 is of the same image: {NAMED} refers to it")
    of_copy = outcomes(ami(1), copy(1, protection="enabled-with-cooldown"), *newer)
    assert of_copy["ami-1"][1].startswith("ami-1c in eu-west-1: it is protected")
    revoked = outcomes(ami(8), copy(8, state="revoked"), ami(7), ami(6))
    assert (revoked["ami-8"][0], revoked["ami-6"][0]) == ("prune", "keep")


def test_a_copy_whose_source_is_gone_counts_as_one_image() -> None:
    told = outcomes(copy(1), copy(2), ami(3))
    assert [told[one][0] for one in ("ami-1c", "ami-2c", "ami-3")] == ["prune", "keep", "keep"]


def test_two_with_the_same_tags_stay_both() -> None:
    """Somebody has copied an AMI with its tags."""
    told = outcomes(ami(1), ami(1, id="ami-x", region="eu-west-1"), ami(7), ami(8))
    assert (
        told["ami-x"]
        == told["ami-1"]
        == (
            "keep",
            "ami-1 in eu-north-1 and ami-x in eu-west-1 have the same tags: only one of them is a bake's",
        )
    )


def test_a_region_that_was_not_looked_at_keeps_everything() -> None:
    held = [ami(day) for day in (1, 7, 8)]
    verdicts = judge(
        held, {"p": KEEP_2}, Proof(), ["AMIs in eu-west-1 could not be looked at: AWS answers X"]
    )
    assert [one.outcome for one in verdicts] == ["keep"] * 3
    assert verdicts[-1].why == "AMIs in eu-west-1 could not be looked at: AWS answers X"


@pytest.mark.parametrize(
    "stranger",
    [
        pytest.param(ami(1, tags={"run": None}), id="no run"),
        pytest.param(ami(1, tags={"run": ""}), id="an empty run"),
        pytest.param(ami(1, tags={"profile": None}), id="no profile"),
        pytest.param(ami(1, kind="snapshot"), id="no AMI"),
        pytest.param(ami(1, unread="AWS answers AccessDenied"), id="unread"),
        pytest.param(ami(1, name="bake-20261101-000000-0a1b2c", tags={"run": None}), id="a look-alike"),
    ],
)
def test_what_no_bake_made_is_not_even_told(stranger: Holding) -> None:
    held = [stranger, ami(7), ami(8), ami(6)]
    assert {one.held.id for one in judge(held, {"p": KEEP_2}, Proof())} == {"ami-6", "ami-7", "ami-8"}
    assert stranger not in beyond(held, {"p": Rule(1, 0)})


def test_one_thing_is_told_once_with_its_details() -> None:
    bare, other = Reference("launch template", NAMED.id), Reference("launch template", "lt-1")
    found = by_image([("ami-1", bare), ("ami-1", NAMED), ("ami-1", other), ("ami-1", other), ("ami-2", bare)])
    assert found == {"ami-1": (NAMED, other), "ami-2": (bare,)}
    names = [Reference("SSM parameter", name) for name in ("flux/stable", "/flux/stable", "/flux/next")]
    assert len(by_image([("ami-1", one) for one in names])["ami-1"]) == 2


IDS = [f"ami-{number}" for number in range(9)]
STATES = st.sampled_from(["good", "good", "good", "unproven", "revoked", "draft", "x", None])
AMIS = st.lists(
    st.builds(
        ami,
        st.integers(0, 5),
        STATES,
        status=st.sampled_from(["available", "available", "available", "disabled", "pending"]),
        used_by=st.sampled_from([(), (), ("i-1",)]),
        protection=st.sampled_from(["", "", "", "enabled-with-cooldown"]),
        tags=st.fixed_dictionaries(
            {
                "run": st.sampled_from(["a", "b", "c", "d", "e", "f", "", None]),
                "profile": st.sampled_from(["p", "p", "q", None]),
                "copy-of": st.sampled_from([None, None, "ami-0 eu-north-1"]),
            }
        ),
    ),
    max_size=9,
).map(lambda listed: [replace(one, id=IDS[index]) for index, one in enumerate(listed)])
PROOFS = st.builds(
    Proof,
    st.dictionaries(st.sampled_from(IDS), st.just((NAMED,)), max_size=3),
    st.dictionaries(st.sampled_from(IDS), st.sampled_from([("111122223333",), ("999",)]), max_size=3),
    st.dictionaries(st.sampled_from(IDS), st.just(("no answer",)), max_size=2),
)
RULES = st.dictionaries(
    st.sampled_from(["p", "q"]), st.builds(Rule, st.sampled_from([None, 1, 2]), st.integers(0, 2)), max_size=2
)


@given(AMIS, RULES, PROOFS)
def test_of_any_account_only_superfluous_unreferenced_images_go(
    held: list[Holding], rules: dict[str, Rule], proof: Proof
) -> None:
    verdicts = judge(held, rules, proof)
    going = {one.held.id for one in verdicts if one.outcome == "prune"}
    assert going <= {one.id for one in beyond(held, rules)}
    assert all(one.why for one in verdicts)
    for one in held:
        if one.id in going:
            family = [other for other in held if (other.run, other.profile) == (one.run, one.profile)]
            assert one.run
            assert one.profile in rules
            assert {other.id for other in family} <= going
            for each in family:
                assert not (each.used_by or proof.references.get(each.id) or proof.doubts.get(each.id))
                assert set(proof.shares.get(each.id, ())) <= rules[one.profile].share_with
                assert each.state != "draft"
                assert not each.protection
    for profile in ("p", "q"):
        usable = [
            one
            for one in held
            if one.profile == profile and one.run and one.state == "good" and one.status == "available"
        ]
        alone = [one for one in usable if sum(other.run == one.run for other in held) == 1]
        if alone and len(alone) == len(usable):  # the newest that nothing speaks against
            newest = max(alone, key=lambda one: (one.created or START, one.id))
            assert newest.id not in going


@given(AMIS, RULES, PROOFS, st.randoms(use_true_random=False))
def test_the_order_of_the_answers_changes_nothing(
    held: list[Holding], rules: dict[str, Rule], proof: Proof, random: Any
) -> None:
    shuffled = random.sample(held, len(held))
    one, other = ({v.held.id: v.outcome for v in judge(some, rules, proof)} for some in (held, shuffled))
    assert one == other
