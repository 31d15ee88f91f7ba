"""What a plan has for reviewers: the profile's own checks, waivers, and the place that reports go to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from bake import profile
from bake.account.answers import Unanswered
from bake.account.facts import WiringFacts
from bake.account.wiring import Bucket, Bus
from bake.checks.result import GROUPS
from bake.errors import UsageError
from bake.planning import review
from bake.planning.plan import Plan, make
from bake.planning.render import as_dict, as_text
from bake.planning.sources import Sources
from bake.profile import Profile
from bake.profile.review import Waiver
from bake.weights import flux

from ..facts import facts
from ..variables import VARIABLES

PROFILES = Path(__file__).parents[3] / "profiles"
CHECK = "def test_motd(host):\n    assert host.file('/etc/motd').exists\n"
IDS = frozenset({"security.no_private_keys", "users.no_passwords", "weights.every_byte"})
TODAY = date(2026, 6, 1)


@pytest.fixture(autouse=True)
def ids(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A few checks of bake's own, by their ids."""
    monkeypatch.setattr(review, "_known_ids", lambda: IDS)
    yield


def waiver(
    check: str = "security.no_private_keys", until: date = date(2027, 1, 31), **changes: Any
) -> Waiver:
    said = {"reason": "the vendor's test key", "approved_by": "reviewer@example.com", "risk": "none"}
    return Waiver(check=check, until=until, **{**said, **changes})


def loaded(**changes: Any) -> Profile:
    return profile.load("g6e-ubuntu", PROFILES, VARIABLES).model_copy(update=changes)


def planned(
    *checks: Path, said: tuple[str, ...] = (), origins: dict[str, str] | None = None, **changes: Any
) -> Plan:
    """The plan of a profile whose checks are at these paths, as `propose` finds them."""
    wiring = changes.pop("wiring", WiringFacts())
    found = loaded(checks=said or tuple(f"checks/{path.name}" for path in checks), **changes)
    account = facts(wiring=wiring, asked=datetime(TODAY.year, TODAY.month, TODAY.day, 23, 59, tzinfo=UTC))
    return make(found, account, Sources(sizes=flux.SIZES, checks=checks), origins)


def refused(*checks: Path, **changes: Any) -> list[str]:
    with pytest.raises(UsageError) as caught:
        planned(*checks, **changes)
    assert caught.value.exit_code == 2
    return caught.value.message.splitlines()


def written(folder: Path, name: str, text: str | bytes = CHECK) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


# Waivers


def test_waivers_become_those_of_a_report() -> None:
    plan = planned(waivers=(waiver(),))
    (found,) = plan.verify.waivers
    assert type(found).__module__ == "bake.checks.result"
    assert (found.check, found.until) == ("security.no_private_keys", date(2027, 1, 31))
    assert plan.warnings == ()


@pytest.mark.parametrize(
    "name",
    [
        "users.no_passwords",
        "weights.every_byte[ae/model.safetensors]",
        "CVE-2027-12345",
        "GHSA-29mw-wpgm-hmr9",
        "ALAS2023-2027-501",
    ],
)
def test_bakes_checks_and_any_vulnerability_may_be_waived(name: str) -> None:
    assert planned(waivers=(waiver(name),)).verify.waivers[0].check == name


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("file", ["our_policy.py", "test_our_policy.py"])
def test_a_check_of_ones_own_is_waived_by_group_module_and_name(
    tmp_path: Path, group: str, file: str
) -> None:
    own = written(tmp_path, file)
    assert planned(own, waivers=(waiver(f"{group}.our_policy.motd"),)).verify.files == (own,)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        pytest.param("security.no_privat_keys", "security.no_private_keys", id="a slip"),
        pytest.param("disk.no_private_keys", "security.no_private_keys", id="another group"),
        pytest.param("system.our_polices.motd", "system.our_policy.motd", id="another module"),
        pytest.param("sytem.our_policy.motd", "system.our_policy.motd", id="no group"),
        pytest.param("qqqq.zzzz", None, id="nothing like it"),
        pytest.param("security.no_private_keys.more", "security.no_private_keys", id="more than there is"),
    ],
)
def test_a_waiver_of_no_check_is_a_problem_with_the_nearest_one(
    tmp_path: Path, name: str, hint: str | None
) -> None:
    own = written(tmp_path, "our_policy.py")
    origins = {"waivers.1.check": "profiles/p.yaml:9"}
    lines = refused(own, waivers=(waiver(), waiver(name)), origins=origins)
    assert lines == [
        f"profiles/p.yaml:9: waivers.1.check: there is no check {name}",
        *([f"    did you mean {hint}?"] if hint else []),
    ]


