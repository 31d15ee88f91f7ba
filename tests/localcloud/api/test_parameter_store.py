"""Parameter Store: versions, who wrote them, AMIs that are validated late, and launches by a parameter."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from moto.ssm.exceptions import SSMException
from moto.ssm.models import ssm_backends

from bake.localcloud.api.parameter_store import IMAGE, ParameterStore
from bake.localcloud.settings import ACCOUNT, REGION
from tests.localcloud.recorded_cloud import BASE, OTHER

from .conftest import Account, new, refusal

pytestmark = pytest.mark.integration

ELSEWHERE = "us-west-2"
GONE = "ami-0fedcba9876543210"


def put(ssm: Any, name: str, value: str, **more: Any) -> int:
    return int(ssm.put_parameter(Name=name, Value=value, Type="String", **more)["Version"])


@pytest.fixture
def name() -> str:
    return f"/test/{uuid.uuid4().hex}"


@pytest.fixture
def ssm(served: Account) -> Any:
    return served.client("ssm")


def test_versions_keep_their_descriptions_and_who_wrote_them(ssm: Any, name: str) -> None:
    assert put(ssm, name, "a", Description="first") == 1
    assert put(ssm, name, "b", Description="second", Overwrite=True) == 2
    told = ssm.get_parameter_history(Name=name)["Parameters"]
    assert [(one["Version"], one["Value"], one["Description"]) for one in told] == [
        (1, "a", "first"),
        (2, "b", "second"),
    ]
    assert {one["LastModifiedUser"] for one in told} == {f"arn:aws:iam::{ACCOUNT}:root"}
    assert ssm.get_parameter(Name=f"{name}:1")["Parameter"]["Value"] == "a"


def test_what_is_there_is_not_created_again(ssm: Any, name: str) -> None:
    put(ssm, name, "mine")
    assert refusal(put, ssm=ssm, name=name, value="other") == ("ParameterAlreadyExists", 400)
    ssm.delete_parameter(Name=name)
    assert refusal(ssm.get_parameter, Name=name) == ("ParameterNotFound", 400)
    assert put(ssm, name, "other") == 1


def test_a_parameter_that_was_only_asked_about_is_in_no_list(ssm: Any, name: str) -> None:
    backend = ssm_backends[ACCOUNT][ssm.meta.region_name]
    for listed in (ssm.describe_parameters, lambda: ssm.get_parameters_by_path(Path="/test")):
        assert backend._parameters[name] == []  # as moto's own calls leave one
        assert name not in [one["Name"] for one in listed()["Parameters"]]


def test_the_oldest_version_goes_unless_it_has_a_label(ssm: Any, name: str) -> None:
    put(ssm, name, "0")
    for number in range(1, 100):
        put(ssm, name, str(number), Overwrite=True)
    ssm.label_parameter_version(Name=name, ParameterVersion=1, Labels=["kept"])
    said = refusal(put, ssm=ssm, name=name, value="more", Overwrite=True)
    assert said == ("ParameterMaxVersionLimitExceeded", 400)
    ssm.label_parameter_version(Name=name, ParameterVersion=2, Labels=["kept"])
    assert put(ssm, name, "more", Overwrite=True) == 101
    assert refusal(ssm.get_parameter, Name=f"{name}:1") == ("ParameterVersionNotFound", 400)
    assert ssm.get_parameter(Name=f"{name}:kept")["Parameter"]["Version"] == 2


def test_a_label_for_nothing_leaves_nothing_behind(ssm: Any, name: str) -> None:
    assert refusal(ssm.label_parameter_version, Name=name, Labels=["x"]) == ("ParameterNotFound", 400)
    assert refusal(ssm.get_parameter, Name=name) == ("ParameterNotFound", 400)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"Name": "a/b"}, "ValidationException", id="not-qualified"),
        pytest.param({"Name": "/a b"}, "ValidationException", id="name"),
        pytest.param({"Name": "/a" * 16}, "HierarchyLevelLimitExceededException", id="levels"),
        pytest.param({"Name": "/aws/mine/x"}, "AccessDeniedException", id="reserved"),
        pytest.param({"Value": "x" * 4097}, "ValidationException", id="long"),
        pytest.param({"Description": "x" * 1025}, "ValidationException", id="description"),
        pytest.param({"DataType": "aws:ec2:images"}, "ValidationException", id="data-type"),
        pytest.param({"Type": "SecureString", "DataType": IMAGE}, "ValidationException", id="secret-ami"),
        pytest.param(
            {"Tags": [{"Key": "a", "Value": "b"}], "Overwrite": True}, "ValidationException", id="t"
        ),
    ],
)
def test_what_parameter_store_refuses(ssm: Any, name: str, changes: Any, code: str) -> None:
    asked = {"Name": name, "Value": "x", "Type": "String", **changes}
    assert refusal(ssm.put_parameter, **asked) == (code, 400)


def test_no_parameter_changes_its_type_or_to_or_from_an_ami(ssm: Any, name: str) -> None:
    put(ssm, name, BASE)
    changed = {"Name": name, "Value": BASE, "Overwrite": True}
    assert refusal(ssm.put_parameter, Type="StringList", **changed)[0] == "HierarchyTypeMismatchException"
    assert refusal(ssm.put_parameter, DataType=IMAGE, **changed)[0] == "ValidationException"
    put(ssm, f"{name}-ami", BASE, DataType=IMAGE)
    changed["Name"] += "-ami"
    assert refusal(ssm.put_parameter, DataType="text", **changed)[0] == "ValidationException"


def test_parameters_are_found_by_what_they_hold(ssm: Any, name: str) -> None:
    put(ssm, f"{name}/ami", BASE, DataType=IMAGE)
    put(ssm, f"{name}/text", BASE)
    below = {"Key": "Path", "Option": "Recursive", "Values": [name]}
    for key, values, found in (
        ("DataType", [IMAGE], ["ami"]),
        ("DataType", ["text", IMAGE], ["ami", "text"]),
        ("Tier", ["Standard"], ["ami", "text"]),
        ("Tier", ["Advanced"], []),
    ):
        told = ssm.describe_parameters(ParameterFilters=[below, {"Key": key, "Values": values}])
        assert [one["Name"].rpartition("/")[2] for one in told["Parameters"]] == found
    wrong = [{"Key": "DataType", "Option": "BeginsWith", "Values": ["aws"]}]
    assert refusal(ssm.describe_parameters, ParameterFilters=wrong) == ("InvalidFilterOption", 400)


# --- AMIs --------------------------------------------------------------------------------------------


def test_an_ami_that_is_not_there_makes_no_version(ssm: Any, name: str) -> None:
    assert put(ssm, name, BASE, DataType=IMAGE) == 1
    for wrong in (GONE, "no ami", "ami-1"):
        assert put(ssm, name, wrong, DataType=IMAGE, Overwrite=True) == 2
    found = ssm.get_parameter(Name=name)["Parameter"]
    assert (found["Version"], found["Value"], found["DataType"]) == (1, BASE, IMAGE)
    assert put(ssm, name, OTHER, DataType=IMAGE, Overwrite=True) == 2
    assert ssm.get_parameter(Name=name)["Parameter"]["Value"] == OTHER
    assert refusal(put, ssm=ssm, name=name, value=BASE, DataType=IMAGE)[0] == "ParameterAlreadyExists"


def test_an_ami_of_one_region_is_none_in_another(served: Account, name: str) -> None:
    there = served.client("ssm", ELSEWHERE)
    assert put(there, name, BASE, DataType=IMAGE) == 1
    assert refusal(there.get_parameter, Name=name) == ("ParameterNotFound", 400)
    assert put(there, name, "text in every region") == 1


def test_an_event_tells_what_became_of_it(served: Account, ssm: Any, name: str) -> None:
    sqs, events, queue = served.client("sqs"), served.client("events"), new("queue")
    url = sqs.create_queue(QueueName=queue)["QueueUrl"]
    pattern = {"source": ["aws.ssm"], "detail": {"name": [name]}}
    events.put_rule(Name=queue, EventPattern=json.dumps(pattern))
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_targets(Rule=queue, Targets=[{"Id": "q", "Arn": arn}])
    put(ssm, name, BASE, DataType=IMAGE)
    put(ssm, name, GONE, DataType=IMAGE, Overwrite=True)
    told = [json.loads(one["Body"]) for one in received(sqs, url, 2)]
    assert {one["detail-type"] for one in told} == {"Parameter Store Change"}
    details = {one["detail"]["operation"]: one["detail"].get("exception") for one in told}
    assert details == {"Create": None, "Update": "Unable to Describe Resource"}
    events.remove_targets(Rule=queue, Ids=["q"])
    events.delete_rule(Name=queue)


def received(sqs: Any, url: str, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        more = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=20)
        assert more.get("Messages"), found
        found += more["Messages"]
    return found


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Validations that have begun, and end when they are called."""
    begun: list[Callable[[], None]] = []

    def begin(store: ParameterStore, asked: Any) -> None:
        begun.append(lambda: store._validated(asked))

    monkeypatch.setattr(ParameterStore, "_validate", begin)
    monkeypatch.setattr(ParameterStore, "_is_available", lambda store, image: image in (BASE, OTHER))
    return begun


