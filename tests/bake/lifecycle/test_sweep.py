"""What a sweep removes of each kind, and what it leaves, in an account of moto."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bake.lifecycle import inventory
from bake.lifecycle.sweep import Swept, preview, sweep
from bake.localcloud.api.faults.faults import AwsFault
from tests.bake.conftest import PlanCloud
from tests.bake.lifecycle.account import Account, everything, removed, run_id, there

pytestmark = pytest.mark.integration
KINDS = (
    *("key pair", "security group", "volume", "network interface", "instance", "spot request"),
    *("AMI", "snapshot", "queue", "bucket", "event bus", "schedule group"),
)
# What each removal calls, and what each question does.
REMOVES = dict(
    zip(
        KINDS,
        (
            *("DeleteKeyPair", "DeleteSecurityGroup", "DeleteVolume", "DeleteNetworkInterface"),
            *("TerminateInstances", "CancelSpotInstanceRequests", "DeregisterImage", "DeleteSnapshot"),
            *("DeleteQueue", "DeleteBucket", "DeleteEventBus", "DeleteScheduleGroup"),
        ),
        strict=True,
    )
)
ASKS = dict(
    zip(
        KINDS,
        (
            *("DescribeKeyPairs", "DescribeSecurityGroups", "DescribeVolumes", "DescribeNetworkInterfaces"),
            *("DescribeInstances", "DescribeSpotInstanceRequests", "DescribeImages", "DescribeSnapshots"),
            *("ListQueues", "ListBuckets", "ListEventBuses", "ListScheduleGroups"),
        ),
        strict=True,
    )
)


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_expired_run_left_is_removed_once(account: Account, kind: str) -> None:
    run = run_id()
    made = account.make(kind, account.tags(run))
    seen = preview(account.aws, run, prices=False)
    assert made in [one.held.id for one in seen.swept]
    assert there(account, run) >= {made}  # a preview changes nothing
    done = sweep(account.aws, run)
    assert done.leaks == []
    assert made in removed(done)
    assert there(account, run) == set()
    again = sweep(account.aws, run, seen=seen)  # by somebody who saw it before
    assert (again.removed, again.leaks) == ([], [])
    assert made in [held.id for held in again.gone]


CASES: dict[str, Callable[[Account, str], dict[str, str]]] = {
    "not expired": lambda account, run: account.tags(run, hours=1),
    "no tags": lambda account, run: {},
    "others' tags": lambda account, run: {"Name": "bake-shop", "bake-run": run, "Expires": "2020-01-01"},
    "no run": lambda account, run: account.tags(run, run=None),
    "no expiry": lambda account, run: account.tags(run, expires=None),
    "malformed": lambda account, run: account.tags(run, expires="$(reboot); yesterday"),
    "good": lambda account, run: account.tags(run, state="good"),
    "no state": lambda account, run: account.tags(run, state=None),
}


def test_what_is_not_an_expired_draft_stays_as_it_is(account: Account) -> None:
    sweep(account.aws)  # what a test that failed has left
    for kind in KINDS:
        for name, tags in CASES.items():
            run = run_id()
            account.make(kind, tags(account, run), name="bake-shop" if name == "no tags" else f"bake-{run}")
    before = everything(account)
    done = sweep(account.aws)
    assert (done.removed, done.leaks) == ([], [])
    assert everything(account) == before


def test_leases_that_are_renewed_after_the_preview_hold(account: Account) -> None:
    """One run for each kind, since the lease of one thing holds for all of its run."""
    made = {}
    for kind in KINDS:
        run = run_id()
        made[account.make(kind, account.tags(run))] = (kind, run)
    seen = preview(account.aws, prices=False)
    assert {one.held.id for one in seen.swept} >= set(made)
    for one, (kind, run) in made.items():
        account.retag(kind, one, account.tags(run, hours=2))
    done = sweep(account.aws, seen=seen)
    assert removed(done).isdisjoint(made)
    assert {one.held.id for one in done.spared if "has a lease until" in one.why} >= set(made)
    assert {held.id for held in inventory.take(account.maker, prices=False).holdings} >= set(made)


def test_a_run_whose_builder_is_renewed_keeps_what_is_not_renewed_yet(account: Account) -> None:
    run = run_id()
    instance = account.make("instance", account.tags(run))
    made = {account.make(kind, account.tags(run)) for kind in ("key pair", "queue", "volume")}
    seen = preview(account.aws, run, prices=False)
    account.retag("instance", instance, account.tags(run, hours=2))
    assert sweep(account.aws, run, seen=seen).removed == []
    assert there(account, run) == {instance, *made}


@pytest.mark.parametrize("kind", KINDS)
def test_what_can_not_be_removed_is_named_and_keeps_nothing_else(
    account: Account, plan_cloud: PlanCloud, kind: str
) -> None:
    run, other = run_id(), "queue" if kind == "bucket" else "bucket"
    made = account.make(kind, account.tags(run))
    beside = account.make(other, account.tags(run))
    plan_cloud.faults.add(AwsFault(service="*", action=REMOVES[kind], kind="refuse", times=None))
    done = sweep(account.aws, run)
    plan_cloud.faults.clear()
    (leak,) = [leak for leak in done.leaks if made in leak]
    assert "could not be removed" in leak
    assert "remove it with: aws " in leak
    assert beside in removed(done)
    assert made in there(account, run)
    assert sweep(account.aws, run).leaks == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_that_is_refused_hides_no_other(
    account: Account, plan_cloud: PlanCloud, kind: str
) -> None:
    plan_cloud.faults.add(AwsFault(service="*", action=ASKS[kind], kind="refuse", times=None))
    run, other = run_id(), "queue" if kind == "bucket" else "bucket"
    beside = account.make(other, account.tags(run))
    seen = preview(account.aws, run, prices=False)
    plan_cloud.faults.clear()
    assert any(what.startswith(kind.split()[0]) for what in seen.inventory.unanswered)
    assert all("AWS answers" in why for why in seen.inventory.unanswered.values())
    assert [one.held.id for one in seen.swept] == [beside]


def test_throttling_and_errors_of_a_moment_are_outlasted(account: Account, plan_cloud: PlanCloud) -> None:
    run = run_id()
    made = {account.make(kind, account.tags(run)) for kind in KINDS}
    for action in (*ASKS.values(), *REMOVES.values()):
        plan_cloud.faults.add(AwsFault(service="*", action=action, kind="throttle", times=2))
        plan_cloud.faults.add(AwsFault(service="*", action=action, kind="error", times=1))
    done = sweep(account.aws, run)
    assert done.leaks == []
    assert removed(done) >= made
    assert there(account, run) == set()


def test_two_sweeps_side_by_side_disturb_each_other_in_nothing(account: Account) -> None:
    """Without two kinds that moto answers with HTTP 500 once they are gone."""
    run = run_id()
    kinds = set(KINDS) - {"spot request", "schedule group"}
    made = {account.make(kind, account.tags(run)) for kind in kinds}
    seen = preview(account.aws, run, prices=False)
    done: list[Swept] = []
    both = [
        threading.Thread(target=lambda aws=aws: done.append(sweep(aws, run, seen=seen)))  # type: ignore[misc]
        for aws in (account.aws, account.maker)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert [leak for one in done for leak in one.leaks] == []
    assert removed(done[0]) | removed(done[1]) >= made
    assert there(account, run) == set()


# What is found


def test_look_alikes_are_told_and_left(account: Account) -> None:
    run = run_id()
    made = [account.make(kind, {}, name=f"bake-{run}") for kind in ("queue", "bucket", "key pair")]
    stranger = account.make("bucket", {}, name="bake-shop")
    told = {one.held.id: one for one in preview(account.aws, prices=False).verdicts}
    assert {told[one].outcome for one in made} == {"left alone"}
    assert told[made[0]].why == "only its name is like a bake's: it has no tag bake:run"
    assert stranger not in told


def test_all_pages_are_read(account: Account) -> None:
    """EC2's by a small page; SQS and EventBridge with their own."""
    run = run_id()
    made = {account.make("volume", account.tags(run)) for _ in range(7)}
    made |= {account.make("snapshot", account.tags(run)) for _ in range(7)}
    calls = []

    def small(params: dict[str, Any], **_: Any) -> dict[str, Any]:
        calls.append(params)
        return {**params, "MaxResults": 5}

    for operation in ("DescribeVolumes", "DescribeSnapshots"):
        account.aws.ec2.meta.events.register(f"provide-client-params.ec2.{operation}", small)
    assert {one.held.id for one in preview(account.aws, run, prices=False).swept} == made
    assert len(calls) >= 2
    assert removed(sweep(account.aws, run)) == made


