"""Instances of Auto Scaling groups: the states that their launcher says, and the hooks that they complete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from bake.errors import UsageError
from bake.localcloud.api.lifecycle_states import ROUTE
from bake.localcloud.network.control import over_http

from .conftest import Account, new, refusal
from .test_auto_scaling import group, template

pytestmark = pytest.mark.integration
LAUNCHING, TERMINATING = "autoscaling:EC2_INSTANCE_LAUNCHING", "autoscaling:EC2_INSTANCE_TERMINATING"
Say = Callable[[str, str, str], str]


@pytest.fixture
def say(served: Account) -> Say:
    """Say a state of an instance in a group, as whoever launched it does; the state that it has then."""

    def state(name: str, instance: str, wanted: str) -> str:
        asked = urlencode({"group": name, "instance": instance, "state": wanted})
        told: Any = over_http(served.control)("POST", f"{ROUTE}?{asked}", None)
        return str(told["state"])

    return state


@pytest.fixture
def scaling(served: Account) -> Any:
    return served.client("autoscaling")


@pytest.fixture
def name(served: Account) -> str:
    return group(served, LaunchTemplate={"LaunchTemplateId": template(served)})


def hook(scaling: Any, group: str, transition: str) -> str:
    name = new("hook")
    scaling.put_lifecycle_hook(
        AutoScalingGroupName=group, LifecycleHookName=name, LifecycleTransition=transition
    )
    return name


def states(scaling: Any, *instances: str) -> dict[str, tuple[str, str]]:
    told = scaling.describe_auto_scaling_instances(InstanceIds=list(instances))["AutoScalingInstances"]
    return {one["InstanceId"]: (one["AutoScalingGroupName"], one["LifecycleState"]) for one in told}


def done(scaling: Any, group: str, hook: str, instance: str, result: str = "CONTINUE") -> None:
    scaling.complete_lifecycle_action(
        AutoScalingGroupName=group, LifecycleHookName=hook, InstanceId=instance, LifecycleActionResult=result
    )


def test_an_instance_waits_for_all_hooks_of_its_transition(
    account: Account, scaling: Any, name: str, say: Say
) -> None:
    instance = account.one()
    first, second = hook(scaling, name, LAUNCHING), hook(scaling, name, LAUNCHING)
    hook(scaling, name, TERMINATING)
    assert say(name, instance, "Pending:Wait") == "Pending:Wait"
    done(scaling, name, first, instance)
    assert states(scaling, instance) == {instance: (name, "Pending:Wait")}
    done(scaling, name, second, instance)
    assert states(scaling, instance) == {instance: (name, "Pending:Proceed")}
    assert say(name, instance, "InService") == "InService"


def test_without_hooks_nothing_is_waited_for(account: Account, name: str, say: Say) -> None:
    instance = account.one()
    assert say(name, instance, "Pending:Wait") == "Pending:Proceed"
    assert say(name, instance, "Terminating:Wait") == "Terminating:Proceed"


def test_a_terminated_instance_is_of_no_group_any_more(
    account: Account, scaling: Any, name: str, say: Say
) -> None:
    instance, other = account.one(), account.one()
    assert states(scaling, instance) == {}
    for one in (instance, other):
        say(name, one, "InService")
    assert states(scaling)[instance] == (name, "InService")
    account.client("ec2").terminate_instances(InstanceIds=[instance])
    account.reach(instance, "terminated")
    assert states(scaling, instance, other) == {other: (name, "InService")}


def test_a_hook_that_nobody_waits_for_is_not_completed(
    account: Account, scaling: Any, name: str, say: Say
) -> None:
    instance, ready = account.one(), hook(scaling, name, LAUNCHING)
    asked = {"AutoScalingGroupName": name, "LifecycleHookName": ready, "InstanceId": instance}
    complete = scaling.complete_lifecycle_action
    assert refusal(complete, **asked, LifecycleActionResult="CONTINUE") == ("ValidationError", 400)
    say(name, instance, "Pending:Wait")
    assert refusal(complete, **asked, LifecycleActionResult="MAYBE") == ("ValidationError", 400)
    assert refusal(complete, **asked, LifecycleActionResult="ABANDON") == ("UnsupportedOperation", 400)
    done(scaling, name, ready, instance)
    assert refusal(complete, **asked, LifecycleActionResult="CONTINUE") == ("ValidationError", 400)


def test_a_hook_is_of_a_group_and_of_a_transition_that_there_are(scaling: Any, name: str) -> None:
    asked = {"LifecycleHookName": new("hook"), "LifecycleTransition": LAUNCHING}
    assert refusal(scaling.put_lifecycle_hook, AutoScalingGroupName="none", **asked)[0] == "ValidationError"
    asked["LifecycleTransition"] = "autoscaling:EC2_INSTANCE_RESTING"
    assert refusal(scaling.put_lifecycle_hook, AutoScalingGroupName=name, **asked)[0] == "ValidationError"


def test_what_can_not_be_said_is_an_error(account: Account, name: str, say: Say) -> None:
    instance = account.one()
    for words, told in (
        ((name, instance, "Standby"), "no state to put an instance into"),
        (("none", instance, "InService"), "no Auto Scaling group none"),
        ((name, "i-0123456789abcdef0", "InService"), "no instance i-0123456789abcdef0"),
    ):
        with pytest.raises(UsageError, match=told):
            say(*words)
