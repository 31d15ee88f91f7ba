"""A bake meets an account that shows late what was created: it takes "not found" for "not yet"."""

from __future__ import annotations

import pytest

from bake import creation
from bake.account.quotas import ended_lately
from bake.image import describe_image, mark, remove
from bake.undo import Undo
from tests.bake.one_run import OneRun

SEEDS = range(1, 6)


@pytest.fixture
def late(one_run: OneRun, seed: int, monkeypatch: pytest.MonkeyPatch) -> OneRun:
    """A run in the account of a seed."""
    monkeypatch.setattr(creation, "APPEARS_WITHIN", 30.0)
    one_run.cloud.strict(seed)
    return one_run


def nothing_is_left(run: OneRun) -> bool:
    run.cloud.strict(None)
    return run.left() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_launched_and_wired_goes_again(late: OneRun) -> None:
    with Undo() as undo:
        late.launch_with_reaper(undo)
        late.wire(undo)
    assert nothing_is_left(late)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_removed_at_once_is_removed(late: OneRun) -> None:
    """A launch that fails, or an interrupt: the removals meet what nobody knows yet."""
    with pytest.raises(ZeroDivisionError), Undo() as undo:
        late.wire(undo)
        late.launch(undo)
        raise ZeroDivisionError
    assert nothing_is_left(late)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_image_and_its_snapshot_can_be_marked_and_removed_at_once(late: OneRun) -> None:
    image = late.kept_image()
    mark(late.aws, image, "good")
    assert describe_image(late.aws, image.id) is not None
    remove(late.aws, image.id, run=late.run.id)
    assert nothing_is_left(late)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lost_answer_costs_nothing_either(late: OneRun) -> None:
    """What was created without an answer is found by its name or token, although lists leave it out."""
    for action in ("RunInstances", "CreateSecurityGroup", "CreateQueue", "CreateEventBus"):
        late.fault(action, "lost")
    with Undo() as undo:
        late.launch(undo)
        late.wire(undo)
    assert nothing_is_left(late)


def test_a_builder_waits_for_the_quota_of_what_has_just_ended(one_run: OneRun) -> None:
    with Undo() as undo:
        one_run.launch(undo)
    one_run.fault("RunInstances", "refuse", code="VcpuLimitExceeded", times=2)
    one_run.run.id = f"{one_run.run.id}2"
    with Undo() as undo:
        one_run.launch(undo)
    [planted] = one_run.cloud.faults.listed()
    assert planted.struck == 2


def test_only_what_shares_a_quota_leaves_it(one_run: OneRun) -> None:
    with Undo() as undo:
        one_run.launch(undo)
    assert ended_lately(one_run.witness, "g5.xlarge")
    assert not ended_lately(one_run.witness, "trn1.2xlarge")


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        pytest.param(
            "CreateImage", "Invalid value for instanceId. Instance is not in state 'running'", id="stop"
        ),
        pytest.param("RunInstances", "Invalid IAM Instance Profile name", id="profile"),
    ],
)
def test_what_is_said_in_words_is_waited_for(one_run: OneRun, operation: str, message: str) -> None:
    one_run.fault(operation, "refuse", code="InvalidParameterValue", message=message, times=2)
    with Undo() as undo:
        one_run.image(undo)
    assert one_run.cloud.faults.struck() == 2


def test_another_invalid_parameter_is_refused_at_once(one_run: OneRun) -> None:
    one_run.fault("RunInstances", "refuse", code="InvalidParameterValue", message="no", times=None)
    with pytest.raises(Exception, match="InvalidParameterValue"), Undo() as undo:
        one_run.launch(undo)
    assert one_run.cloud.faults.struck() == 1