def test_all_pages_of_buses_are_read(account: Account, plan_cloud: PlanCloud) -> None:
    run = run_id()
    one, two = (account.make("event bus", account.tags(run)) for _ in range(2))

    def answer(content: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if content.get("NextToken") == "more":
            return 200, {"EventBuses": [{"Name": two}]}
        return 200, {"EventBuses": [{"Name": one}], "NextToken": "more"}

    plan_cloud.front.answers["ListEventBuses"] = answer
    seen = preview(account.aws, run, prices=False)
    plan_cloud.front.answers.clear()
    assert {verdict.held.id for verdict in seen.swept} == {one, two}


def test_what_is_told_of_a_thing(account: Account, plan_cloud: PlanCloud) -> None:
    price = {"terms": {"OnDemand": {"x": {"priceDimensions": {"y": {"pricePerUnit": {"USD": "2.0"}}}}}}}
    plan_cloud.front.answers["GetProducts"] = lambda content: (200, {"PriceList": [json.dumps(price)]})
    run = run_id()
    account.make("instance", account.tags(run))
    account.make("volume", account.tags(run))
    told = {one.held.kind: one.held for one in preview(account.aws, run).verdicts}
    machine, volume = told["instance"], told["volume"]
    assert (machine.dollars, volume.dollars) == (2.0 * 730, 160.0)
    assert (machine.type, machine.status, volume.size, machine.profile) == (
        "g6e.xlarge",
        "running",
        80,
        "g6e-ubuntu",
    )
    assert machine.created is not None
    plan_cloud.front.answers["GetProducts"] = lambda content: (400, {"__type": "AccessDeniedException"})
    assert {one.held.dollars for one in preview(account.aws, run).verdicts} == {None}


def test_only_one_profile_or_run_is_told(account: Account) -> None:
    one, two = run_id(), run_id()
    mine = account.make("queue", account.tags(one))
    other = account.make("queue", account.tags(two, profile="another"))
    found = {held.held.id for held in preview(account.aws, profile="another", prices=False).swept}
    assert (other in found, mine in found) == (True, False)
    assert [held.held.id for held in preview(account.aws, one, prices=False).swept] == [mine]
    assert removed(sweep(account.aws, one)) == {mine}
    assert there(account, two) == {other}


@settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(["expired", *CASES])), max_size=8))
@example([("key pair", "expired"), ("instance", "expired")])
def test_of_a_mixed_account_exactly_the_expired_drafts_go(
    account: Account, things: list[tuple[str, str]]
) -> None:
    sweep(account.aws)  # what other examples left
    expired = {}
    for kind, case in things:
        run = run_id()
        tags = account.tags(run) if case == "expired" else CASES[case](account, run)
        made = account.make(kind, tags, name=f"bake-{run}")
        if case == "expired":
            expired[made] = kind
    before = everything(account)
    done = sweep(account.aws)
    assert done.leaks == []
    gone = removed(done)
    assert gone >= set(expired)
    assert _apart_from(gone, before) == _apart_from(gone, everything(account))


def _apart_from(gone: set[str], there: dict[tuple[str, str], str]) -> dict[tuple[str, str], str]:
    """What is there without what is gone and without what goes with an instance: its own volume and
    interface, which nobody tagged. Moto leaves such an interface behind, changed."""
    machines = {one for one in gone if one.startswith("i-")}
    return {
        key: told
        for key, told in there.items()
        if key[1] not in gone and not any(one in told for one in machines)
    }


def test_the_expiry_is_held_against_aws_clock(account: Account) -> None:
    run = run_id()
    made = account.make("queue", account.tags(run, hours=1))
    assert preview(account.aws, run, prices=False).swept == []
    account.aws._session.events.unregister("after-call", account.aws._read_clock)
    account.aws.clock.ahead = timedelta(hours=2)
    assert [one.held.id for one in preview(account.aws, run, prices=False).swept] == [made]
