"""MITRE HDF, as inspecjs and saf read it: both are what Heimdall is made of."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bake.report.hdf import hdf
from bake.report.model import Report
from bake.report.text import UNSAFE
from tests.report import samples

FOLDER = Path(__file__).parent / "hdf"
SHOWN = {
    "passed": "Passed",
    "failed": "Failed",
    "waived": "Not Applicable",
    "not applicable": "Not Applicable",
    "not run": "Profile Error",
}
COUNTED = {"Passed": "passed", "Failed": "failed", "Not Applicable": "no_impact", "Profile Error": "error"}
"""What saf calls them."""
REPORTS = {"good": samples.GOOD, "failed": samples.FAILED, "hostile": samples.HOSTILE}


def node(*arguments: str | Path) -> str:
    """Run one of the programs of tests/report/hdf."""
    assert (FOLDER / "node_modules").is_dir(), (
        "tests/report/hdf has no node_modules: make test installs them, or `npm ci --ignore-scripts` there"
    )
    done = subprocess.run(
        ["node", *map(str, arguments)], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def inspecjs(report: Report, folder: Path) -> dict[str, Any]:
    """What inspecjs makes of a report; the controls by id."""
    file = folder / "hdf.json"
    file.write_text(hdf(report), encoding="utf-8")
    read = json.loads(node("read.mjs", file))
    return {control["id"]: control for control in read["controls"]}


def saf(report: Report, folder: Path, *command: str | Path) -> str:
    file = folder / "hdf.json"
    file.write_text(hdf(report), encoding="utf-8")
    return node("node_modules/@mitre/saf/bin/run", *command, "-i", file)


def controls(report: Report) -> dict[str, Any]:
    return {control["id"]: control for control in json.loads(hdf(report))["profiles"][0]["controls"]}


def of_all_outcomes() -> Report:
    checks = tuple(
        samples.check(
            f"users.check_{number}",
            outcome,
            reason="" if outcome == "passed" else f"the reason of {outcome}",
            waiver=samples.WAIVER if outcome == "waived" else None,
        )
        for number, outcome in enumerate(SHOWN)
    )
    return samples.GOOD.model_copy(update={"checks": checks})


@pytest.mark.integration
@pytest.mark.parametrize("report", [*REPORTS.values(), of_all_outcomes()], ids=[*REPORTS, "all outcomes"])
def test_inspecjs_sees_each_check_as_it_ended(report: Report, tmp_path: Path) -> None:
    read = list(inspecjs(report, tmp_path).values())
    assert [control["status"] for control in read] == [SHOWN[check.outcome] for check in report.checks]
    assert [control["severity"] for control in read] == [check.about.severity for check in report.checks]


@pytest.mark.integration
def test_inspecjs_shows_why(tmp_path: Path) -> None:
    read = inspecjs(samples.FAILED, tmp_path)
    assert "expected none, found root" in read["users.no_passwords@sealed"]["finding"]
    assert "getent shadow" in read["users.no_passwords@sealed"]["message"]
    assert read["security.private_keys@sealed"]["waived"] is True
    assert "the base's own test key" in read["security.private_keys@sealed"]["message"]
    assert "the builder has no GPU" in read["drivers.gpus_answer@sealed"]["message"]
    assert "no image was made" in read["worker.ready@booted"]["message"]


@pytest.mark.integration
@pytest.mark.parametrize("name", REPORTS)
def test_saf_counts_as_we_do(name: str, tmp_path: Path) -> None:
    report = REPORTS[name]
    (found,) = json.loads(saf(report, tmp_path, "view", "summary", "--format", "json"))
    counted = {
        key: {severity: count for severity, count in found[key].items() if count and severity != "total"}
        for key in ("passed", "failed", "error", "no_impact", "skipped")
    }
    ours: dict[str, Counter[str]] = {key: Counter() for key in counted}
    for check in report.checks:
        ours[COUNTED[SHOWN[check.outcome]]][check.about.severity] += 1
    assert counted == ours
    assert found["profileName"] == "REHEARSAL g6e-ubuntu"


@pytest.mark.integration
def test_saf_refuses_a_failed_image_by_a_threshold(tmp_path: Path) -> None:
    threshold = tmp_path / "threshold.yaml"
    threshold.write_text("failed:\n  total:\n    max: 0\nerror:\n  total:\n    max: 0\n")
    saf(samples.GOOD, tmp_path, "validate", "threshold", "-T", threshold)
    with pytest.raises(AssertionError, match="failed"):
        saf(samples.FAILED, tmp_path, "validate", "threshold", "-T", threshold)


def test_all_that_inspec_has_a_field_for_is_there() -> None:
    found = controls(samples.FAILED)["users.no_passwords@sealed"]
    assert found["title"] == "No account has a password: keys alone let people in"
    assert found["impact"] == 0.7
    assert found["source_location"] == {"ref": "checks/test_users.py", "line": 40}
    assert found["code"] == "# checks/test_users.py:40\ngetent shadow"
    assert found["refs"] == [{"ref": "docs/requirements.md: R-OS"}]
    assert found["tags"] == {
        "severity": "high",
        "requirements": ["R-OS"],
        "group": "users",
        "moment": "sealed",
        "outcome": "failed",
        "cis": "5.4.2.1",
    }
    assert {one["label"]: one["data"] for one in found["descriptions"]} == {
        "rationale": "A password can be guessed by everybody who reaches port 22.",
        "check": "expected none; found root; by: getent shadow",
        "fix": "Lock the account: `passwd --lock NAME`, in a script of provision/.",
    }
    (result,) = found["results"]
    assert result["status"] == "failed"
    assert result["start_time"] == "2026-11-29T03:07:03Z"
    assert found["waiver_data"] == {}


def test_a_waiver_is_inspecs_with_its_approver_and_risk() -> None:
    found = controls(samples.GOOD)["security.private_keys@sealed"]
    assert found["waiver_data"] == {
        "justification": "the base's own test key, which opens nothing",
        "expiration_date": "2027-01-31",
        "run": True,
        "skipped_due_to_waiver": True,
        "message": (
            "approved by reviewer@example.com until 2027-01-31; risk: none: its public half is on no machine"
        ),
    }
    assert found["impact"] == 0.9


def test_what_does_not_apply_has_no_impact() -> None:
    found = controls(samples.GOOD)["drivers.gpus_answer@sealed"]
    assert found["impact"] == 0
    assert found["desc"].startswith("the builder has no GPU")


def test_the_profile_and_the_platform_say_what_was_looked_at() -> None:
    data = json.loads(hdf(samples.FAILED))
    assert data["platform"] == {"name": "ubuntu", "release": "22.04", "target_id": "20261129-030709-9572df"}
    (profile,) = data["profiles"]
    assert profile["name"] == "REHEARSAL g6e-ubuntu"
    assert profile["status"] == "failed"
    assert profile["status_message"] == "users.no_passwords: expected none, found root"
    assert {group["id"]: len(group["controls"]) for group in profile["groups"]} == {
        "users": 1,
        "drivers": 1,
        "worker": 1,
        "weights": 1,
        "security": 1,
    }
    (more,) = data["passthrough"]["auxiliary_data"]
    assert more["data"]["venue"]["name"] == "REHEARSAL"
    totals = {key: value["total"] for key, value in data["statistics"]["controls"].items()}
    assert totals == {"passed": 1, "failed": 1, "skipped": 2}


def test_one_check_at_two_moments_is_two_controls() -> None:
    checks = tuple(samples.check(moment=moment) for moment in ("sealed", "booted"))
    found = controls(samples.GOOD.model_copy(update={"checks": checks}))
    assert list(found) == ["users.no_passwords@sealed", "users.no_passwords@booted"]


def test_ids_are_unique_even_where_a_check_comes_twice() -> None:
    found = json.loads(hdf(samples.GOOD.model_copy(update={"checks": (samples.check(), samples.check())})))
    (profile,) = found["profiles"]
    ids = ["users.no_passwords@sealed", "users.no_passwords@sealed#2"]
    assert [control["id"] for control in profile["controls"]] == ids
    assert [group["controls"] for group in profile["groups"]] == [ids]


def test_hostile_content_is_shown_by_escapes() -> None:
    text = hdf(samples.HOSTILE)
    assert not UNSAFE.search(text)
    found = json.loads(text)["profiles"][0]["controls"][0]
    assert found["title"] == "<b>bold</b> & \\u202eright to left"
    assert "\\x1b[31mred\\x00]]>" in found["results"][0]["message"]
