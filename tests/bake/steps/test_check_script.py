"""What the user sees when a provisioning script ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from bake.errors import RemoteCommandError
from bake.progress import Nothing, Progress
from bake.run import Run
from bake.ssh import CommandResult
from bake.steps.check_script import check_script


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run("x", tmp_path, Progress(Nothing()))


def ended(code: int, out: str = "", err: str = "") -> CommandResult:
    return CommandResult(("bash", "x.sh"), code, out, err, 1.0)


def test_notes_are_passed_on_and_nothing_else(run: Run) -> None:
    check_script(ended(0, "installing x\nnote: the driver is 1\nnotes: none\n"), run)
    assert run.progress.notes == ["the driver is 1"]


def test_the_last_reason_comes_first_and_the_remedy_is_the_hint(run: Run) -> None:
    said = "a\n  what to do: b\nE: x\nthe disk is full\n  what to do: make room\n"
    with pytest.raises(RemoteCommandError) as caught:
        check_script(ended(1, err=said), run)
    assert caught.value.message.splitlines()[0] == "the disk is full"
    assert "command failed with exit code 1: bash x.sh" in caught.value.message
    assert caught.value.hint == "make room"


@pytest.mark.parametrize("said", ["", "broken\n", "  what to do: nothing was said before\n"])
def test_without_a_reason_the_whole_is_shown(run: Run, said: str) -> None:
    with pytest.raises(RemoteCommandError, match=r"^command failed with exit code 7: bash x\.sh") as caught:
        check_script(ended(7, "note: unheard\n", said), run)
    assert caught.value.hint is None
    assert run.progress.notes == []
