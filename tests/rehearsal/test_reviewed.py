"""A profile with checks of its own and waivers: what a waiver carries, and what it does not any more."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bake.commands.report import FORMATS

from .bakes import ROOT, Outcome, called, finish, start

pytestmark = pytest.mark.root
CHECKS = '''
from bake.checks.declare import check

@check("low", "The owner can be asked.", "Write the owner into /etc/motd.", group="users",
       asks=lambda expect: {"motd": "grep -c owner@example.com /etc/motd"})
def test_owner(answers, compare):
    """The login message names the owner."""
    compare.equal(answers["motd"], "1", answers["motd"].out.strip())

@check("medium", "Auditors ask for it.", "Install auditd in the base AMI.", group="security",
       asks=lambda expect: {"state": "systemctl is-enabled auditd 2>&1"})
def test_auditd(answers, compare):
    """auditd starts at boot."""
    compare.equal(answers["state"], "enabled", answers["state"].said)

def test_plain(host):
    """There is a root."""
    assert host.user("root").exists
'''
REVIEWED = """
extends: g6e-ubuntu
attest: false
checks: [checks/test_house.py]
waivers:
  - check: users.house.owner
    reason: nobody owns it yet
    approved_by: reviewer@example.com
    risk: "none: a rehearsal"
    until: 2099-12-31
  - check: security.house.auditd
    reason: it was to come in spring
    approved_by: reviewer@example.com
    risk: logins are not recorded
    until: 2020-03-31
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    desk = tmp_path_factory.mktemp("reviewed")
    profiles = desk / "profiles"
    (profiles / "checks").mkdir(parents=True)
    (profiles / "checks/test_house.py").write_text(CHECKS)
    (profiles / "reviewed.yaml").write_text(REVIEWED)
    base = (ROOT / "profiles/g6e-ubuntu.yaml").read_text()
    (profiles / "g6e-ubuntu.yaml").write_text(base)
    return finish(start(desk, "reviewed", profiles=profiles), desk)


@pytest.fixture(scope="module")
def report(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((outcome.directory / "report.json").read_text())
    return found


def checks(report: dict[str, Any], moment: str = "sealed") -> dict[str, dict[str, Any]]:
    return {one["about"]["id"]: one for one in report["checks"] if one["moment"] == moment}


def test_a_waiver_that_has_ended_is_a_failure(outcome: Outcome, report: dict[str, Any]) -> None:
    assert outcome.code == 4, outcome.errors
    assert re.search(r"\b1 of \d+ checks did not pass", outcome.errors), outcome.errors
    audit = checks(report)["security.house.auditd"]
    assert (audit["outcome"], audit["waiver"]["until"]) == ("failed", "2020-03-31")
    assert "its waiver by reviewer@example.com ended on 2020-03-31" in audit["reason"]
    assert audit["evidence"][0]["by"] == "systemctl is-enabled auditd 2>&1"


def test_a_waiver_that_counts_stands_beside_what_was_found(report: dict[str, Any]) -> None:
    owner = checks(report)["users.house.owner"]
    assert (owner["outcome"], owner["waiver"]["approved_by"]) == ("waived", "reviewer@example.com")
    assert (owner["evidence"][0]["expected"], owner["evidence"][0]["found"]) == ("1", "0")
    assert checks(report)["system.house.plain"]["outcome"] == "passed"


def test_the_report_of_a_failed_bake_is_whole(outcome: Outcome, report: dict[str, Any]) -> None:
    verdict = report["verdict"]
    assert (verdict["state"], verdict["exit_code"], report["image"]) == ("failed", 4, None)
    assert verdict["sentence"].startswith("1 of ")
    booted = checks(report, "booted")
    assert {one["outcome"] for one in booted.values()} == {"not run"}
    assert all("verify" in one["reason"] for one in booted.values())
    assert {one["moment"] for one in report["inventories"]} >= {"base"}
    page = (outcome.directory / "report.html").read_text()
    for told in ("REHEARSAL", "security.house.auditd", "reviewer@example.com", "2020-03-31"):
        assert told in page
    assert outcome.events[-1]["event"] == "reported"
    assert outcome.events[-1]["report"].endswith("report.html")
    for name in ("report.md", "junit.xml", "hdf.json", "sbom.cdx.json", "SHA256SUMS"):
        assert "reviewed" in (outcome.directory / name).read_text() or name == "SHA256SUMS"


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_is_to_be_had_by_command(outcome: Outcome, form: str) -> None:
    run = outcome.directory.name
    shown = called(outcome.desk, "report", run, "--format", form, as_json=False)
    out, errors = shown.communicate(timeout=120)
    assert (shown.returncode, errors) == (0, "")
    assert len(out) > 1000


def test_nothing_is_left(outcome: Outcome) -> None:
    assert outcome.of("failed")[-1]["exit_code"] == 4
    assert "left behind" not in outcome.errors
    assert Path(outcome.directory).is_dir()