WHO = "the waiver of security.no_private_keys by reviewer@example.com"


@pytest.mark.parametrize(
    ("until", "warning"),
    [
        (date(2026, 5, 31), "ended on 2026-05-31: a failure of the check counts again"),
        (date(2026, 6, 1), "ends today, on 2026-06-01"),
        (date(2026, 6, 2), "ends in 1 day, on 2026-06-02"),
        (date(2026, 6, 15), "ends in 14 days, on 2026-06-15"),
        (date(2026, 6, 16), None),
        (date.max, None),
        (date.min, "ended on 0001-01-01: a failure of the check counts again"),
    ],
    ids=str,
)
def test_a_waiver_that_ended_or_soon_will_is_warned_of(until: date, warning: str | None) -> None:
    expected = (f"{WHO} {warning}",) if warning else ()
    assert planned(waivers=(waiver(until=until),)).warnings == expected


def test_a_vulnerability_counts_again_once_its_waiver_has_ended() -> None:
    (warning,) = planned(waivers=(waiver("CVE-2027-12345", date(2026, 5, 31)),)).warnings
    assert warning.endswith("ended on 2026-05-31: the vulnerability counts again")


# Checks of one's own


def test_files_and_folders_are_taken_in_order_each_file_once(tmp_path: Path) -> None:
    single = written(tmp_path, "our_policy.py")
    folder = tmp_path / "more"
    second, first = written(folder, "test_b.py"), written(folder, "test_a.py")
    deep = written(folder, "deep/test_c.py")
    for name in ("helper.py", "__pycache__/test_d.py", "test_e.txt", "conftest.py"):
        written(folder, name, "no Python")
    plan = planned(single, folder, first, waivers=(waiver("users.c.motd"),))
    assert plan.verify.files == (single, deep, first, second)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param("x.py", "def test_a(:\n", "{file}:1: invalid syntax", id="syntax"),
        pytest.param(
            "x.py", "\n\nif True:\n\tpass\n    x\n", "{file}:5: unindent does not match", id="indent"
        ),
        pytest.param("x.py", b"def test_a(): '\xff'\n", "{file}:1: ", id="binary"),
        pytest.param("x.py", b"def test_a(): pass\0\n", "{file}", id="NUL"),
        pytest.param("x.py", "(" * 50_000, "{file}", id="nested"),
        pytest.param("x.py", "-" * 200_000 + "1", "{file}", id="nested in another way"),
        pytest.param("x.py", "x" * ((1 << 20) + 1), "{file} has 1,048,577 bytes", id="large"),
        pytest.param("x.py", "import os\n", "{file} has no function test_…", id="no test"),
        pytest.param("x.py", "", "{file} has no function test_…", id="empty"),
        pytest.param("x.sh", CHECK, "the name of a test file ends in .py", id="no Python"),
        pytest.param("a\x1b[31m\u202e.py", CHECK, "the name of a test file ends in .py", id="a name"),
    ],
)
def test_a_file_that_pytest_could_not_use_is_a_problem(
    tmp_path: Path, name: str, content: str | bytes, expected: str
) -> None:
    file = written(tmp_path, name, content)
    lines = refused(file, origins={"checks.0": "profiles/p.yaml:3"})
    assert lines[0].startswith(f"profiles/p.yaml:3: checks.0: {expected.format(file=file)}")
    assert len(lines) == 1
    assert all(letter.isprintable() for letter in lines[0])


def test_nothing_of_a_file_is_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    planned(written(tmp_path, "x.py", f"open({str(ran)!r}, 'w')\n{CHECK}"))
    assert not ran.exists()


def test_what_is_not_there_is_a_problem_of_its_entry(tmp_path: Path) -> None:
    good, missing, empty, pipe = (tmp_path / name for name in ("good.py", "missing.py", "empty", "pipe.py"))
    written(tmp_path, "good.py")
    empty.mkdir()
    os.mkfifo(pipe)
    assert refused(good, missing, empty, pipe) == [
        f"checks.1: {missing} is not there, or is no file",
        f"checks.2: {empty} has no test_*.py",
        f"checks.3: {pipe} is not there, or is no file",
    ]


def test_two_files_of_one_name_are_a_problem(tmp_path: Path) -> None:
    one, two = written(tmp_path, "a/our_policy.py"), written(tmp_path, "b/test_our_policy.py")
    assert refused(one, two) == [f"checks.1: {two} and {one} have one name, and so would their checks"]


# The plan's id


