"""`bake report`, `bake diff` and `bake images`: which reports they find, and what they print."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bake.aws import Aws
from bake.cli import main_group
from bake.errors import BakeError, UsageError
from bake.report.kept import REPORT
from bake.report.model import Report
from bake.report.places import REPORT_TAG, SHA256_TAG, SUMS, upload
from tests.bake.commands.test_runs import BUILDER, kept
from tests.bake.conftest import PlanCloud
from tests.localcloud.moto_account import wait
from tests.report.samples import BASE, FAILED, GOOD, HOSTILE

IMAGE = "ami-0c0ffee0c0ffee001"
ELSEWHERE = "ami-0123456789abcdef0"
REGION = "ap-southeast-2"  # no other test is there
FIRST, SECOND = "20261121-101500-000001", "20261128-101500-000002"


def of(report: Report, run: str, image: str | None = IMAGE, **fields: Any) -> Report:
    """The same report of another run and image."""
    facts = report.image or GOOD.image
    return report.model_copy(
        update={
            "run": report.run.model_copy(update={"id": run}),
            "image": facts.model_copy(update={"id": image}) if image else None,
            **fields,
        }
    )


def keep(runs: Path, report: Report, *, page: bool = True) -> Path:
    """A finished run with its report."""
    directory = kept(runs, report.run.id, BUILDER, {"event": "ended", "outcome": "done"})
    (directory / REPORT).write_text(report.model_dump_json())
    if page:
        (directory / "report.html").write_text("<!doctype html>")
    return directory


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def bake(runs: Path, *arguments: str, **variables: str) -> Result:
    options = ["--runs", str(runs), "--env-file", str(runs / "no.env")]
    known = {"SPOT_AWS_REGION": "", "AWS_REGION": "", "NO_COLOR": "1", **variables}
    return CliRunner().invoke(main_group, [*options, *arguments], env=known)


def printed(result: Result) -> str:
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


# bake report


def test_the_newest_run_is_the_default(runs: Path) -> None:
    keep(runs, of(GOOD, FIRST))
    keep(runs, of(FAILED, SECOND, None))
    assert printed(bake(runs, "report")).splitlines() == [
        "REHEARSAL failed: 1 of 7 checks failed, so no AMI was made",
        str(runs / SECOND / "report.html"),
    ]


@pytest.mark.parametrize("name", [FIRST, IMAGE])
def test_a_report_is_found_by_run_and_by_image(runs: Path, name: str) -> None:
    keep(runs, of(GOOD, FIRST))
    keep(runs, of(FAILED, SECOND, None))
    assert str(runs / FIRST) in printed(bake(runs, "report", name))


def test_a_directory_and_a_file_are_reports_too(runs: Path, tmp_path: Path) -> None:
    directory = keep(tmp_path / "elsewhere", of(GOOD, FIRST))
    for place in (directory, directory / REPORT):
        assert str(directory / "report.html") in printed(bake(runs, "report", str(place)))


def test_the_newest_report_that_has_an_inventory_tells_of_an_image(runs: Path) -> None:
    keep(runs, of(GOOD, FIRST))
    keep(runs, of(GOOD, SECOND, inventories=()))
    assert FIRST in printed(bake(runs, "report", IMAGE))


def test_a_format_is_printed_and_nothing_else(runs: Path) -> None:
    keep(runs, of(GOOD, FIRST))
    assert Report.model_validate_json(printed(bake(runs, "report", "--format", "json"))) == of(GOOD, FIRST)


@pytest.mark.parametrize("name", ["20990101-000000-000000", "../runs", "ami-xyz", ""])
def test_what_is_no_report_names_the_newest_runs(runs: Path, name: str) -> None:
    keep(runs, of(GOOD, FIRST))
    with pytest.raises(UsageError) as error:
        printed(bake(runs, "report", name))
    assert FIRST in (error.value.hint or "") or "No such file" in error.value.message


def test_without_runs_that_is_said(runs: Path) -> None:
    with pytest.raises(UsageError, match="there is no run in"):
        printed(bake(runs, "report"))


@dataclass
class Writing:
    """Stands for what makes a report of a run directory."""

    report: Report
    asked: list[Path] = field(default_factory=list)

    def write(self, directory: Path) -> None:
        self.asked.append(directory)
        (directory / REPORT).write_text(self.report.model_dump_json())
        (directory / "report.html").write_text("<!doctype html>")


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch) -> Writing:
    made = Writing(of(FAILED, SECOND, None))
    monkeypatch.setitem(sys.modules, "bake.report.writing", SimpleNamespace(write=made.write))  # type: ignore[arg-type]
    return made


def test_of_a_run_that_was_cut_the_report_is_made_now(runs: Path, writing: Writing) -> None:
    directory = kept(runs, SECOND, BUILDER)
    (directory / REPORT).write_text("of an earlier attempt, and cut")
    assert "failed" in printed(bake(runs, "report"))
    assert writing.asked == [directory]


def test_a_run_that_has_ended_keeps_its_report(runs: Path, writing: Writing) -> None:
    keep(runs, of(GOOD, FIRST))
    printed(bake(runs, "report", FIRST))
    assert writing.asked == []
    (runs / FIRST / REPORT).unlink()
    printed(bake(runs, "report", FIRST))
    assert writing.asked == [runs / FIRST]


def test_the_browser_is_asked_to_open_the_page(runs: Path, tmp_path: Path) -> None:
    """By the program that the system has for it."""
    keep(runs, of(GOOD, FIRST))
    program = tmp_path / "xdg-open"
    program.write_text(f'#!/bin/sh\necho "$1" >{tmp_path}/now\nmv {tmp_path}/now {tmp_path}/opened\n')
    program.chmod(0o755)
    printed(bake(runs, "report", "--open", PATH=f"{tmp_path}:/usr/bin:/bin"))
    wait((tmp_path / "opened").exists)
    assert (tmp_path / "opened").read_text().strip() == str(runs / FIRST / "report.html")


def test_a_hostile_verdict_stays_one_line(runs: Path) -> None:
    verdict = GOOD.verdict.model_copy(update={"sentence": "good\n\x1b[2Jx\u202e"})
    keep(runs, of(GOOD, FIRST, verdict=verdict))
    shown = printed(bake(runs, "report"))
    assert shown.splitlines()[0] == "REHEARSAL good: good\\n\\x1b[2Jx\\u202e"


def test_runs_and_their_images_are_completed(runs: Path) -> None:
    keep(runs, of(GOOD, FIRST))
    keep(runs, of(FAILED, SECOND, None))
    words = {"_BAKE_COMPLETE": "bash_complete", "COMP_WORDS": f"bake --runs {runs} diff ", "COMP_CWORD": "4"}
    shown = bake_completion(words)
    assert shown == [f"plain,{SECOND}", f"plain,{FIRST}", f"plain,{IMAGE}"]
    assert bake_completion({**words, "COMP_WORDS": f"bake --runs {runs} report ami"}) == [f"plain,{IMAGE}"]


def bake_completion(words: dict[str, str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "bake.cli"],
        env={**os.environ, **words},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.splitlines()


# bake diff


LATER = BASE.model_copy(update={"moment": "sealed", "users": {"eve": "0 0 /root /bin/bash"}})


def test_two_runs_are_compared(runs: Path) -> None:
    keep(runs, of(GOOD, FIRST))
    keep(runs, of(GOOD, SECOND, ELSEWHERE, inventories=(LATER,)))
    result = bake(runs, "diff", FIRST, SECOND)
    shown = printed(result)
    assert shown.splitlines()[0] == f"{IMAGE} (rehearsal) -> {ELSEWHERE} (rehearsal): 8 differ"
    assert "\nuser\n  + eve  0 0 /root /bin/bash\n  - ubuntu  1000" in shown
    assert result.exit_code == 0


def test_json_is_one_object(runs: Path) -> None:
    keep(runs, of(GOOD, FIRST))
    keep(runs, of(FAILED, SECOND, None))
    found = json.loads(printed(bake(runs, "diff", IMAGE, SECOND, "--json")))
    assert {"kind": "run", "name": "verdict"}.items() <= found["changes"][0].items()


def test_the_page_is_written(runs: Path, tmp_path: Path) -> None:
    keep(runs, of(GOOD, FIRST))
    keep(runs, of(FAILED, SECOND, None))
    page = tmp_path / "diff.html"
    assert printed(bake(runs, "diff", FIRST, SECOND, "--html", str(page))).strip() == str(page)
    assert "users.no_passwords" in page.read_text()
    with pytest.raises(UsageError, match="cannot be written"):
        printed(bake(runs, "diff", FIRST, SECOND, "--html", str(tmp_path / "no/diff.html")))


def test_the_exit_code_tells_of_differences_where_that_is_asked_for(runs: Path) -> None:
    keep(runs, of(GOOD, FIRST))
    keep(runs, of(FAILED, SECOND, None))
    assert bake(runs, "diff", FIRST, SECOND, "--exit-code").exit_code == 3
    same = bake(runs, "diff", FIRST, FIRST, "--exit-code")
    assert (same.exit_code, "nothing differs" in same.stdout) == (0, True)


def test_what_a_machine_holds_moves_no_cursor(runs: Path) -> None:
    keep(runs, of(GOOD, FIRST))
    keep(runs, of(HOSTILE, SECOND))
    shown = printed(bake(runs, "diff", FIRST, SECOND))
    assert "python a\\u202egnp-exe" in shown
    assert not {"\x1b", "\x00", "\u202e"} & set(shown)


# Elsewhere: an account


@dataclass
class Account:
    """Images of one profile that nobody else has, and a bucket with their reports."""

    aws: Aws
    runs: Path
    profile: str
    bucket: str
    variables: dict[str, str]

    def image(self, state: str = "good") -> str:
        """An AMI with tags."""
        ec2 = self.aws.ec2
        base = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        known = {"bake:profile": self.profile, "bake:state": state}
        listed = [{"Key": key, "Value": value} for key, value in known.items()]
        specification: Any = [{"ResourceType": "image", "Tags": listed}]
        instance = ec2.run_instances(ImageId=base, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
        name = uuid.uuid4().hex
        return ec2.create_image(InstanceId=instance, Name=name, TagSpecifications=specification)["ImageId"]

    def uploaded(self, report: Report) -> tuple[str, str]:
        """Where its report is, and its hash."""
        directory = self.runs.parent / "elsewhere" / report.run.id
        directory.mkdir(parents=True)
        content = report.model_dump_json().encode()
        (directory / REPORT).write_bytes(content)
        (directory / SUMS).write_text(f"{hashlib.sha256(content).hexdigest()}  {REPORT}\n")
        return upload(self.aws, directory, f"s3://{self.bucket}/x")

    def tag(self, image: str, url: str, sha256: str) -> None:
        tags: Any = [{"Key": REPORT_TAG, "Value": url}, {"Key": SHA256_TAG, "Value": sha256}]
        self.aws.ec2.create_tags(Resources=[image], Tags=tags)

    def bake(self, *arguments: str) -> Result:
        return bake(self.runs, *arguments, **self.variables)


@pytest.fixture
def account(plan_cloud: PlanCloud, runs: Path) -> Iterator[Account]:
    aws = plan_cloud.aws().elsewhere(REGION)
    bucket = f"reports-{uuid.uuid4().hex[:12]}"
    aws.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    variables = {
        "SPOT_AWS_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": plan_cloud.endpoint,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    made = Account(aws, runs, f"p-{uuid.uuid4().hex[:8]}", bucket, variables)
    yield made
    for image in aws.ec2.describe_images(Owners=["self"])["Images"]:
        aws.ec2.deregister_image(ImageId=image["ImageId"])


def test_the_report_of_an_image_from_elsewhere_is_fetched_by_its_tags(account: Account) -> None:
    image = account.image()
    report = of(GOOD, FIRST, image)
    account.tag(image, *account.uploaded(report))
    result = account.bake("report", image, "--format", "json")
    assert Report.model_validate_json(printed(result)) == report
    keep(account.runs, of(GOOD, SECOND, ELSEWHERE))
    assert f"{ELSEWHERE} (rehearsal) -> {image}" in printed(account.bake("diff", ELSEWHERE, image))


def test_another_report_than_the_tags_name_is_not_shown(account: Account) -> None:
    image = account.image()
    url, _ = account.uploaded(of(GOOD, FIRST, image))
    account.tag(image, url, "00" * 32)
    with pytest.raises(BakeError, match="is not the report that the AMI's tags name"):
        printed(account.bake("report", image))


def test_an_image_without_a_report_says_where_one_may_be(account: Account) -> None:
    with pytest.raises(BakeError, match=r"there is no report of ami-.*its tags name none"):
        printed(account.bake("report", account.image()))
    with pytest.raises(BakeError, match=f"there is no {ELSEWHERE} in {REGION}"):
        printed(account.bake("report", ELSEWHERE))
    with pytest.raises(UsageError, match="not set: SPOT_AWS_REGION, AWS_REGION"):
        printed(bake(account.runs, "report", ELSEWHERE))


def test_images_are_listed_with_what_changed(account: Account) -> None:
    first, second, third = (account.image() for _ in range(3))
    draft = account.image("draft")
    keep(account.runs, of(GOOD, FIRST, first))
    account.tag(second, *account.uploaded(of(GOOD, SECOND, second, inventories=(LATER,))))
    rows = {row["image"]: row for row in json.loads(printed(account.bake("images", "--json")))}
    assert [rows[one]["verdict"] for one in (first, second, third)] == ["good", "good", None]
    assert rows[first]["changes"] is None
    assert rows[second]["changes"] == {"package": 2, "user": 2, "unit": 1, "version": 3}
    assert rows[third]["report"] == "no report here"
    assert rows[draft]["state"] == "draft"
    shown = printed(account.bake("images"))
    assert f"2 user, 1 unit, 3 version since {first}" in shown
    assert "the first good one" in shown


def test_images_of_no_profile_are_none_and_that_is_said(account: Account) -> None:
    assert printed(account.bake("images")).strip() == f"there is no image in {REGION}"


def test_a_report_that_is_gone_fails_no_list(account: Account) -> None:
    image = account.image()
    account.tag(image, f"s3://{account.bucket}/gone", "00" * 32)
    (row,) = json.loads(printed(account.bake("images", "--json")))
    assert row["report"].startswith("there is no s3://")