def asked(store: ParameterStore, name: str, value: str, *, overwrite: bool = False) -> int:
    words: Any = (name, "", value, "String", None, None, overwrite, None, IMAGE)
    return int(store.put_parameter(*words).version)


def test_a_version_is_promised_before_it_is_there(name: str, late: list[Callable[[], None]]) -> None:
    store = ParameterStore(REGION, ACCOUNT)
    assert asked(store, name, BASE) == 1
    assert store.get_parameter(name) is None
    late.pop()()
    assert store.get_parameter(name).value == BASE
    assert asked(store, name, OTHER, overwrite=True) == 2
    assert asked(store, name, BASE, overwrite=True) == 3
    late.pop()()
    assert store.get_parameter(name).version == 3
    late.pop()()
    assert [one.version for one in store.get_parameter_history(name, None)[0]] == [1, 2, 3]


def test_of_two_that_create_one_ami_parameter_one_is_lost(name: str, late: list[Callable[[], None]]) -> None:
    store = ParameterStore(REGION, ACCOUNT)
    asked(store, name, BASE)
    asked(store, name, OTHER)
    for end in late:
        end()
    assert [one.value for one in store.get_parameter_history(name, None)[0]] == [BASE]
    with pytest.raises(SSMException, match="already exists"):
        asked(store, name, OTHER)


