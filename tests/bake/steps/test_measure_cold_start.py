"""The start of a booted image is measured, held against the profile's limit, and told to later plans."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bake import hydration
from bake.checks.case_list import BOOT_CHECK
from bake.checks.cases import Cases
from bake.checks.cold_start import ColdStart
from bake.checks.result import Check, Waiver
from bake.checks.waivers import waive
from bake.creation import tag_of
from bake.errors import NotVerified
from bake.image import describe_image
from bake.planning.floor import bandwidth
from bake.progress import PlainScreen, Progress
from bake.report.cold_start import table
from bake.run import Run
from bake.ssh import CommandResult
from bake.steps.boot_check import raise_if_wrong
from bake.steps.launch import Instance
from bake.steps.measure_cold_start import CASE, FACTS, judge_cold_start, measure_cold_start, show_cold_start
from bake.steps.record_image import record_image
from bake.steps.tag_hydration import measured_of
from bake.steps.volume_initialization import Initialization
from tests.checks.test_start_stages import GB, WARM, told

if TYPE_CHECKING:
    from tests.bake.one_run import OneRun


class Machine:
    """A session with a machine whose probe prints this."""

    def __init__(self, stdout: str, exit_code: int = 0) -> None:
        self._stdout, self._exit_code = stdout, exit_code

    def run(self, *argv: str, **_: Any) -> CommandResult:
        return CommandResult(argv, self._exit_code, self._stdout, "", 0.1)


Measure = Callable[..., ColdStart]


@pytest.fixture
def measure(one_run: OneRun) -> Measure:
    """Measures a machine that answers so; `limit` is the profile's, `ran` since when it has been running."""

    def measure(stdout: str | None = None, limit: int | None = None, ran: float | None = 75.0) -> ColdStart:
        cold_start = one_run.plan.profile.cold_start.model_copy(update={"max_seconds": limit})
        plan = replace(
            one_run.plan, profile=one_run.plan.profile.model_copy(update={"cold_start": cold_start})
        )
        login: Any = None
        seen = None if ran is None else time.monotonic() - ran
        instance = Instance("i-1", "vol-1", login, plan.system, "boot-check", seen)
        session: Any = Machine(told().model_dump_json() if stdout is None else stdout)
        return measure_cold_start(session, instance, plan.launch.worker_types[0].name, 1.5, plan, one_run.run)

    return measure


def judged(found: ColdStart) -> Check:
    cases = Cases("booted", (CASE,))
    judge_cold_start(found, cases)
    [check] = cases.results()
    return check


def test_a_boot_check_has_it_among_its_cases() -> None:
    assert CASE in BOOT_CHECK


def test_what_ec2_saw_and_what_the_machine_tells_become_one_line_of_time(
    measure: Measure, one_run: OneRun
) -> None:
    """The probe was asked 70 s after the kernel began; EC2 had said "running" 75 s before."""
    found = measure()
    kernel = found.stage("kernel")
    assert kernel is not None and kernel.seconds == pytest.approx(8.0, abs=2)
    assert found.seconds == pytest.approx(59.0, abs=2)
    kept = json.loads((one_run.run.directory / FACTS).read_text())
    assert ColdStart.model_validate(kept) == found
    assert (found.volume, found.max_seconds) == ("gp3", None)


def test_without_a_limit_it_is_measured_and_passes(measure: Measure) -> None:
    check = judged(measure())
    assert check.outcome == "passed"
    assert check.evidence[0].expected == "measured, no limit is set"
    assert "; most of it was load, 20.0 s" in check.evidence[0].found


def test_slower_than_the_limit_says_by_how_much_and_where(measure: Measure) -> None:
    """It has drawn: the error is the one after which an image is kept as unproven."""
    check = judged(measure(limit=40))
    assert check.outcome == "failed"
    wanted = (
        "cold_start.max_seconds is 40",
        "s too late",
        "most of it was load, 20.0 s",
        "another boot check",
    )
    assert all(part in check.reason for part in wanted), check.reason
    with pytest.raises(NotVerified, match=rf"{CASE}: .*the first image came [0-9.]+ s after") as caught:
        raise_if_wrong([check])
    assert caught.value.exit_code == 4
    assert judged(measure(limit=100)).outcome == "passed"


def test_a_waiver_may_accept_a_slow_start(measure: Measure, one_run: OneRun) -> None:
    today = one_run.aws.now().date()
    waiver = Waiver(check=CASE, reason="a slow zone", approved_by="me", risk="none", until=today)
    [check] = waive([judged(measure(limit=40))], [waiver], today)
    assert check.outcome == "waived"
    raise_if_wrong([check])


@pytest.mark.parametrize(
    "stdout",
    [
        pytest.param("", id="nothing"),
        pytest.param("Killed", id="words"),
        pytest.param('{"now": "soon"}', id="another-type"),
        pytest.param('{"now": 70.0}', id="no-systemd"),
    ],
)
def test_a_machine_that_tells_nothing_is_no_bad_image(measure: Measure, stdout: str) -> None:
    """Only where there is a limit does nobody know that it was kept."""
    found = measure(stdout)
    check = judged(found)
    assert (check.outcome, found.seconds) == ("not applicable", None)
    check = judged(measure(stdout, limit=100))
    assert check.outcome == "failed" and "could not be measured" in check.reason


