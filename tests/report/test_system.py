"""Distributions, by what /etc/os-release calls them."""

from __future__ import annotations

import pytest

from bake.report.system import System, system


@pytest.mark.parametrize(
    ("pretty", "expected", "codename"),
    [
        ("Ubuntu 22.04.5 LTS", System("ubuntu", "22.04", "deb", "ubuntu"), "jammy"),
        ("Ubuntu 24.04 LTS", System("ubuntu", "24.04", "deb", "ubuntu"), "noble"),
        ("Ubuntu 99.10", System("ubuntu", "99.10", "deb", "ubuntu"), "99.10"),
        ("Debian GNU/Linux 12 (bookworm)", System("debian", "12", "deb", "debian"), "bookworm"),
        ("Amazon Linux 2023.6.20241010", System("amzn", "2023", "rpm", "amazon"), "2023"),
        ("Amazon Linux 2", System("amzn", "2", "rpm", "amazon"), "2"),
        ("Fedora Linux 42 (Forty Two)", System("fedora", "42", "rpm", "fedora"), "42"),
    ],
)
def test_known_distributions(pretty: str, expected: System, codename: str) -> None:
    found = system(pretty)
    assert found == expected
    assert found.codename == codename


@pytest.mark.parametrize("pretty", ["", "Arch Linux", "Debian GNU/Linux trixie/sid", "\x00Ubuntu 22.04"])
def test_unknown_ones_are_not_guessed(pretty: str) -> None:
    assert system(pretty) is None
