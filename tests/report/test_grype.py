"""grype's answers, as its versions give them; tests/bake/commands/test_scan.py calls such a program."""

from __future__ import annotations

from typing import Any

import pytest

from bake.report import grype


@pytest.mark.parametrize(
    ("descriptor", "date"),
    [
        pytest.param(
            {"db": {"status": {"built": "2026-11-28T06:00:00Z"}}}, "2026-11-28T06:00:00Z", id="0.88"
        ),
        pytest.param({"db": {"built": "2024-11-28T06:00:00Z"}}, "2024-11-28T06:00:00Z", id="before"),
        pytest.param({"db": {"error": "none"}}, "unknown", id="no date"),
        pytest.param({}, "unknown", id="no database"),
    ],
)
def test_the_database_has_its_date(descriptor: dict[str, Any], date: str) -> None:
    assert grype._database(descriptor) == date


@pytest.mark.parametrize(
    ("said", "severity"),
    [
        ("Critical", "critical"),
        ("Negligible", "negligible"),
        ("Unknown", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_severities_are_ours(said: str | None, severity: str) -> None:
    match = {
        "vulnerability": {
            "id": "CVE-2026-0001",
            "severity": said,
            "fix": {"versions": [], "state": "wont-fix"},
        },
        "artifact": {"name": "openssl", "version": "3"},
    }
    found = grype._vulnerability(match)
    assert (found.severity, found.fixed_in, found.url) == (severity, "", "")
