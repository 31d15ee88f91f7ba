"""Undo removes everything, in parallel, whatever fails, and never hides the cause."""

from __future__ import annotations

import threading

import pytest

from bake.errors import BakeError, LeftBehind
from bake.undo import Undo, naming


def refuse() -> None:
    raise RuntimeError("access denied")


def test_all_removals_are_under_way_before_one_has_ended() -> None:
    """A CI system kills ten seconds after its first signal, and an instance takes minutes to end."""
    both = threading.Barrier(2, timeout=60)
    with Undo() as undo:
        undo.add("key", both.wait, by_hand="rm key")
        undo.add("instance", both.wait, by_hand="rm instance")


def test_what_is_forgotten_is_not_removed() -> None:
    removed: list[str] = []
    with Undo() as undo:
        image = undo.add("image", lambda: removed.append("image"), by_hand="rm")
        undo.add("key", lambda: removed.append("key"), by_hand="rm")
        undo.forget(image)
        undo.forget(image)
    assert removed == ["key"]


def test_now_removes_once() -> None:
    removed: list[str] = []
    with Undo() as undo:
        undo.add("queue", lambda: removed.append("queue"), by_hand="rm")
        undo.now()
        assert removed == ["queue"]
    assert removed == ["queue"]


def test_a_group_can_be_left_for_later() -> None:
    removed: list[str] = []
    with Undo() as undo:
        with undo.group("boot check"):
            undo.add("queue", lambda: removed.append("queue"), by_hand="rm")
        undo.add("builder", lambda: removed.append("builder"), by_hand="rm")
        undo.now(but="boot check")
        assert removed == ["builder"]
    assert removed == ["builder", "queue"]


def test_a_leak_is_named_with_the_command_that_removes_it() -> None:
    removed: list[str] = []
    with (
        pytest.raises(
            LeftBehind, match=r"queue q could not be removed \(access denied\); remove it with: aws sqs"
        ),
        Undo() as undo,
    ):
        undo.add("key", lambda: removed.append("key"), by_hand="rm key")
        undo.add("queue q", refuse, by_hand=lambda: "aws sqs delete-queue")
    assert removed == ["key"]


def test_a_leak_never_hides_the_cause() -> None:
    with pytest.raises(LeftBehind, match="aws sqs delete-queue") as caught:  # noqa: SIM117
        with Undo() as undo:
            undo.add("queue q", refuse, by_hand="aws sqs delete-queue")
            raise BakeError("the real cause")
    assert str(caught.value.__cause__) == "the real cause"
    assert caught.value.exit_code == 6


def test_a_leak_in_the_middle_ends_nothing() -> None:
    """A builder that stays costs money; the image that it made is worth more."""
    leaks: list[str] = []
    with pytest.raises(LeftBehind, match="rm builder"), naming(leaks):
        with Undo(leaks=leaks) as undo:
            undo.add("builder", refuse, by_hand="rm builder")
            undo.now()
            made = "image"
        assert made == "image"


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), BrokenPipeError(), ValueError("I/O on closed file")], ids=repr
)
def test_a_report_that_fails_keeps_nothing_from_being_removed(error: Exception) -> None:
    def say(text: str) -> None:
        raise error

    removed: list[str] = []
    with Undo(say) as undo:
        undo.add("queue", lambda: removed.append("queue"), by_hand="rm")
        undo.add("bucket", lambda: removed.append("bucket"), by_hand="rm")
    assert sorted(removed) == ["bucket", "queue"]


def test_without_threads_everything_is_removed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    order: list[str] = []
    with Undo() as undo:
        undo.add("key", lambda: order.append("key"), by_hand="rm")
        undo.add("instance", lambda: order.append("instance"), by_hand="rm")
    assert order == ["instance", "key"]