def test_a_profile_without_any_of_it_has_no_checks_of_its_own_among_its_inputs() -> None:
    plan = planned()
    assert "own checks" not in plan.inputs
    assert plan.verify.files == plan.verify.waivers == ()


def test_waivers_reports_and_severity_do_not_change_the_id() -> None:
    first = planned().id
    wiring = WiringFacts(reports=Bucket("eu-north-1"))
    assert planned(waivers=(waiver(),), fail_on="low", reports="s3://bucket", wiring=wiring).id == first


def test_checks_of_ones_own_change_the_id_by_name_and_content(tmp_path: Path) -> None:
    file = written(tmp_path, "checks/our_policy.py")
    first = planned(file)
    assert len(first.inputs["own checks"]) == 64
    elsewhere = written(tmp_path, "elsewhere/checks/our_policy.py")
    assert planned(elsewhere).id == first.id
    assert planned(written(tmp_path, "checks/other.py")).id != first.id
    written(tmp_path, "checks/our_policy.py", f"{CHECK}\n")
    assert len({planned().id, first.id, planned(file).id}) == 3


def test_a_folder_and_its_files_by_name_are_the_same_checks(tmp_path: Path) -> None:
    folder = tmp_path / "checks"
    files = written(folder, "test_a.py"), written(folder, "test_b.py")
    named = planned(*files, said=("checks/test_a.py", "checks/test_b.py"))
    assert planned(folder, said=("checks/",)).id == named.id


# Reports


def test_the_bucket_of_reports_must_be_there() -> None:
    assert refused(reports="s3://reports/x") == ["reports: there is no bucket reports"]
    plan = planned(reports="s3://reports/x", wiring=WiringFacts(reports=Bucket("eu-west-1")))
    assert plan.image.reports == "s3://reports/x"
    assert "the reports' bucket reports is in eu-west-1" in plan.checked
    denied = WiringFacts(reports=Unanswered("AWS answers 403"))
    assert "bucket reports (AWS answers 403)" in planned(reports="s3://reports", wiring=denied).unchecked


# Notices


def test_the_bus_of_notices_must_be_there_and_in_the_workers_region() -> None:
    assert refused(notices="told") == ["notices: there is no event bus told in eu-west-1"]
    plan = planned(notices="told", wiring=WiringFacts(notices=Bus()))
    assert "the event bus told is in eu-west-1" in plan.checked
    assert plan.id == planned().id
    assert ["notices", "go", "to", "told"] in [line.split()[:4] for line in as_text(plan).splitlines()]
    assert as_dict(plan)["notices"] == "told"
    denied = WiringFacts(notices=Unanswered("AWS answers 403"))
    assert "event bus told in eu-west-1 (AWS answers 403)" in planned(notices="told", wiring=denied).unchecked


# Text and JSON


def test_the_text_shows_who_waived_what_until_when_and_the_own_checks(tmp_path: Path) -> None:
    plan = planned(
        written(tmp_path, "our_policy.py"),
        waivers=(waiver(),),
        reports="s3://reports/x",
        wiring=WiringFacts(reports=Bucket("eu-north-1")),
        origins={"checks": "profiles/p.yaml:3", "reports": "BAKE_REPORTS (environment)"},
    )
    lines = [line.split() for line in as_text(plan).splitlines()]
    assert ["own", "checks", "our_policy.py", "profiles/p.yaml:3"] in lines
    assert ["reports", "go", "to", "s3://reports/x,", "too", "BAKE_REPORTS", "(environment)"] in lines
    words = " ".join(as_text(plan).split())
    assert (
        "Waived, so that a failure does not stand in the way: - security.no_private_keys until 2027-01-31, "
        "by reviewer@example.com: the vendor's test key (risk: none)"
    ) in words


def test_the_text_of_a_profile_without_any_of_it_is_as_before() -> None:
    text = as_text(planned())
    assert not [word for word in ("own checks", "Waived", "reports", "notices") if word in text]


def test_the_json_holds_the_same(tmp_path: Path) -> None:
    own = written(tmp_path, "our_policy.py")
    wiring = WiringFacts(reports=Bucket("eu-north-1"))
    told = json.loads(
        json.dumps(as_dict(planned(own, waivers=(waiver(),), reports="s3://reports", wiring=wiring)))
    )
    assert told["own_checks"] == [str(own)]
    assert told["waivers"][0]["until"] == told["profile"]["waivers"][0]["until"] == "2027-01-31"
    assert told["reports"] == "s3://reports"
    assert told["profile"]["fail_on"] == "critical"
