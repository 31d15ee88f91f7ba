"""A bake meets an account that shows late what was created: it takes "not found" for "not yet"."""

from __future__ import annotations

import pytest

from bake import creation
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
