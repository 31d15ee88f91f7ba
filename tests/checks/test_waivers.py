"""What a waiver changes, and until when."""

from __future__ import annotations

from datetime import date

import pytest

from bake.checks.result import Check, Waiver, red
from bake.checks.waivers import stale, waive
from tests.report.samples import check

LAST = date(2027, 1, 31)


def waiver(name: str) -> Waiver:
    return Waiver(check=name, reason="known", approved_by="reviewer@example.com", risk="none", until=LAST)


def one(outcome: str, name: str = "users.no_passwords") -> Check:
    return check(name, outcome, reason="expected none, found root")


@pytest.mark.parametrize("today", [date(2026, 11, 29), LAST], ids=["before", "on its last day"])
def test_a_failure_with_a_waiver_stands_in_nobodys_way(today: date) -> None:
    (found,) = waive([one("failed")], [waiver("users.no_passwords")], today)
    assert (found.outcome, found.waiver) == ("waived", waiver("users.no_passwords"))
    assert found.reason == "expected none, found root"
    assert red([found]) == ()


def test_past_its_date_it_is_a_failure_again() -> None:
    (found,) = waive([one("failed")], [waiver("users.no_passwords")], date(2027, 2, 1))
    assert (found.outcome, found.waiver) == ("failed", waiver("users.no_passwords"))
    assert found.reason.endswith("its waiver by reviewer@example.com ended on 2027-01-31")
    assert red([found]) == (found,)


@pytest.mark.parametrize("outcome", ["passed", "not applicable", "not run"])
def test_nothing_but_a_failure_is_waived(outcome: str) -> None:
    before = one(outcome)
    assert waive([before], [waiver("users.no_passwords")], LAST) == (before,)


def test_a_waiver_is_of_one_check() -> None:
    found = waive([one("failed"), one("failed", "system.clock")], [waiver("system.clock")], LAST)
    assert [check.outcome for check in found] == ["failed", "waived"]


def test_a_waiver_without_parameters_is_of_all_of_them() -> None:
    stack = [one("failed", f"drivers.neuron_stack[{name}]") for name in ("tools", "dkms")]
    found = waive(stack, [waiver("drivers.neuron_stack")], LAST)
    assert [check.outcome for check in found] == ["waived", "waived"]
    found = waive(stack, [waiver("drivers.neuron_stack[dkms]")], LAST)
    assert [check.outcome for check in found] == ["failed", "waived"]


def test_waivers_that_nothing_needs_are_told() -> None:
    waivers = [waiver("users.no_passwords"), waiver("system.clock"), waiver("CVE-2026-0001")]
    found = waive([one("failed"), one("passed", "system.clock")], waivers, LAST)
    assert stale(found, waivers) == [
        "the waiver of system.clock is not needed any more: the check did not fail"
    ]
