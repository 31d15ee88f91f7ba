"""The report of a run, made of its directory: of whole runs, failed, cut, torn and hostile ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bake.checks.case_list import BOOT_CHECK, CONNECT
from bake.errors import UsageError
from bake.report.collect import collect
from tests.report import samples
from tests.report.run_folders import (
    AMI,
    BEGUN,
    IDENTITY,
    IMAGE_FACTS,
    NAME,
    PLAN,
    Folder,
    lines,
    results,
    step,
    whole,
)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / NAME)


def test_a_whole_run_is_told_whole(folder: Folder) -> None:
    report = whole(folder).collect()
    assert (report.venue.name, report.venue.differences) == ("REHEARSAL", ("no GPU",))
    assert (report.verdict.state, report.verdict.exit_code) == ("good", 0)
    assert report.verdict.sentence == f"{AMI} is good: it booted and drew an image"
    assert report.run.operator == "arn:aws:iam::123456789012:role/bakery"
    assert (report.run.started, report.run.finished) == ("2026-11-29T03:07:03Z", "2026-11-29T03:40:00Z")
    assert report.image is not None and report.base is not None
    (volume,) = report.image.volumes
    assert (volume.size_gib, volume.encrypted, volume.kms_key) == (80, True, "arn:aws:kms:key")
    assert report.image.launch_permissions == ("210987654321",)
    (picture,) = report.pictures
    assert (picture.width, picture.seed, picture.seconds, picture.memory_bytes) == (256, 7, 1.5, 34)
    assert report.weights is not None
    assert (report.weights.bytes, report.weights.planned_bytes, report.weights.fetched) == (7, 33, True)
    assert report.weights.files[0].hash == f"sha256:{'ab' * 32}"
    assert report.trace is not None and report.trace.recorded == "start on cpu"
    assert [(one.name, one.bytes, one.files) for one in report.trace.stages] == [("libraries", 430, 9)]
    assert report.cost is not None and (report.cost.hours, report.cost.dollars) == (0.5, 1.0)
    assert [log.file for log in report.logs] == ["logs/seal.log"]
    assert [(note.text, note.warning) for note in report.notes] == [("/boot is tight", True)]
    assert [check.moment for check in report.checks] == sorted(
        (check.moment for check in report.checks), key=("base", "sealed", "booted").index
    )
    assert {check.outcome for check in report.checks} == {"passed"}


def test_the_timeline_has_the_builders_units_beside_the_steps(folder: Folder) -> None:
    plan, provision, prefetch = whole(folder).collect().timeline
    assert (plan.name, plan.began, plan.seconds, plan.waited) == ("plan", 0.1, 3.5, 0.5)
    assert (provision.lane, prefetch.lane) == ("bake", "builder")
    assert provision.began < prefetch.began < provision.began + provision.seconds


def failed(folder: Folder, *told: Any, outcome: str = "failed") -> Folder:
    """A bake that ended in its survey."""
    events = [
        {"event": "began", "at": 0.0, "time": "t"},
        *step("connect", 1, 1),
        *step("fit", 2, 1, "failed"),
    ]
    ended = {"event": "ended", "at": "2026-11-29T03:40:00Z", "outcome": outcome}
    folder.put(journal=lines(BEGUN, ended), events=lines(*events, *told), plan=PLAN)
    folder.put(facts__identity=IDENTITY, facts__checks_base_connect=results("base", CONNECT))
    return folder


def test_a_failed_run_says_what_was_not_run_and_why(folder: Folder) -> None:
    told = {
        "event": "failed",
        "at": 4,
        "message": "40 GiB are missing:\n  more",
        "hint": "choose",
        "exit_code": 2,
    }
    report = failed(folder, told).collect()
    assert report.verdict.state == "failed"
    assert report.verdict.sentence == "failed in step 'fit', so no AMI was made: 40 GiB are missing"
    assert (report.verdict.hint, report.verdict.exit_code) == ("choose", 2)
    assert report.image is None and report.pictures == ()
    outcomes = {check.id: check for check in report.checks if check.moment == "booted"}
    assert set(outcomes) > {*BOOT_CHECK, "security.only_ssh_listens"}
    assert len([check for check in report.checks if check.moment == "sealed"]) > 80
    assert outcomes["worker.ready"].outcome == "not run"
    assert "the run ended before: 40 GiB are missing" in outcomes["worker.ready"].reason
    assert [one.outcome for one in report.checks[: len(CONNECT)]] == ["passed"] * len(CONNECT)


def test_failed_checks_are_counted_in_the_verdict(folder: Folder) -> None:
    check = samples.check(outcome="failed", reason="found root").model_dump(mode="json")
    folder.put(facts__checks_sealed_verify=[check])
    report = failed(folder, {"event": "failed", "at": 4, "message": "1 of 80", "exit_code": 4}).collect()
    assert (
        report.verdict.sentence == f"1 of {len(CONNECT) + 1} checks failed in step 'fit', so no AMI was made"
    )


def test_an_interrupted_run_is_no_failure_and_names_what_it_left(folder: Folder) -> None:
    left = "instance i-1; remove it with: aws ec2 terminate-instances"
    told = {
        "event": "failed",
        "at": 4,
        "message": left,
        "left_behind": [left],
        "cause": "SIGTERM",
        "exit_code": 6,
    }
    report = failed(folder, told, outcome="interrupted").collect()
    assert (report.verdict.state, report.verdict.exit_code) == ("interrupted", 6)
    assert report.verdict.left_behind == (left,)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        pytest.param("bad", f"{AMI} is bad and was removed: no worker", id="bad"),
        pytest.param("unproven", f"{AMI} is kept, and unproven: no worker", id="unproven"),
        pytest.param("good", f"{AMI} is good: it booted and drew an image; after that the run failed: "
                     "no worker", id="good"),
    ],
)  # fmt: skip
def test_the_ami_decides_the_verdict(folder: Folder, state: str, sentence: str) -> None:
    failed(folder, {"event": "failed", "at": 4, "message": "no worker:\nx", "exit_code": 4})
    verdict = folder.put(facts__image={**IMAGE_FACTS, "state": state}).collect().verdict
    assert (verdict.state, verdict.sentence) == (state, sentence)


def test_a_cut_run_has_a_report_as_far_as_it_came(folder: Folder) -> None:
    """The power went in the middle of a line."""
    begun = {"event": "step_started", "at": 4.0, "step": "provision"}
    torn = lines({"event": "began", "at": 0.0, "time": "t"}, *step("connect", 1, 1), begun) + '{"event": "no'
    folder.put(journal=lines(BEGUN) + '{"ev', events=torn, plan=PLAN, facts__identity=IDENTITY)
    report = folder.collect()
    assert report.verdict.state == "unfinished"
    assert report.verdict.sentence == "it has not ended: it goes on, or was cut in step 'provision'"
    assert (report.timeline[-1].outcome, report.run.finished) == ("running", None)
    assert report.verdict.exit_code is None
    assert {check.reason for check in report.checks} == {"the run has not come to it"}


def test_each_attempt_of_a_resumed_run_has_its_clock(folder: Folder) -> None:
    began = {"event": "began", "at": 0.0, "time": "t"}
    events = lines(began, *step("connect", 50, 1), began, *step("take over", 2, 1))
    folder.put(
        journal=lines(BEGUN, {"event": "resumed", "at": "2026-11-29T04:00:00Z"}), events=events, plan=PLAN
    )
    report = folder.collect()
    assert [(span.name, span.attempt, span.began) for span in report.timeline] == [
        ("connect", 1, 50.0),
        ("take over", 2, 2.0),
    ]
    assert report.run.attempts == 2


def test_a_boot_check_owes_the_checks_of_the_booted_machine_alone(folder: Folder) -> None:
    folder.put(journal=lines({**BEGUN, "command": "boot-check"}), plan=PLAN, facts__identity=IDENTITY)
    report = folder.collect()
    assert report.run.command == "boot-check"
    assert {check.moment for check in report.checks} == {"booted"}


def test_a_run_of_an_older_bake_says_where_its_checks_are(folder: Folder) -> None:
    kept = {"event": "kept", "at": "2026-11-29T03:39:00Z", "what": f"AMI {AMI} (flux1)"}
    ended = {"event": "ended", "at": "2026-11-29T03:40:00Z", "outcome": "done"}
    report = folder.put(journal=lines(BEGUN, kept, ended), plan=PLAN, manifest={}).collect()
    assert report.verdict.sentence == f"{AMI} is good: it booted and drew an image"
    assert report.checks == ()
    assert "manifest.json and junit.xml have its checks" in report.notes[-1].text


@pytest.mark.parametrize("content", ["", "null", "[]", '"x"', "{", '{"event": 1}', "\x00\xff", "[" * 100_000])
@pytest.mark.parametrize(
    "name",
    [
        "plan.json", "events.jsonl", "facts/identity.json", "facts/image.json", "facts/boot-check.json",
        "facts/agreement.json", "facts/checks-base-connect.json", "facts/inventory-base.json",
        "facts/intended.json", "facts/updates.json", "facts/weights.json", "facts/scan.json",
        "facts/compiled.json", "facts/unused-libraries.json",
        "base-content.json",
    ],
)  # fmt: skip
def test_a_file_with_anything_in_it_costs_its_part_alone(folder: Folder, name: str, content: str) -> None:
    whole(folder)
    (folder.path / name).write_text(content, encoding="utf-8")
    report = folder.collect()
    assert report.run.id == NAME
    if name != "facts/image.json":
        assert report.verdict.state == "good"
    if name not in ("facts/boot-check.json", "plan.json"):
        assert report.pictures


@pytest.mark.parametrize("wrong", [None, 1, "x", [], [1], {"x": 1}, {"a": None}], ids=repr)
@pytest.mark.parametrize(
    "name", ["plan", "facts__identity", "facts__image", "facts__boot_check", "facts__weights"]
)
def test_values_of_another_kind_are_named(folder: Folder, name: str, wrong: Any) -> None:
    """As a person, or another version of bake, may have left them."""
    original = {"plan": PLAN, "facts__identity": IDENTITY, "facts__image": IMAGE_FACTS}.get(
        name, {"fetched": 1}
    )
    whole(folder).put(**{name: dict.fromkeys(original, wrong)})
    assert folder.collect().run.id == NAME


def test_what_is_no_picture_is_none(folder: Folder) -> None:
    whole(folder)
    (folder.path / "first-image.png").write_bytes(b"<script>")
    assert folder.collect().pictures == ()


def test_a_replaced_picture_is_told(folder: Folder) -> None:
    whole(folder)
    told = json.loads((folder.path / "facts/boot-check.json").read_text())
    folder.put(facts__boot_check={**told, "sha256": "ab" * 32})
    (picture,) = folder.collect().pictures
    assert picture.note == "the file is another one than the boot check fetched"


def test_of_a_long_log_the_end_is_kept(folder: Folder) -> None:
    whole(folder)
    (folder.path / "logs/long.log").write_bytes(b"\xff\x00" + b"x" * 5_000_000 + b"\nlast\n")
    (log,) = [one for one in folder.collect().logs if one.file == "logs/long.log"]
    assert (log.bytes, log.tail.endswith("last\n"), len(log.tail) < 9000) == (5_000_008, True, True)


@pytest.mark.parametrize("made", [True, False], ids=["empty", "not-there"])
def test_any_other_folder_is_refused(tmp_path: Path, made: bool) -> None:
    if made:
        (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match="is not a run directory: it has neither a journal nor a plan"):
        collect(tmp_path / "other")


def test_it_is_compared_with_the_last_good_image_of_its_profile_and_venue(folder: Folder) -> None:
    inventory = {"inventory": samples.SEALED.model_dump(mode="json"), "disk": {}}
    whole(folder).put(facts__inventory_sealed=inventory)
    parent = folder.path.parent

    def earlier(
        name: str, state: str = "good", venue: str = "REHEARSAL", profile: str = "g6e-ubuntu"
    ) -> None:
        other = samples.GOOD.model_copy(
            update={
                "verdict": samples.GOOD.verdict.model_copy(update={"state": state}),
                "venue": samples.GOOD.venue.model_copy(update={"name": venue}),
                "run": samples.GOOD.run.model_copy(update={"id": name, "profile": profile}),
            }
        )
        (parent / name).mkdir()
        (parent / name / "report.json").write_text(other.model_dump_json())

    assert folder.collect().since_last_good is None
    earlier("20261101-000000-aaaaaa")
    earlier("20261102-000000-aaaaaa", state="bad")
    earlier("20261103-000000-aaaaaa", venue="AWS")
    earlier("20261104-000000-aaaaaa", profile="other")
    earlier("20261230-000000-aaaaaa")
    (parent / "20261105-000000-aaaaaa").mkdir()
    (parent / "20261105-000000-aaaaaa" / "report.json").write_text("{")
    report = folder.collect()
    assert report.last_good == f"compared with {AMI} of run 20261101-000000-aaaaaa"
    assert report.since_last_good is not None


def inventory(moment: str, version: str) -> dict[str, Any]:
    openssl = {"kind": "deb", "name": "openssl", "version": version, "arch": "amd64"}
    return {"inventory": {"moment": moment, "kernel": "6.8", "os": "Ubuntu", "packages": [openssl]}}


@pytest.mark.parametrize(
    ("updates", "meant"),
    [
        ({"updated": [{"package": "openssl:amd64", "old": "1", "new": "2"}]}, True),
        ({"updated": [{"package": "openssl", "old": "1", "new": "3"}]}, False),
        ({"updated": [{"package": "openssl"}]}, False),
        ({"updated": 1}, False),
        ({}, False),
    ],
)
def test_a_security_update_is_meant_at_the_version_that_was_installed(
    folder: Folder, updates: Any, meant: bool
) -> None:
    wanted = {"asked": [], "held": [], "units": {}, "locks": {}}
    whole(folder).put(
        facts__inventory_base=inventory("base", "1"),
        facts__inventory_sealed=inventory("sealed", "2"),
        facts__intended=wanted,
        facts__updates=updates,
    )
    changed = folder.collect().changed_on_machine
    assert changed is not None
    assert [(one.name, one.meant) for one in changed.changes] == [("deb openssl", meant)]
