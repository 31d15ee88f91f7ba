"""checks, waivers, reports and fail_on of a profile: how they load, and which of two profiles' count."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from bake import profile
from bake.checks.result import SEVERITIES, Waiver
from bake.errors import UsageError
from bake.profile.variables import Variables

from ..variables import VARIABLES
from .broken_profiles import GOOD

REASON = '"the vendor\'s test key, which opens nothing"'
WAIVER = f"""\
  - check: security.private_keys
    reason: {REASON}
    approved_by: reviewer@example.com
    risk: "none: its public half is on no machine"
    until: 2027-01-31
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a profile that others extend."""
    (tmp_path / "_good.yaml").write_bytes(GOOD)
    return tmp_path


def load(place: Path, text: str, **variables: str) -> profile.Profile:
    return loaded(place, text, **variables)[0]


def loaded(place: Path, text: str, **variables: str) -> tuple[profile.Profile, profile.Origins]:
    (place / "p.yaml").write_text(f"extends: _good\n{text}")
    known = Variables(VARIABLES).overlaid(variables, ".env.local")
    found, origins = profile.load_with_origins("p", place, known, lambda name, key: "stored-in-a-store")
    return found, {path: origin.replace(f"{place}/", "") for path, origin in origins.items()}


def test_none_of_it_need_be_said(place: Path) -> None:
    found = load(place, "")
    assert (found.checks, found.waivers, found.reports, found.fail_on) == ((), (), None, "critical")


def test_a_waiver_arrives_typed_and_is_one_of_a_report(place: Path) -> None:
    (waiver,) = load(place, f"waivers:\n{WAIVER}").waivers
    assert waiver.until == date(2027, 1, 31)
    assert Waiver(**waiver.model_dump()).model_dump() == waiver.model_dump()


@pytest.mark.parametrize("day", ["2027-01-31", '"2027-01-31"', "${DAY}", "${NONE:-2027-01-31}"])
def test_a_day_may_be_a_date_a_text_or_a_variable(place: Path, day: str) -> None:
    text = f"waivers:\n{WAIVER}".replace("2027-01-31", day)
    assert load(place, text, DAY="2027-01-31").waivers[0].until == date(2027, 1, 31)


@pytest.mark.parametrize(
    "name",
    [
        *("users.no_passwords", "system.our_policy.motd", "weights.file[ae/model.safetensors]"),
        *("CVE-2027-12345", "GHSA-29mw-wpgm-hmr9", "ALAS2023-2027-501"),
    ],
)
def test_checks_and_vulnerabilities_are_waived_by_their_ids(place: Path, name: str) -> None:
    text = f"waivers:\n{WAIVER}".replace("security.private_keys", f'"{name}"')
    assert load(place, text).waivers[0].check == name


def test_a_text_of_several_lines_becomes_one(place: Path) -> None:
    text = f"waivers:\n{WAIVER}".replace(REASON, ">\n      a key\n\n      of tests\n")
    assert load(place, text).waivers[0].reason == "a key of tests"


@pytest.mark.parametrize(("key", "most"), [("reason", 500), ("risk", 500), ("approved_by", 200)])
def test_texts_have_a_limit(place: Path, key: str, most: int) -> None:
    said = {"reason": "r", "risk": "n", "approved_by": "p", "check": "a.b", "until": "2027-01-31"}
    assert getattr(load(place, f"waivers: [{ {**said, key: 'x' * most} }]").waivers[0], key) == "x" * most
    with pytest.raises(
        UsageError, match=rf"p\.yaml:2:\d+: waivers\.0\.{key}: must have at most {most} letter"
    ):
        load(place, f"waivers: [{ {**said, key: 'x' * (most + 1)} }]")


def test_a_childs_list_replaces_its_parents(place: Path) -> None:
    (place / "_waives.yaml").write_text(f"extends: _good\nchecks: [a.py, b.py]\nwaivers:\n{WAIVER}")
    (place / "p.yaml").write_text("extends: _waives\nchecks: [c.py]\n")
    found = profile.load("p", place, VARIABLES)
    assert found.checks == ("c.py",)
    assert [waiver.check for waiver in found.waivers] == ["security.private_keys"]
    (place / "p.yaml").write_text("extends: _waives\nwaivers: []\n")
    assert profile.load("p", place, VARIABLES).waivers == ()


def test_what_a_child_replaces_is_read_in_the_child_alone(place: Path) -> None:
    theirs = WAIVER.replace("reviewer@example.com", "${UNSET}")
    (place / "_waives.yaml").write_text(f"extends: _good\nwaivers:\n{theirs}")
    text = f"extends: _waives\nwaivers:\n{WAIVER}"
    (place / "p.yaml").write_text(text)
    (waiver,) = profile.load("p", place, VARIABLES).waivers
    assert waiver.approved_by == "reviewer@example.com"
    (place / "p.yaml").write_text(text.replace("    approved_by: reviewer@example.com\n", ""))
    with pytest.raises(UsageError, match=r"^\S+/p\.yaml:3:5: waivers\.0\.approved_by: is missing$"):
        profile.load("p", place, VARIABLES)


def test_each_value_and_entry_says_where_it_came_from(place: Path) -> None:
    text = f"checks: [a.py, '${{MORE}}']\nreports: ${{BAKE_REPORTS:-}}\nwaivers:\n{WAIVER}"
    text = text.replace("reviewer@example.com", "${REVIEWER}")
    _, origins = loaded(
        place, text, MORE="b.py", REVIEWER="reviewer@example.com", BAKE_REPORTS="s3://reports/x"
    )
    assert origins["checks"] == "p.yaml:2"
    assert origins["checks.1"] == "MORE (.env.local)"
    assert origins["reports"] == "BAKE_REPORTS (.env.local)"
    assert origins["waivers"] == "p.yaml:5"
    assert origins["waivers.0"] == "p.yaml:5"
    assert origins["waivers.0.until"] == "p.yaml:9"
    assert origins["waivers.0.approved_by"] == "REVIEWER (.env.local)"
    assert origins["fail_on"] == "default"


def test_reports_are_a_literal_or_a_variable_and_an_empty_one_is_none(place: Path) -> None:
    assert load(place, "reports: s3://reports\n").reports == "s3://reports"
    assert load(place, "reports: ${BAKE_REPORTS:-}\n").reports is None
    assert (
        load(place, "reports: ${BAKE_REPORTS:-}\n", BAKE_REPORTS="s3://reports/x").reports == "s3://reports/x"
    )
    with pytest.raises(UsageError, match="reports: must be s3://bucket"):
        load(place, "reports: ${BAKE_REPORTS:-}\n", BAKE_REPORTS="/srv/reports")


@pytest.mark.parametrize("severity", SEVERITIES)
def test_every_severity_may_fail_a_scan(place: Path, severity: str) -> None:
    assert load(place, f"fail_on: {severity}\n").fail_on == severity


@pytest.mark.parametrize(
    ("reference", "variables"),
    [
        pytest.param("${DATABASE_PASSWORD}", {"DATABASE_PASSWORD": "hunter2"}, id="a short secret"),
        pytest.param("${NOTE}", {"NOTE": f"hf_{'x' * 30}"}, id="a token in a plain variable"),
        pytest.param("${NOTE}", {"NOTE": "https://me:hunter2-hunter2@example.com"}, id="a URL's password"),
        pytest.param("secretsmanager:flux#note", {}, id="a store"),
    ],
)
def test_no_secret_becomes_part_of_a_waiver_or_of_a_message(
    place: Path, reference: str, variables: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match=r"waivers\.0\.reason: must not (come from|hold) a secret") as caught:
        load(place, f"waivers:\n{WAIVER}".replace(REASON, reference), **variables)
    for value in (*variables.values(), "hunter2", "stored-in-a-store"):
        assert value not in caught.value.message
