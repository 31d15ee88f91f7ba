"""Every way a bake can end: its exit code, its messages, and which of them comes last."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from botocore.exceptions import ClientError, NoCredentialsError, ProfileNotFound

from bake.cli import report
from bake.commands.bake import running
from bake.errors import (
    BakeError,
    Interrupted,
    NotAgreed,
    NotVerified,
    RemoteCommandError,
    TimedOut,
    UsageError,
)
from bake.planning.plan import Plan
from bake.progress import PlainScreen, Progress
from bake.request import BakeRequest, Proposal
from bake.run import new
from bake.steps.judge import Unproven
from bake.steps.wait_for_worker import ImageIsBad

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud

LEAK = "instance i-1 could not be removed (ExpiredToken); remove it with: aws ec2 terminate-instances"
ENDINGS = [
    pytest.param(None, 0, id="done"),
    pytest.param(KeyError("detail"), 1, id="our-bug"),
    pytest.param(UsageError("wrong"), 2, id="a-mistake"),
    pytest.param(ProfileNotFound(profile="nobody"), 2, id="no-such-AWS-profile"),
    pytest.param(NoCredentialsError(), 2, id="no-credentials"),
    pytest.param(NotAgreed("not agreed"), 3, id="not-agreed"),
    pytest.param(NotVerified("2 of 73 checks"), 4, id="not-verified"),
    pytest.param(ImageIsBad("no worker"), 4, id="a-bad-image"),
    pytest.param(BakeError("no capacity"), 5, id="failed"),
    pytest.param(TimedOut("not there"), 5, id="timed-out"),
    pytest.param(RemoteCommandError("apt ended with 100"), 5, id="a-command"),
    pytest.param(Unproven("ami-1 is unproven"), 5, id="unproven"),
    pytest.param(
        ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": "no"}}, "RunInstances"),
        5,
        id="AWS",
    ),
    pytest.param(Interrupted("SIGINT"), 130, id="Ctrl-C"),
    pytest.param(Interrupted("SIGTERM"), 130, id="SIGTERM"),
]


@pytest.fixture
def proposal(plan_cloud: PlanCloud, one_plan: Plan, tmp_path: Path) -> Proposal:
    request = BakeRequest("g6e-ubuntu", tmp_path, tmp_path / ".env")
    return Proposal(request, one_plan, plan_cloud.aws(), one_plan.guarded, None, [], None, None)


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "runs"


def end(proposal: Proposal, runs: Path, error: BaseException | None, *leaks: str) -> int:
    """Run a bake that ends so; the exit code of the command."""
    try:
        with running(proposal, new(runs, Progress(PlainScreen(io.StringIO())))) as run:
            run.leaks.extend(leaks)
            if error is not None:
                raise error
    except BaseException as ended:
        return report(ended)
    return 0


@pytest.mark.parametrize(("error", "code"), ENDINGS)
def test_each_ending_has_its_exit_code(
    proposal: Proposal, runs: Path, error: BaseException | None, code: int
) -> None:
    assert end(proposal, runs, error) == code


@pytest.mark.parametrize(("error", "code"), ENDINGS)
def test_leftover_resources_are_named_last_and_decide_the_code(
    proposal: Proposal,
    runs: Path,
    capsys: pytest.CaptureFixture[str],
    error: BaseException | None,
    code: int,
) -> None:
    assert end(proposal, runs, error, LEAK) == 6
    said = capsys.readouterr().err
    assert said.endswith(f"left behind: {LEAK}\n")
    assert "has been removed" not in said or code == 130


def test_a_mistake_on_the_command_line_ends_with_2() -> None:
    assert report(click.UsageError("no such option")) == 2


def test_an_interrupted_bake_that_left_something_does_not_say_otherwise(
    proposal: Proposal, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    end(proposal, runs, Interrupted("SIGINT"), LEAK)
    said = capsys.readouterr().err
    assert said.startswith("interrupted\n")
    assert "has been removed" not in said


def test_the_traceback_of_a_bug_is_in_the_run_directory(
    proposal: Proposal, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end(proposal, runs, KeyError("detail")) == 1
    said = capsys.readouterr().err
    (file,) = runs.glob("*/logs/traceback.log")
    assert "this is a bug in bake" in said
    assert str(file) in said
    assert "Traceback" not in said
    assert "KeyError: 'detail'" in file.read_text()


def test_a_bug_whose_traceback_cannot_be_kept_is_shown_whole(
    proposal: Proposal, runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert end(proposal, runs, KeyError("detail")) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_of_the_controller_is_no_bug(
    proposal: Proposal, runs: Path, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    assert end(proposal, runs, OSError(code, os.strerror(code), "/tmp/x/y")) == 5
    said = capsys.readouterr().err
    assert "no space left on the disk of this machine, which runs bake: /tmp/x/y" in said
    assert "TMPDIR" in said
    assert "bug in bake" not in said
    assert report(OSError(code, os.strerror(code))) == 5  # of a command that is no bake


def last_report(runs: Path) -> dict[str, Any]:
    """The report that a run has left."""
    (file,) = runs.glob("*/report.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


@pytest.mark.parametrize(("error", "code"), ENDINGS)
def test_however_it_ends_there_is_a_report(
    proposal: Proposal, runs: Path, error: BaseException | None, code: int
) -> None:
    end(proposal, runs, error)
    found = last_report(runs)
    assert found["verdict"]["exit_code"] == code
    expected = {0: "good", 130: "interrupted"}.get(code, "failed")
    assert found["verdict"]["state"] == expected
    assert found["run"]["account"] == "123456789012"
    assert {"report.html", "report.md", "junit.xml", "SHA256SUMS"} <= {
        file.name for file in next(runs.iterdir()).iterdir()
    }


def test_the_report_names_what_was_left_behind_and_what_ended_the_run(proposal: Proposal, runs: Path) -> None:
    end(proposal, runs, NotVerified("2 of 73 checks"), LEAK)
    verdict = last_report(runs)["verdict"]
    assert (verdict["exit_code"], verdict["left_behind"]) == (6, [LEAK])
    assert verdict["error"] == "2 of 73 checks"


def test_a_report_that_can_not_be_made_changes_no_ending(
    proposal: Proposal, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise RecursionError("x")

    monkeypatch.setattr("bake.report.writing.collect", broken)
    assert end(proposal, runs, None) == 0
    assert end(proposal, runs, NotVerified("2 of 73 checks")) == 4
    assert "2 of 73 checks" in capsys.readouterr().err


def test_the_last_that_is_told_is_verdict_and_report(proposal: Proposal, runs: Path) -> None:
    stream = io.StringIO()
    with running(proposal, new(runs, Progress(PlainScreen(stream)))):
        pass
    *_, verdict, checks, place = stream.getvalue().splitlines()
    assert verdict.startswith("GOOD (AWS): ")
    assert checks.startswith("Checks  ")
    assert place == f"Report         {next(runs.iterdir()) / 'report.html'}"
