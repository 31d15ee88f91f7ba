"""Markdown for comments and summaries: short enough, complete enough, and nobody's words but as text."""

from __future__ import annotations

import re
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from bake.checks.result import Evidence
from bake.report.markdown import COMMENT, SUMMARY, markdown, summarize
from bake.report.model import Change, Changes, Report, Scan, Venue, Verdict, Vulnerability
from bake.report.text import UNSAFE
from tests.report import samples

OURS = {"h2", "h3", "p", "strong", "ul", "li", "code", "details", "summary"}
OURS |= {"table", "thead", "tbody", "tr", "th", "td"}
BAD = (
    "| a \\| b | `x` ``` \n\n# heading\n\n<script>alert(1)</script></details></table><img src=x onerror=y>"
    " @octocat #12 octo/repo#1 [link](https://example.com/evil) ![i](http://example.com/i.png)"
    " https://example.com/auto www.example.com me@example.com *b* _i_ ~~s~~ &lt; $x$ \x00\x1b[2J\u202e\ud800"
    "\r\n- item\n1. one\n> quote\n---\n    code\n```\nfence\n"
)


class Page(HTMLParser):
    """The elements and texts of what a Markdown renderer makes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.cells: list[int] = []
        self.feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.links += [f"{tag} {name}" for name, _ in attrs]
        if tag == "tr":
            self.cells.append(0)
        if tag in ("td", "th"):
            self.cells[-1] += 1

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts).replace("\u2060", "")


def all_bad() -> Report:
    """A report in which every text that a machine or a person wrote is hostile."""
    about = samples.check().about.model_copy(update={"title": BAD, "remedy": BAD, "rationale": BAD})
    evidence = (Evidence(expected=BAD, found=BAD, by=BAD),)
    waiver = samples.WAIVER.model_copy(update={"check": BAD, "reason": BAD, "approved_by": BAD, "risk": BAD})
    checks = tuple(
        samples.check(outcome=outcome, reason=BAD, evidence=evidence, waiver=waiver).model_copy(
            update={"about": about}
        )
        for outcome in ("passed", "failed", "waived", "not applicable", "not run")
    )
    change = Change(kind=BAD, name=BAD, before=BAD, after=BAD, meant=False)
    changes = Changes(before=BAD, after=BAD, changes=(change,))
    weakness = Vulnerability(id=BAD, severity=BAD, package=BAD, version=BAD, fixed_in=BAD, url=BAD)
    scan = Scan(
        scanner=BAD, version=BAD, database=BAD, at=BAD, covered=(BAD,), not_covered=(BAD,), fail_on=None,
        vulnerabilities=(weakness,),
    )  # fmt: skip
    verdict = Verdict(state="failed", sentence=BAD, error=BAD, hint=BAD, left_behind=(BAD,))
    run = samples.GOOD.run.model_copy(
        update={"profile": BAD, "id": BAD, "plan": BAD, "account": BAD, "region": BAD, "bake_version": BAD}
    )
    inventory = samples.BASE.model_copy(update={"versions": {BAD: BAD}})
    assert samples.GOOD.image and samples.GOOD.base and samples.GOOD.cold_start
    stages = [one.model_copy(update={"note": BAD}) for one in samples.GOOD.cold_start.stages]
    cold_start = samples.GOOD.cold_start.model_copy(
        update={"stages": tuple(stages), "floor_from": BAD, "hydration_from": BAD, "notes": (BAD,)}
    )
    return samples.GOOD.model_copy(
        update={
            "venue": Venue(name="REHEARSAL", differences=(BAD,)),
            "verdict": verdict,
            "run": run,
            "image": samples.GOOD.image.model_copy(update={"id": BAD, "name": BAD}),
            "base": samples.GOOD.base.model_copy(update={"id": BAD, "name": BAD}),
            "checks": checks,
            "waivers": (waiver,),
            "since_last_good": changes,
            "changed_on_machine": changes,
            "last_good": BAD,
            "scan": scan,
            "cold_start": cold_start,
            "inventories": (inventory,),
        }
    )


def test_the_first_line_says_where_and_the_next_what_came_of_it() -> None:
    first, _, verdict, *_ = markdown(samples.FAILED).splitlines()
    assert first == "## REHEARSAL: g6e-ubuntu, failed"
    assert verdict == "**1 of 7 checks failed, so no AMI was made**"
    on_aws = samples.GOOD.model_copy(update={"venue": Venue(name="AWS")})
    assert markdown(on_aws).startswith("## AWS: g6e-ubuntu, good\n")


def test_a_failure_says_all_that_is_needed_to_act() -> None:
    text = Page(markdown(samples.FAILED)).text
    for part in (
        "users.no_passwords (high, sealed): No account has a password",
        "expected none, found root, by getent shadow",
        "remedy: Lock the account: `passwd --lock NAME`, in a script of provision/.",
        "worker.ready (high, booted)",
        "not run: no image was made",
        "Error: users.no_passwords: expected none, found root",
        "Image: none was made",
    ):
        assert part in text, part


def test_failures_are_sorted_by_severity() -> None:
    names = {"low": "users.a", "critical": "users.b", "medium": "users.c"}
    checks = tuple(samples.check(name, "failed", severity=severity) for severity, name in names.items())
    text = markdown(samples.GOOD.model_copy(update={"checks": checks}))
    assert re.findall(r"^- .*users\.(.)</code>", text, re.M) == ["b", "c", "a"]


def test_what_a_reviewer_asks_is_there() -> None:
    text = Page(markdown(samples.GOOD)).text
    for part in (
        "ami-0c0ffee0c0ffee001",
        "flux1-dev-g6e-ubuntu-20261129-030709-9572df",
        "account 123456789012, eu-north-1",
        "plan b251f123a8225c7e",
        "$0.58 spent, $4.00 a month",
        "Checks: 1 waived, 1 not applicable, 5 passed",
        "Changed since ami-0c0ffee0c0ffee000: 1",
        "3.0.2-0ubuntu1.17",
        "580.65.06",
        "Vulnerabilities: 1, by grype with its database of 2026-11-28T06:00:00Z",
        "The whole report is report.html of run 20261129-030709-9572df.",
        "/usr/bin/newgidmap",
        "to the first image it took 58.0 s (cold_start.max_seconds: 120), 1.9 times the floor",
        "First reads: 75.0 MB/s, 3.0 GB by the warm-up",
    ):
        assert part in text, part


def test_what_a_scanner_does_not_cover_is_said() -> None:
    assert "| not covered |  | program |  |" in markdown(samples.GOOD)


@pytest.mark.parametrize(
    ("until", "left"),
    [(date(2026, 12, 9), "10"), (date(2026, 11, 29), "0"), (date(2026, 11, 26), "ended 3 days ago")],
)
def test_waivers_have_their_approver_and_the_days_left(until: date, left: str) -> None:
    """Counted from the end of the run, so that the same report always says the same."""
    waiver = samples.WAIVER.model_copy(update={"until": until})
    text = markdown(samples.GOOD.model_copy(update={"waivers": (waiver,)}))
    assert f"| reviewer&#64;\u2060example.com | {until} | {left} | yes |" in text


def test_checks_are_listed_by_group() -> None:
    groups = re.findall(r"^\| (system|users|drivers|worker|weights|security|performance) \|", markdown(samples.GOOD), re.M)  # fmt: skip  # noqa: E501
    assert groups == ["system", "users", "drivers", "worker", "weights", "security", "performance"]


@pytest.mark.parametrize("report", [samples.HOSTILE, all_bad()], ids=["hostile", "all bad"])
def test_hostile_texts_stay_text(report: Report) -> None:
    text = markdown(report)
    page = Page(text)
    assert set(page.elements) <= OURS
    assert not page.links
    assert page.elements.count("details") == text.count("<details>") <= 9
    assert not UNSAFE.search(text.replace("\u2060", ""))


def test_hostile_texts_make_no_cell() -> None:
    rows = [line for line in markdown(all_bad()).splitlines() if line.startswith("|")]
    page = Page(markdown(all_bad()))
    assert page.cells == [line.count("|") - 1 for line in rows if not line.startswith("| ---")]


def test_github_sees_no_mention_issue_or_address() -> None:
    """It looks for them in the text that is shown, whatever the Markdown was."""
    shown = "".join(Page(markdown(all_bad())).texts)
    assert "octocat" in shown
    assert not re.search(r"@\w", shown)
    assert not re.search(r"#\d", shown)
    source = markdown(all_bad())
    assert "://" not in source
    assert "www." not in source
    assert "$" not in source


def test_it_is_short_enough_whatever_a_report_holds() -> None:
    one = all_bad()
    assert one.since_last_good
    many = one.model_copy(
        update={
            "checks": one.checks * 400,
            "waivers": one.waivers * 500,
            "since_last_good": Changes(
                before="a", after="b", changes=one.since_last_good.changes * 2000
            ),
            "verdict": one.verdict.model_copy(update={"left_behind": ("*" * 5000,) * 100}),
            "venue": Venue(name="REHEARSAL", differences=("|" * 5000,) * 100),
        }
    )  # fmt: skip
    text = markdown(many)
    assert len(text) < COMMENT
    left_out = [
        int(number.replace(",", "")) for number in re.findall(r"^([\d,]+) more are in the whole", text, re.M)
    ]
    assert left_out and sum(left_out) > 3000  # fmt: skip
    assert text.count("<details>") == text.count("</details>")
    assert text.startswith("## REHEARSAL")


def test_a_report_that_fits_is_not_cut() -> None:
    assert "more are in the whole report" not in markdown(samples.GOOD)


def test_the_summary_of_a_step_is_appended(tmp_path: Path) -> None:
    file = tmp_path / "summary.md"
    file.write_text("# Before\n")
    summarize(samples.GOOD, {"GITHUB_STEP_SUMMARY": str(file)})
    assert file.read_text() == f"# Before\n{markdown(samples.GOOD)}\n"


def test_a_summary_never_grows_past_what_github_takes(tmp_path: Path) -> None:
    file = tmp_path / "summary.md"
    file.write_bytes(b"x" * (SUMMARY - 100))
    summarize(samples.GOOD, {"GITHUB_STEP_SUMMARY": str(file)})
    assert file.stat().st_size == SUMMARY - 100


@pytest.mark.parametrize("name", [None, "", "no/such/folder/summary.md", ".", "a\x00b"])
def test_a_summary_that_cannot_be_written_fails_nothing(
    name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    summarize(samples.GOOD, {} if name is None else {"GITHUB_STEP_SUMMARY": name})
    assert not list(tmp_path.iterdir())
