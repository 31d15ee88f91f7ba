"""Undo: in reverse, to the end, and never hiding the cause."""

from __future__ import annotations

import pytest

from bake.errors import BakeError, CleanupError
from bake.undo import Undo


def test_removals_run_in_reverse() -> None:
    order: list[str] = []
    with Undo() as undo:
        undo.add("key", lambda: order.append("key"), by_hand="rm key")
        undo.add("instance", lambda: order.append("instance"), by_hand="rm instance")
    assert order == ["instance", "key"]


def test_what_is_kept_is_not_removed() -> None:
    removed: list[str] = []
    with Undo() as undo:
        undo.add("image", lambda: removed.append("image"), by_hand="rm")
        undo.keep()
    assert not removed


def test_now_removes_once() -> None:
    removed: list[str] = []
    with Undo() as undo:
        undo.add("queue", lambda: removed.append("queue"), by_hand="rm")
        undo.now()
        assert removed == ["queue"]
    assert removed == ["queue"]


def refuse() -> None:
    raise RuntimeError("access denied")


def test_a_leak_is_named_with_the_command_that_removes_it() -> None:
    removed: list[str] = []
    with (
        pytest.raises(
            CleanupError, match=r"queue q could not be removed \(access denied\); remove it with: aws sqs"
        ),
        Undo() as undo,
    ):
        undo.add("key", lambda: removed.append("key"), by_hand="rm key")
        undo.add("queue q", refuse, by_hand="aws sqs delete-queue")
    assert removed == ["key"]


def test_a_leak_never_hides_the_cause() -> None:
    with pytest.raises(BakeError, match="the real cause") as caught:  # noqa: SIM117
        with Undo() as undo:
            undo.add("queue q", refuse, by_hand="aws sqs delete-queue")
            raise BakeError("the real cause")
    assert "aws sqs delete-queue" in caught.value.__notes__[0]
