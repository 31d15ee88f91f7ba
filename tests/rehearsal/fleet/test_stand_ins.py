"""What stands for CloudFormation and Auto Scaling in the rehearsal of a fleet: it passes over nothing."""

from __future__ import annotations

from typing import Any

import pytest

from bake.fleet import template
from tests.bake.fleet.fleets import fleet

from .policies import Decisions, Policies
from .resources import READ, Properties
from .stack import Stack

MINUTES_ABOVE, MINUTES_BELOW = 3, 15
ALARM = {"Type": "AWS::CloudWatch::Alarm", "Properties": {}}


def nobody(service: str) -> Any:
    """No client: what is wrong is found before anything is made."""
    raise AssertionError(service)


def made(resources: dict[str, Any], **more: Any) -> Stack:
    with Stack({"Resources": resources, **more}, nobody, "eu-north-1") as stack:
        return stack


@pytest.mark.parametrize(
    ("resource", "more", "told"),
    [
        pytest.param({"Type": "AWS::EC2::Instance"}, {}, "nothing here makes AWS::EC2::Instance", id="type"),
        pytest.param({**ALARM, "CreationPolicy": {}}, {}, r"parts .*\['CreationPolicy'\]", id="part"),
        pytest.param(ALARM, {"Mappings": {}}, r"sections .*\['Mappings'\]", id="section"),
        pytest.param(ALARM, {"Parameters": {"P": {"Type": "String"}}}, "P has no value", id="parameter"),
        *(
            pytest.param({**ALARM, "Properties": {"X": value}}, {}, told, id=name)
            for name, value, told in (
                ("function", {"Fn::Cidr": ["10.0.0.0/8", 2, 8]}, "nothing here knows: Fn::Cidr"),
                ("dynamic", "{{resolve:ssm:name}}", "a dynamic reference"),
                ("name", {"Ref": "Absent"}, "Absent is no resource"),
                ("itself", {"Fn::Sub": "${One}"}, "One is no resource, or refers to itself"),
                ("attribute", {"Fn::GetAtt": ["Two", "Name"]}, "nothing here knows Two.Name"),
            )
        ),
    ],
)
def test_what_is_not_known_is_an_error(resource: Any, more: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        made({"One": resource, "Two": ALARM}, **more)


def test_a_property_that_nobody_takes_is_an_error() -> None:
    asked = Properties("a queue", {"QueueName": "q", "Colour": "red"})
    assert asked.take("QueueName") == "q"
    with pytest.raises(ValueError, match="a queue: nothing here knows Colour"):
        asked.none_left()


def test_functions_have_their_values() -> None:
    text = "${AWS::Region} ${Two.Arn} ${!Kept} ${own}"
    value = {"Fn::Join": ["-", ["a", {"Fn::Select": [1, ["b", "c"]]}]]}
    either = {"Fn::If": ["No", "x", {"Ref": "AWS::NoValue"}]}
    properties = {"Text": {"Fn::Sub": [text, {"own": "o"}]}, "Value": value, "Left": either, "Kept": {"a": 1}}
    one = {**ALARM, "Properties": properties}
    left = {**ALARM, "Condition": "No"}
    stack = made({"One": one, "Two": ALARM, "Three": left}, Conditions={"No": {"Fn::Equals": ["a", "b"]}})
    arn = f"arn:aws:cloudwatch:eu-north-1:123456789012:alarm:{stack.name}-Two"
    said = f"eu-north-1 {arn} ${{Kept}} o"
    assert stack.read == {"One": {"Text": said, "Value": "a-c", "Kept": {"a": 1}}, "Two": {}}
    assert stack.left_out == ["Three"]


@pytest.fixture
def decisions() -> Decisions:
    """Those of a fleet of at most three, by the template that `bake fleet` writes."""
    resources = template(fleet(max_size=3, messages_per_instance=40, idle_minutes=5), "workers")["Resources"]
    read = {name: one for name, one in resources.items() if one["Type"] in READ}
    refs = {name: name for name in read}
    properties = {name: one["Properties"] for name, one in read.items()}
    for one in properties.values():  # as a stack resolves them
        one["AlarmActions"] = [action["Ref"] for action in one.get("AlarmActions", [])]
    return Decisions(Policies.of(resources["Workers"]["Properties"], properties, refs))


def test_the_first_instance_comes_at_once_and_the_others_when_the_backlog_lasts(decisions: Decisions) -> None:
    assert [decisions.minute(backlog) for backlog in (0, 200)] == [0, 1]
    assert [decisions.minute(200) for _ in range(MINUTES_ABOVE)] == [1, 1, 3]
    assert decisions.minute(2000) == 3  # and no more than the largest size


def test_a_smaller_backlog_ends_instances_slowly_and_none_ends_all(decisions: Decisions) -> None:
    for _ in range(1 + MINUTES_ABOVE):
        decisions.minute(200)
    assert [decisions.minute(50) for _ in range(MINUTES_BELOW)] == [3] * (MINUTES_BELOW - 1) + [2]
    assert [decisions.minute(0) for _ in range(4)] == [2] * 4
    assert decisions.minute(1) == 2  # it is not idle any more
    assert [decisions.minute(0) for _ in range(5)] == [2, 2, 2, 2, 0]


def test_without_the_policies_nothing_is_decided() -> None:
    with pytest.raises(ValueError, match="unpack"):
        Policies.of({"MinSize": "0", "MaxSize": "3"}, {}, {})
