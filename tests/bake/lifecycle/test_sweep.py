"""What a sweep removes of each kind, and what it leaves, in an account of moto."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.ec2.models import ec2_backends

from bake.lifecycle import inventory
from bake.lifecycle.sweep import Swept, preview, sweep
from bake.localcloud.api.faults.faults import AwsFault
from tests.bake.conftest import PlanCloud
from tests.bake.lifecycle.account import SPOT, Account, everything, run_id

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


def there(account: Account, run: str) -> set[str]:
    return {held.id for held in inventory.take(account.maker, prices=False).of(run)}


def removed(done: Swept) -> set[str]:
    return {held.id for held in done.removed}


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


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_an_expired_draft_stays_as_it_is(account: Account, kind: str) -> None:
    sweep(account.aws)  # what a test that failed has left
    for name, tags in CASES.items():
        run = run_id()
        account.make(kind, tags(account, run), name="bake-shop" if name == "no tags" else f"bake-{run}")
    before = everything(account)
    done = sweep(account.aws)
    assert (done.removed, done.leaks) == ([], [])
    assert everything(account) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_lease_that_is_renewed_after_the_preview_holds(account: Account, kind: str) -> None:
    run = run_id()
    made = account.make(kind, account.tags(run))
    seen = preview(account.aws, run, prices=False)
    account.retag(kind, made, account.tags(run, hours=2))
    done = sweep(account.aws, run, seen=seen)
    assert made in there(account, run)
    assert made not in removed(done)
    assert "has a lease until" in next(one.why for one in done.spared if one.held.id == made)


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


@pytest.mark.parametrize("kind", KINDS)
def test_throttling_and_errors_of_a_moment_are_outlasted(
    account: Account, plan_cloud: PlanCloud, kind: str
) -> None:
    run = run_id()
    made = account.make(kind, account.tags(run))
    for action in (ASKS[kind], REMOVES[kind]):
        plan_cloud.faults.add(AwsFault(service="*", action=action, kind="throttle", times=2))
        plan_cloud.faults.add(AwsFault(service="*", action=action, kind="error", times=1))
    done = sweep(account.aws, run)
    assert (done.leaks, made in removed(done)) == ([], True)
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


# What is in use


def test_an_ami_that_somebody_runs_stays_with_its_snapshot(account: Account) -> None:
    run = run_id()
    image = account.make("AMI", account.tags(run))
    user = account.instance("", {}, image=image)
    before = everything(account)
    seen = preview(account.aws, run, prices=False)
    assert (seen.swept, sweep(account.aws, run).removed) == ([], [])
    assert everything(account) == before
    assert f"{user} uses it" in [one.why for one in seen.verdicts]
    account.maker.ec2.terminate_instances(InstanceIds=[user])
    assert removed(sweep(account.aws, run)) >= {image}


def test_an_ami_that_is_run_after_the_preview_stays_with_its_snapshot(account: Account) -> None:
    run = run_id()
    image = account.make("AMI", account.tags(run))
    seen = preview(account.aws, run, prices=False)
    user = account.instance("", {}, image=image)
    done = sweep(account.aws, run, seen=seen)
    assert (done.removed, done.leaks) == ([], [])
    assert {image, account.snapshot_of(image)} <= there(account, run)
    account.maker.ec2.terminate_instances(InstanceIds=[user])


def test_the_runs_own_instance_of_its_ami_goes_before_it(account: Account) -> None:
    run = run_id()
    image = account.make("AMI", account.tags(run))
    user = account.instance("", account.tags(run), image=image)
    assert removed(sweep(account.aws, run)) >= {image, user}
    assert there(account, run) == set()


def test_a_volume_and_a_group_in_somebodys_use_stay(account: Account) -> None:
    run = run_id()
    volume, group = (account.make(kind, account.tags(run)) for kind in ("volume", "security group"))
    interface = account.interface("", {}, group)
    user = account.instance("", {})
    zone = account.maker.ec2.describe_instances(InstanceIds=[user])["Reservations"][0]["Instances"][0]
    assert zone["Placement"]["AvailabilityZone"] == account.subnet["AvailabilityZone"]
    account.maker.ec2.attach_volume(VolumeId=volume, InstanceId=user, Device="/dev/sdf")
    seen = preview(account.aws, run, prices=False)
    assert {one.held.id: one.why for one in seen.verdicts} == {
        volume: f"{user} uses it",
        group: f"{interface} uses it",
    }
    assert sweep(account.aws, run).removed == []
    assert there(account, run) == {volume, group}
    account.maker.ec2.terminate_instances(InstanceIds=[user])


def test_a_bus_with_somebodys_rule_stays(account: Account) -> None:
    run = run_id()
    bus = account.bus(f"bake-{run}", account.tags(run), rule={"owner": "somebody"})
    seen = preview(account.aws, run, prices=False)
    assert [one.why for one in seen.verdicts] == [f"rule {bus} uses it"]
    assert sweep(account.aws, run).removed == []
    assert account.maker.events.list_rules(EventBusName=bus)["Rules"]


def test_an_instance_stays_while_its_spot_request_can_not_be_cancelled(
    account: Account, plan_cloud: PlanCloud
) -> None:
    """It would be launched again, without the tags that a sweep finds it by."""
    run = run_id()
    request = account.make("spot request", account.tags(run))
    asked = account.maker.ec2.describe_spot_instance_requests(SpotInstanceRequestIds=[request])
    instance = asked["SpotInstanceRequests"][0]["InstanceId"]
    account.retag("instance", instance, account.tags(run))
    backend: Any = ec2_backends["123456789012"][SPOT]
    backend.get_instance(instance).spot_instance_request_id = request
    plan_cloud.faults.add(AwsFault(service="ec2", action=REMOVES["spot request"], kind="refuse", times=None))
    done = sweep(account.aws, run)
    plan_cloud.faults.clear()
    told = account.maker.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    assert (told["State"]["Name"], told["SpotInstanceRequestId"]) == ("running", request)
    assert instance not in removed(done)
    assert f"{request} uses it" in [one.why for one in done.spared]
    assert removed(sweep(account.aws, run)) >= {request}
    assert there(account, run) == set()


# Images


@pytest.mark.parametrize("state", ["good", "unproven"])
def test_a_finished_images_snapshot_outlives_its_ami(account: Account, state: str) -> None:
    """Deregistered by hand; another disk's snapshot, which nobody marked, stays with it."""
    run = run_id()
    finished = account.tags(run, state=state, expires=None)
    image = account.image(f"bake-{run}", finished)
    snapshot = account.snapshot_of(image)
    other = account.make("snapshot", account.tags(run))
    account.maker.ec2.deregister_image(ImageId=image)
    before = everything(account)
    assert sweep(account.aws, run).removed == []
    assert everything(account) == before
    assert there(account, run) == {snapshot, other}


