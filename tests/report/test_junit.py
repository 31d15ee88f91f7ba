"""JUnit XML: what GitLab, GitHub and CodeBuild read."""

from __future__ import annotations

from datetime import date
from xml.etree import ElementTree

import junitparser
import pytest

from bake.checks.result import Evidence
from bake.report.junit import LIMIT, junit
from bake.report.model import Report, Verdict
from bake.report.text import UNSAFE
from tests.report import samples


def suites(report: Report) -> dict[str, junitparser.TestSuite]:
    return {suite.name: suite for suite in junitparser.JUnitXml.fromstring(junit(report).encode())}


def case(report: Report, name: str, moment: str = "sealed") -> ElementTree.Element:
    """The element of one check."""
    root = ElementTree.fromstring(junit(report))
    found = root.findall(f"./testsuite[@name='REHEARSAL g6e-ubuntu {moment}']/testcase")
    (one,) = (element for element in found if element.get("name", "").startswith(name))
    return one


def properties(element: ElementTree.Element) -> list[tuple[str, str]]:
    return [(one.get("name", ""), one.get("value", "")) for one in element.findall("./properties/property")]


def with_checks(*checks: samples.Check) -> Report:
    return samples.GOOD.model_copy(update={"checks": checks})


def test_suites_name_venue_profile_and_moment() -> None:
    names = ["bake", "base", "sealed", "booted"]
    assert list(suites(samples.GOOD)) == [f"REHEARSAL g6e-ubuntu {name}" for name in names]


def test_a_bake_on_aws_says_so() -> None:
    venue = samples.GOOD.venue.model_copy(update={"name": "AWS", "differences": ()})
    text = junit(samples.GOOD.model_copy(update={"venue": venue}))
    assert "REHEARSAL" not in text
    assert '<testsuite name="AWS g6e-ubuntu sealed"' in text


def test_every_check_is_a_case_and_the_counts_are_right() -> None:
    counted = {
        name.rpartition(" ")[2]: (suite.tests, suite.failures, suite.errors, suite.skipped)
        for name, suite in suites(samples.FAILED).items()
    }
    assert counted == {"bake": (1, 1, 0, 0), "sealed": (4, 1, 0, 2), "booted": (1, 0, 1, 0)}


def test_class_and_name_alone_say_what_was_checked() -> None:
    found = case(samples.GOOD, "users.no_passwords")
    assert found.get("classname") == "users"
    assert found.get("name") == "users.no_passwords: No account has a password: keys alone let people in"
    assert (found.get("file"), found.get("line")) == ("checks/test_users.py", "40")


def test_a_passed_check_shows_its_evidence() -> None:
    (output,) = case(samples.GOOD, "users.no_passwords").findall("system-out")
    assert output.text == "expected: none\nfound: none\nby: getent shadow"


def test_a_failed_check_is_a_failure_with_all_that_is_known() -> None:
    (failure,) = case(samples.FAILED, "users.no_passwords").findall("failure")
    assert failure.get("message") == "expected none, found root"
    assert failure.get("type") == "high"
    assert (failure.text or "").splitlines() == [
        "expected none, found root",
        "expected: none",
        "found: root",
        "by: getent shadow",
        "why: A password can be guessed by everybody who reaches port 22.",
        "remedy: Lock the account: `passwd --lock NAME`, in a script of provision/.",
    ]


def test_a_failed_check_names_the_waiver_that_has_ended() -> None:
    waiver = samples.WAIVER.model_copy(update={"until": date(2026, 11, 1)})
    report = with_checks(samples.check(outcome="failed", reason="it ended", waiver=waiver))
    text = case(report, "users.no_passwords").findtext("failure") or ""
    assert "waiver (ended): the base's own test key, which opens nothing" in text
    assert "approved by reviewer@example.com until 2026-11-01" in text


def test_a_waived_check_is_skipped_with_its_waiver() -> None:
    (skipped,) = case(samples.GOOD, "security.private_keys").findall("skipped")
    assert skipped.get("message") == (
        "waived: the base's own test key, which opens nothing"
        " (approved by reviewer@example.com until 2027-01-31)"
    )
    assert "found: /opt/vendor/test.key" in (skipped.text or "")
    assert "risk: none: its public half is on no machine" in (skipped.text or "")


