"""What the steps of a bake check is kept, however the step ends."""

from __future__ import annotations

import io
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from bake.checks.baseline import RECORDED
from bake.checks.case_list import BOOT_CHECK, CASES, CONNECT, STEPS, SURVEY, baseline_case
from bake.checks.cases import Cases, recording
from bake.checks.result import LONGEST, Check, Waiver
from bake.errors import BakeError, ConnectionLost, Interrupted
from bake.progress import PlainScreen, Progress
from bake.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run("1", tmp_path, Progress(PlainScreen(io.StringIO())))


def kept(run: Run, moment: str, name: str) -> dict[str, Check]:
    """The results that a recording has left, by id."""
    told: list[Any] = json.loads((run.directory / f"facts/checks-{moment}-{name}.json").read_text())
    return {one["about"]["id"]: Check.model_validate(one) for one in told}


def test_every_case_is_of_one_step_and_whole() -> None:
    assert set(CASES) == {name for _, _, ids in STEPS for name in ids}
    for name, about in CASES.items():
        assert name.partition(".")[0] == about.group
        assert about.title and about.rationale and about.remedy and about.requirements
    assert {baseline_case(kind) for kind in RECORDED} <= set(SURVEY)


def test_a_case_that_ends_has_passed_with_what_it_saw(run: Run) -> None:
    with recording(run, "base", "connect", ["system.os"]) as cases, cases.case("system.os") as case:
        case("ID=ubuntu", ["ID=ubuntu"], "/etc/os-release")
    (check,) = kept(run, "base", "connect").values()
    assert (check.outcome, check.reason, check.moment) == ("passed", "", "base")
    (evidence,) = check.evidence
    assert (evidence.expected, evidence.found, evidence.by) == ("ID=ubuntu", "ID=ubuntu", "/etc/os-release")


ENDS = [
    pytest.param(BakeError("no sudo\nat all"), "failed", "no sudo\nat all", id="a-verdict"),
    pytest.param(ConnectionLost("it broke"), "not run", "it broke", id="a-broken-connection"),
    pytest.param(Interrupted("SIGTERM"), "not run", "interrupted (SIGTERM)", id="an-interrupt"),
    pytest.param(KeyError("detail"), "not run", "KeyError: 'detail'", id="a-bug"),
]


@pytest.mark.parametrize(("error", "outcome", "reason"), ENDS)
def test_an_error_ends_the_case_and_leaves_the_rest_not_run(
    run: Run, error: BaseException, outcome: str, reason: str
) -> None:
    with pytest.raises(type(error)) as caught, recording(run, "base", "connect", CONNECT) as cases:
        with cases.case("security.host_key") as case:
            case("a key", "a key", "ssh")
        with cases.case("users.becomes_root"):
            raise error
    assert caught.value is error
    found = kept(run, "base", "connect")
    assert set(found) == set(CONNECT)
    assert (found["users.becomes_root"].outcome, found["users.becomes_root"].reason) == (outcome, reason)
    assert found["security.host_key"].outcome == "passed"
    assert found["system.cloud_init"].outcome == "not run"
    assert reason in found["system.cloud_init"].reason


def test_a_case_that_does_not_hold_fails_and_the_step_goes_on(run: Run) -> None:
    with recording(run, "sealed", "image", ["security.image_imdsv2"]) as cases:
        with cases.case("security.image_imdsv2") as case:
            case.holds(False, "v2.0", "optional", "DescribeImages")
        assert [one.id for one in cases.failed] == ["security.image_imdsv2"]
    (check,) = kept(run, "sealed", "image").values()
    assert (check.outcome, check.reason) == ("failed", "expected v2.0, found optional")


def test_what_does_not_apply_and_what_nobody_told_say_why(run: Run) -> None:
    with recording(run, "base", "survey", []) as cases:
        with cases.case("disk.boot_room") as case:
            case.does_not_apply = "no driver is built"
        with cases.case("system.image") as case:
            case.untold = "EC2 did not tell"
    found = kept(run, "base", "survey")
    assert (found["disk.boot_room"].outcome, found["disk.boot_room"].reason) == (
        "not applicable",
        "no driver is built",
    )
    assert (found["system.image"].outcome, found["system.image"].red) == ("not run", True)


def test_a_waiver_of_the_profile_counts_until_its_day(run: Run) -> None:
    waiver = Waiver(
        check="performance.memory", reason="r", approved_by="a", risk="low", until=date(2026, 12, 1)
    )
    for day, outcome in ((date(2026, 12, 1), "waived"), (date(2026, 12, 2), "failed")):
        recorded = recording(run, "booted", "boot-check", [], [waiver], lambda day=day: day)  # type: ignore[misc]
        with recorded as cases, cases.case("performance.memory") as case:
            case.holds(False, "1 byte", "2 bytes", "VmHWM")
        assert kept(run, "booted", "boot-check")["performance.memory"].outcome == outcome


def test_secrets_and_endless_output_stay_out(run: Run) -> None:
    cases = Cases("booted", BOOT_CHECK)
    with cases.case("worker.ready") as case:
        case("x", "y" * 100_000, "z")
    (found,) = [one for one in cases.results() if one.id == "worker.ready"]
    assert len(found.evidence[0].found) < LONGEST + 100


def test_a_full_disk_fails_no_step(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with recording(run, "base", "connect", ["system.os"]) as cases, cases.case("system.os"):
        pass
    assert "could not be written: No space left on device" in run.progress.notes[-1]