@pytest.mark.parametrize("state", ["good", "unproven"])
def test_a_disabled_image_stays_with_its_snapshot(account: Account, state: str) -> None:
    run = run_id()
    image = account.image(f"bake-{run}", account.tags(run, state=state, expires=None))
    account.maker.ec2.disable_image(ImageId=image)
    before = everything(account)
    assert sweep(account.aws, run).removed == []
    assert everything(account) == before


def test_a_disabled_draft_goes(account: Account) -> None:
    run = run_id()
    image = account.image(f"bake-{run}", account.tags(run))
    account.maker.ec2.disable_image(ImageId=image)
    assert removed(sweep(account.aws, run)) >= {image}
    assert there(account, run) == set()


@pytest.mark.parametrize("marked", ["AMI", "snapshot"])
def test_an_image_that_was_marked_half_way_stays(account: Account, marked: str) -> None:
    run = run_id()
    draft, good = account.tags(run), account.tags(run, state="good")
    image = account.image(f"bake-{run}", *((good, draft) if marked == "AMI" else (draft, good)))
    before = everything(account)
    assert sweep(account.aws, run).removed == []
    assert everything(account) == before
    assert image in there(account, run)


def test_a_snapshot_that_a_pending_ami_did_not_tell_goes_too(account: Account) -> None:
    run = run_id()
    image = account.image(f"bake-{run}", account.tags(run), snapshot={})
    backend: Any = ec2_backends["123456789012"][SPOT]
    backend.amis[image].state = "pending"
    late = threading.Timer(1.0, lambda: account.make("snapshot", account.tags(run)))
    late.start()
    done = sweep(account.aws, run)
    late.join()
    assert [held.kind for held in done.removed] == ["AMI", "snapshot"]
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
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(["expired", *CASES])), max_size=8))
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
    assert removed(done) >= set(expired)
    after, gone = everything(account), removed(done)
    assert {key: told for key, told in before.items() if key[1] not in gone and not _of(told, gone)} == after


def _of(told: str, gone: set[str]) -> bool:
    """Whether it went with an instance: its own volume or interface, which nobody tagged."""
    return any(one in told for one in gone if one.startswith("i-"))


def test_the_expiry_is_held_against_aws_clock(account: Account) -> None:
    run = run_id()
    made = account.make("queue", account.tags(run, hours=1))
    assert preview(account.aws, run, prices=False).swept == []
    account.aws._session.events.unregister("after-call", account.aws._read_clock)
    account.aws.clock.ahead = timedelta(hours=2)
    assert [one.held.id for one in preview(account.aws, run, prices=False).swept] == [made]
