"""What is in use, and images that are finished or half-way there: what a sweep leaves of both."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from moto.ec2.models import ec2_backends

from bake.lifecycle.sweep import preview, sweep
from bake.localcloud.api.faults.faults import AwsFault
from tests.bake.conftest import PlanCloud
from tests.bake.lifecycle.account import SPOT, Account, everything, removed, run_id, there

pytestmark = pytest.mark.integration


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


@pytest.mark.parametrize("way", ["ingress", "egress"])
def test_a_group_that_the_rule_of_another_names_stays(account: Account, way: str) -> None:
    run = run_id()
    group, other = account.make("security group", account.tags(run)), account.make("security group", {})
    ec2 = account.maker.ec2
    change = getattr(ec2, f"authorize_security_group_{way}")
    named: Any = [
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": [{"GroupId": group}]}
    ]
    change(GroupId=other, IpPermissions=named)
    change(GroupId=group, IpPermissions=named)  # one may name itself
    seen = preview(account.aws, run, prices=False)
    assert [one.why for one in seen.verdicts] == [f"{other} uses it"]
    assert sweep(account.aws, run).removed == []
    getattr(ec2, f"revoke_security_group_{way}")(GroupId=other, IpPermissions=named)
    assert removed(sweep(account.aws, run)) == {group}
    ec2.delete_security_group(GroupId=other)


def test_a_bus_with_somebodys_rule_stays(account: Account) -> None:
    run = run_id()
    bus = account.bus(f"bake-{run}", account.tags(run), rule={"owner": "somebody"})
    seen = preview(account.aws, run, prices=False)
    assert [one.why for one in seen.verdicts] == ["rule somebodys uses it"]
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
    plan_cloud.faults.add(
        AwsFault(service="ec2", action="CancelSpotInstanceRequests", kind="refuse", times=None)
    )
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