def test_a_garbled_report_of_the_warm_up_leaves_the_rest(measure: Measure) -> None:
    found = measure(told(warm="{", starts={"start.json": ""}).model_dump_json())
    assert judged(found).outcome == "passed"
    assert found.seconds is not None


def test_an_instance_that_nobody_saw_running_is_measured_from_its_kernel_on(measure: Measure) -> None:
    assert measure(ran=None).seconds == 54.0


def test_the_report_is_printed(measure: Measure, tmp_path: Path) -> None:
    screen = io.StringIO()
    run = Run("1", tmp_path, Progress(PlainScreen(screen)))
    garbled = json.dumps(WARM | {"recorded": "\x1b[2Jcleared", "state": "done"})
    show_cold_start(measure(told(warm=garbled).model_dump_json()), run)
    shown = screen.getvalue()
    assert "From the running instance to the first image it took" in shown
    assert "warm (beside)" in shown and "first draw" in shown
    assert "\x1b" not in shown and r"\x1b[2Jcleared" in shown


def test_the_floor_is_the_lowest_of_what_is_known(one_run: OneRun) -> None:
    plan, kind = one_run.plan, one_run.plan.launch.worker_types[0]
    lazy = replace(plan.hydration.lazy, best=90.0)
    hydration = replace(plan.hydration, lazy=lazy)
    found = bandwidth(plan.profile, hydration, kind)
    assert (found.mb_per_s, found.limit) == (90.0, "first reads of a new volume, as published")
    known = replace(hydration, lazy=replace(lazy, image="ami-1"))
    assert bandwidth(plan.profile, known, kind).limit.endswith("measured before")
    fast = plan.profile.cold_start.model_copy(update={"volume_initialization_rate": 300})
    profile = plan.profile.model_copy(update={"cold_start": fast})
    found = bandwidth(profile, hydration, kind)
    assert (found.limit, round(found.mb_per_s)) == ("the volume's throughput (gp3)", 131)
    slow = replace(kind, ebs_maximum=50.0, ebs_baseline=50.0)
    assert bandwidth(profile, hydration, slow).limit == f"{kind.name}'s EBS limit"
    assert bandwidth(profile, hydration, None).mb_per_s == found.mb_per_s


def test_what_ec2_tells_of_the_volume_is_in_the_report(one_run: OneRun) -> None:
    plan, login, session = one_run.plan, None, Machine(told().model_dump_json())
    instance = Instance("i-1", "vol-1", login, plan.system, "boot-check")  # type: ignore[arg-type]
    filled = Initialization("vol-1", "provisioned-rate", 43, 61)
    found = measure_cold_start(session, instance, None, 1.5, plan, one_run.run, filled)  # type: ignore[arg-type]
    assert (found.initialization, found.initialized_percent) == ("provisioned-rate", 43)
    assert "Volume: EBS had filled 43 % of it (provisioned-rate) by the first image" in table(found)
    silent = Initialization("vol-1", why="AWS answers UnauthorizedOperation")
    found = measure_cold_start(session, instance, None, 1.5, plan, one_run.run, silent)  # type: ignore[arg-type]
    assert "Volume:" not in table(found)


def test_what_was_measured_is_a_tag_of_the_kept_image(measure: Measure, one_run: OneRun) -> None:
    image = one_run.kept_image()
    found = measure()
    record_image(one_run.aws, one_run.run, image, "unproven")
    facts = describe_image(one_run.witness, image.id)
    assert facts is not None
    tagged = hydration.parse(tag_of(facts.get("Tags"), hydration.TAG))
    assert tagged is not None
    assert (tagged.mb_per_s, tagged.bytes, tagged.libraries) == (75.0, 4 * GB, GB)
    assert (tagged.imports, tagged.first_draw, tagged.volume) == (10.0, 2.0, "gp3")
    wanted = measured_of(found)
    assert wanted is not None and tagged.boot == pytest.approx(wanted.boot, abs=0.1)


def test_a_start_that_read_nothing_is_no_measure(measure: Measure, one_run: OneRun) -> None:
    image = one_run.kept_image()
    assert measured_of(measure(told(warm=None, starts={}).model_dump_json())) is None
    one_run.fault("CreateTags", "refuse", code="UnauthorizedOperation", times=None)
    record_image(one_run.aws, one_run.run, image, "good")
    assert not [note for note in one_run.run.progress.notes if hydration.TAG in note]


def test_a_tag_that_cannot_be_written_is_told_and_fails_nothing(measure: Measure, one_run: OneRun) -> None:
    image = one_run.kept_image()
    measure()
    one_run.fault("CreateTags", "refuse", code="UnauthorizedOperation", times=None)
    record_image(one_run.aws, one_run.run, image, "good")
    assert any(hydration.TAG in note for note in one_run.run.progress.notes)