# --- launches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "image"), [("", OTHER), (":1", BASE), (":old", BASE), (":2", OTHER)])
def test_a_launch_by_a_parameter_a_version_or_a_label(
    account: Account, ssm: Any, name: str, suffix: str, image: str
) -> None:
    put(ssm, name, BASE, DataType=IMAGE)
    put(ssm, name, OTHER, DataType=IMAGE, Overwrite=True)
    ssm.label_parameter_version(Name=name, ParameterVersion=1, Labels=["old"])
    made = account.client("ec2").create_launch_template(
        LaunchTemplateName=new("template"), LaunchTemplateData={"ImageId": f"resolve:ssm:{name}{suffix}"}
    )["LaunchTemplate"]
    named = {"LaunchTemplateId": made["LaunchTemplateId"]}
    [instance] = account.launch(ImageId=None, LaunchTemplate=named)["Instances"]
    assert instance["ImageId"] == image


@pytest.mark.parametrize("suffix", ["", ":9", ":none"])
def test_a_launch_by_a_parameter_that_is_not_there(served: Account, name: str, suffix: str) -> None:
    if suffix:
        put(served.client("ssm"), name, BASE)
    assert refusal(served.launch, ImageId=f"resolve:ssm:{name}{suffix}") == ("InvalidParameterValue", 400)
