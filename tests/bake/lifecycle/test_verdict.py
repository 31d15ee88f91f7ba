"""What may be swept: the judgement alone, also of accounts that nobody has thought of."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bake.creation import stamp
from bake.lifecycle.holding import Holding, concerns
from bake.lifecycle.verdict import judge

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
PAST, FUTURE = stamp(NOW - timedelta(hours=1)), stamp(NOW + timedelta(hours=1))
RUN = "20261128-080000-0a1b2c"


def held(kind: str = "volume", one: str = "vol-1", used_by: tuple[str, ...] = (), **tags: Any) -> Holding:
    known = {"run": RUN, "state": "draft", "expires": PAST, **tags}
    named = {f"bake:{key}": value for key, value in known.items() if value is not None}
    return Holding(kind, one, "name", "eu-north-1", named, f"remove {one}", used_by=used_by)


def outcome(*listed: Holding) -> list[str]:
    return [verdict.outcome for verdict in judge(listed, NOW)]


@pytest.mark.parametrize(
    ("tags", "expected", "why"),
    [
        pytest.param({}, "sweep", "ended 2026-11-28 11:00 UTC", id="expired"),
        pytest.param({"expires": FUTURE}, "living", "until 2026-11-28 13:00 UTC", id="living"),
        pytest.param({"expires": stamp(NOW)}, "sweep", "ended", id="this second"),
        pytest.param({"run": None}, "left alone", "no tag bake:run", id="no run"),
        pytest.param({"run": ""}, "left alone", "no tag bake:run", id="empty run"),
        pytest.param({"expires": None}, "left alone", "no tag bake:expires", id="no expiry"),
        pytest.param({"expires": ""}, "left alone", "no time: ''", id="empty expiry"),
        pytest.param({"expires": "yesterday"}, "left alone", "no time: 'yesterday'", id="malformed"),
        pytest.param({"expires": "2020-01-01T00:00:00"}, "left alone", "no time", id="without a zone"),
        pytest.param({"expires": "2020-01-01"}, "left alone", "no time", id="a date"),
        pytest.param({"expires": "1577836800"}, "left alone", "no time", id="seconds"),
        pytest.param({"expires": "2020-01-01T00:00:00Z\n"}, "left alone", "no time", id="a line break"),
        pytest.param({"expires": "9999-12-31T23:59:59-14:00"}, "living", "9999", id="the end of time"),
        pytest.param({"expires": "0001-01-01T00:00:00+14:00"}, "sweep", "ended", id="before all time"),
        pytest.param({"state": None}, "left alone", "no tag bake:state", id="no state"),
        pytest.param({"state": "Draft"}, "left alone", "'Draft'", id="another state"),
        pytest.param({"state": "good"}, "finished", "it is good", id="good"),
        pytest.param({"state": "unproven"}, "finished", "it is unproven", id="unproven"),
    ],
)
def test_the_tags_decide(tags: dict[str, str | None], expected: str, why: str) -> None:
    (verdict,) = judge([held(**tags)], NOW)
    assert verdict.outcome == expected
    assert why in verdict.why


def test_a_run_lives_while_one_of_its_things_does() -> None:
    """A bake renews its tags one after the other."""
    assert outcome(held(), held("instance", "i-1", expires=FUTURE)) == ["living", "living"]
    assert outcome(held(), held("instance", "i-1", expires=FUTURE, run="another")) == ["sweep", "living"]


@pytest.mark.parametrize("kind", ["volume", "network interface", "security group", "AMI", "instance"])
def test_what_is_in_use_stays_unless_its_user_goes(kind: str) -> None:
    user = "sir-1" if kind == "instance" else "i-1"
    by = "spot request" if kind == "instance" else "instance"
    used = held(kind, "it", (user,))
    assert outcome(used) == ["left alone"]
    assert outcome(used, held(by, user)) == ["sweep", "sweep"]
    assert outcome(used, held(by, user, run="another", expires=FUTURE)) == ["left alone", "living"]
    assert outcome(replace(used, used_by=(user, "i-2")), held(by, user)) == ["left alone", "sweep"]


def test_a_snapshot_goes_only_with_its_ami() -> None:
    snapshot = held("snapshot", "snap-1", ("ami-1",))
    assert outcome(snapshot, held("AMI", "ami-1")) == ["sweep", "sweep"]
    assert outcome(snapshot, held("AMI", "ami-1", ("i-1",))) == ["left alone", "left alone"]
    assert outcome(snapshot) == ["left alone"]  # of an AMI that is no bake's any more


@pytest.mark.parametrize("state", ["good", "unproven"])
@pytest.mark.parametrize("expires", [None, PAST, FUTURE], ids=["no expiry", "past", "future"])
def test_marking_that_failed_half_way_keeps_the_image(state: str, expires: str | None) -> None:
    """On the AMI alone, or on the snapshot alone; with the AMI, or after it was deregistered by hand."""
    image, snapshot = held("AMI", "ami-1"), held("snapshot", "snap-1", ("ami-1",))
    marked, written = held("AMI", "ami-1", state=state, expires=expires), replace(snapshot, used_by=())
    data = replace(written, id="snap-2")  # another disk's, which nobody marks
    proven = held("snapshot", "snap-1", state=state, expires=expires)
    assert outcome(marked, snapshot) == ["finished"] * 2
    assert outcome(image, replace(proven, used_by=("ami-1",))) == ["finished"] * 2
    assert outcome(proven, data) == ["finished"] * 2
    assert outcome(proven, held("instance", "i-1")) == ["finished", "sweep"]  # its machine goes


def test_tags_that_could_not_be_read_decide_nothing() -> None:
    (verdict,) = judge([replace(held(), unread="AWS answers AccessDenied")], NOW)
    assert (verdict.outcome, verdict.why) == (
        "left alone",
        "its tags could not be read: AWS answers AccessDenied",
    )


@pytest.mark.parametrize(
    ("name", "tags", "expected"),
    [
        pytest.param("bake-shop", {}, False, id="a stranger's"),
        pytest.param(f"bake-{RUN}-builder", {}, True, id="a look-alike"),
        pytest.param(f"my-bake-{RUN}", {}, False, id="not from its start"),
        pytest.param("anything", {"bake:run": RUN}, True, id="tagged"),
        pytest.param("anything", {"bake:run": ""}, False, id="an empty tag"),
        pytest.param("anything", {"Bake:Run": RUN, "bake-run": RUN}, False, id="others' tags"),
    ],
)
def test_what_concerns_bakes(name: str, tags: dict[str, str], expected: bool) -> None:
    assert concerns(name, tags) is expected


RUNS = st.sampled_from(["one", "two", "", None])
EXPIRIES = st.one_of(st.sampled_from([PAST, FUTURE, None, "", "soon"]), st.text(max_size=30))
STATES = st.one_of(st.sampled_from(["draft", "draft", "good", "unproven", None]), st.text(max_size=6))
IDS = [f"id-{number}" for number in range(8)]
THINGS = st.lists(
    st.builds(
        held,
        kind=st.sampled_from(
            ["spot request", "instance", "volume", "AMI", "snapshot", "queue", "security group"]
        ),
        used_by=st.lists(st.sampled_from([*IDS, "i-others"]), max_size=2).map(tuple),
        run=RUNS,
        expires=EXPIRIES,
        state=STATES,
    ),
    max_size=8,
).map(lambda listed: [replace(one, id=IDS[index]) for index, one in enumerate(listed)])


@given(THINGS)
def test_of_any_account_only_expired_unused_drafts_go(things: list[Holding]) -> None:
    verdicts = judge(things, NOW)
    assert [verdict.held for verdict in verdicts] == things
    going = {verdict.held.id for verdict in verdicts if verdict.outcome == "sweep"}
    kept_images = {
        one.run for one in things if one.kind in ("AMI", "snapshot") and one.state in ("good", "unproven")
    }
    for one in things:
        family = one.kind in ("AMI", "snapshot") and one.run in kept_images
        clean = (
            one.run and one.state == "draft" and one.expires is not None and one.expires <= NOW and not family
        )
        if one.id in going:
            assert clean
            assert set(one.used_by) <= going
        elif clean and not one.used_by:
            drafts = [
                other for other in things if other.run == one.run and other.state not in ("good", "unproven")
            ]
            assert any(other.expires is not None and other.expires > NOW for other in drafts)


@given(THINGS, st.randoms(use_true_random=False))
def test_the_order_of_the_answers_changes_nothing_of_what_is_used(things: list[Holding], random: Any) -> None:
    unused = [replace(one, used_by=()) for one in things]
    shuffled = random.sample(unused, len(unused))
    one, other = ({v.held.id: v for v in judge(listed, NOW)} for listed in (unused, shuffled))
    assert {key: verdict.outcome for key, verdict in one.items()} == {
        key: verdict.outcome for key, verdict in other.items()
    }