def test_what_does_not_apply_is_skipped_with_its_reason() -> None:
    (skipped,) = case(samples.GOOD, "drivers.gpus_answer").findall("skipped")
    assert skipped.get("message") == (
        "not applicable: the builder has no GPU; the boot check asks the worker's own type"
    )


def test_a_check_that_was_not_run_is_an_error() -> None:
    (error,) = case(samples.FAILED, "worker.ready", "booted").findall("error")
    assert error.get("message") == "not run: no image was made"


@pytest.mark.parametrize(
    ("state", "tag"),
    [
        ("good", None),
        ("bad", "failure"),
        ("failed", "failure"),
        ("unproven", "error"),
        ("interrupted", "error"),
    ],
)
def test_a_run_without_checks_is_green_only_if_it_is_good(state: str, tag: str | None) -> None:
    verdict = Verdict.model_validate({"state": state, "sentence": "a sentence", "error": "the error"})
    report = samples.GOOD.model_copy(update={"checks": (), "verdict": verdict})
    (one,) = ElementTree.fromstring(junit(report)).findall(".//testcase")
    assert (one.get("classname"), one.get("name")) == ("bake", "verdict: a sentence")
    results = [element for element in one if element.tag != "properties"]
    assert [(element.tag, element.text) for element in results] == ([(tag, "the error")] if tag else [])


def test_properties_say_which_run_and_which_requirement() -> None:
    root = ElementTree.fromstring(junit(samples.GOOD))
    for suite in root:
        found = properties(suite)
        assert {
            ("venue", "REHEARSAL"),
            ("run", "20261129-030709-9572df"),
            ("plan", "b251f123a8225c7e"),
            ("account", "123456789012"),
            ("region", "eu-north-1"),
            ("image", "ami-0c0ffee0c0ffee001"),
        } <= set(found)
        assert suite.get("timestamp") == "2026-11-29T03:07:03Z"
    assert {
        ("requirement", "R-OS"),
        ("severity", "critical"),
        ("outcome", "waived"),
        ("cis", "5.4.2.1"),
    } <= set(properties(case(samples.GOOD, "security.private_keys")))


def test_the_controllers_host_is_not_named() -> None:
    assert "hostname" not in junit(samples.GOOD)


def test_hostile_content_stays_text() -> None:
    text = junit(samples.HOSTILE)
    assert not UNSAFE.search(text)
    found = case(samples.HOSTILE, "users.no_passwords: <b>bold</b> & \\u202eright to left")
    (failure,) = found.findall("failure")
    assert failure.get("message") == "\\x1b[31mred\\x00]]>"
    assert "found: </details><h1>x" in (failure.text or "")
    assert "by: echo '\\x07'" in (failure.text or "")
    junitparser.JUnitXml.fromstring(text.encode())


def test_every_field_may_be_hostile() -> None:
    bad = "\x00\x1b[2J\ud800\ufffe]]>&<x a='\"'>\u202e"
    about = samples.check().about.model_copy(
        update={"title": bad, "rationale": bad, "remedy": bad, "source": f"{bad}:12", "requirements": (bad,)}
    )
    evidence = (Evidence(expected=bad, found=bad, by=bad),)
    waiver = samples.WAIVER.model_copy(update={"reason": bad, "approved_by": bad, "risk": bad})
    checks = [
        samples.check(outcome=outcome, reason=bad, evidence=evidence, waiver=waiver, base=(bad,)).model_copy(
            update={"about": about}
        )
        for outcome in ("passed", "failed", "waived", "not applicable", "not run")
    ]
    run = samples.GOOD.run.model_copy(update={"account": bad, "profile": bad})
    report = with_checks(*checks).model_copy(update={"run": run})
    text = junit(report)
    assert not UNSAFE.search(text)
    assert len(ElementTree.fromstring(text).findall(".//testcase")) == 6


def test_a_long_text_is_cut_with_a_note() -> None:
    found = case(with_checks(samples.check(outcome="failed", reason="A" * 1_000_000)), "users.no_passwords")
    (failure,) = found.findall("failure")
    for text in (failure.get("message", ""), failure.text or ""):
        assert len(text) < LIMIT + 100
        assert "more left out]" in text
