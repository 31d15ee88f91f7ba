"""How far EBS has filled the boot check's volume: shown where EC2 tells it, and never in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bake.ssh import Login
from bake.steps import volume_initialization as asking
from bake.steps.launch import Instance
from bake.steps.volume_initialization import Initialization, Watched, volume_initialization
from bake.systems import SYSTEMS

from ..answers import answered

if TYPE_CHECKING:
    from tests.bake.one_run import OneRun

ASKED = "DescribeVolumeStatus"


def status(**details: Any) -> dict[str, Any]:
    return {"VolumeStatuses": [{"VolumeId": "vol-1", "InitializationStatusDetails": details}]}


@pytest.fixture
def instance() -> Instance:
    return Instance("i-0123456789abcdef0", "vol-1", Login("", "ubuntu", "", ""), SYSTEMS["ubuntu"])


def test_what_ec2_tells_of_a_rate(one_run: OneRun, instance: Instance) -> None:
    told = status(InitializationType="provisioned-rate", Progress=43, EstimatedTimeToCompleteInSeconds=61)
    with answered(one_run.aws.ec2, ASKED, told) as sent:
        found = volume_initialization(one_run.aws, instance)
    assert sent[0]["VolumeId.1"] == instance.root_volume == found.volume
    assert found == Initialization(instance.root_volume, "provisioned-rate", 43, 61)
    assert found.text == "volume 43 % initialised, 61 s left"
    assert found.as_dict()["percent"] == 43


def test_a_volume_without_a_rate_has_no_time_left(one_run: OneRun, instance: Instance) -> None:
    with answered(one_run.aws.ec2, ASKED, status(InitializationType="default", Progress=7)):
        assert volume_initialization(one_run.aws, instance).text == "volume 7 % initialised"


@pytest.mark.parametrize(
    "told", [{"VolumeStatuses": []}, status(), {"VolumeStatuses": [{"VolumeId": "vol-1"}]}]
)
def test_an_answer_without_progress_is_not_shown(
    one_run: OneRun, instance: Instance, told: dict[str, Any]
) -> None:
    with answered(one_run.aws.ec2, ASKED, told):
        found = volume_initialization(one_run.aws, instance)
    assert (found.text, found.percent, found.why) == ("", None, "EC2 tells no progress")


def test_a_right_that_is_missing_fails_nothing_and_is_asked_for_once(
    one_run: OneRun, instance: Instance
) -> None:
    one_run.fault(ASKED, "refuse", code="UnauthorizedOperation", times=None)
    watched = Watched(one_run.aws, instance)
    assert watched.text() == ""
    assert watched.found.why == "AWS answers UnauthorizedOperation"
    before = one_run.aws.tally.api_calls
    assert [watched.text() for _ in range(3)] == ["", "", ""]
    assert one_run.aws.tally.api_calls == before


def test_ec2_is_not_asked_at_each_look(
    one_run: OneRun, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(one_run.aws, instance)
    with answered(one_run.aws.ec2, ASKED, status(Progress=50)) as sent:
        assert {watched.text() for _ in range(5)} == {"volume 50 % initialised"}
        assert len(sent) == 1
        monkeypatch.setattr(asking, "PAUSE", 0.0)
        assert watched.text() == "volume 50 % initialised"
        assert len(sent) == 2
    with answered(one_run.aws.ec2, ASKED, status(Progress=100)) as sent:
        assert {watched.text() for _ in range(3)} == {"volume 100 % initialised"}
        assert len(sent) == 1  # a full volume stays full
