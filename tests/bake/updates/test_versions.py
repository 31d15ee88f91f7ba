"""Versions are compared as dpkg and rpm compare them."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bake.updates import versions

# Of dpkg's own tests (lib/dpkg/t/t-version.c) and Debian Policy 5.6.12, and versions of Ubuntu's.
DPKG = [
    ("0:0-0", "0:0-0", 0),
    ("0:0-00", "0:00-0", 0),
    ("1:2-3", "1:2-3", 0),
    ("0:0-0-0", "0:0-0", 1),
    ("1:0-0", "0:9-9", 1),
    ("0:1-0", "0:a-0", -1),
    ("0:0a-0", "0:0b-0", -1),
    ("0-1", "0-2", -1),
    ("1.2.10", "1.2.9", 1),
    ("~~", "~~a", -1),
    ("~~a", "~", -1),
    ("~", "", -1),
    ("", "a", -1),
    ("1.0~rc1", "1.0", -1),
    ("1.0~rc1-1", "1.0~rc2-1", -1),
    ("1.0+dfsg-1", "1.0-1", 1),
    ("1.0a", "1.0+", -1),
    ("1.0z", "1.0.", -1),
    ("2.30-1ubuntu0.1", "2.30-1", 1),
    ("3.0.2-0ubuntu1.15", "3.0.2-0ubuntu1.16", -1),
    ("3.0.2-0ubuntu1.9", "3.0.2-0ubuntu1.10", -1),
    ("1:8.9p1-3ubuntu0.10", "1:8.9p1-3ubuntu0.6", 1),
    ("2:8.2.3995-1ubuntu2.21", "2:8.2.3995-1ubuntu2", 1),
    ("5.15.0-1050.55~20.04.1", "5.15.0-1050.55", -1),
]
# Of rpm's own tests (tests/rpmvercmp.at), and versions of Amazon Linux's.
RPM = [
    ("1.0", "1.0", 0),
    ("1.0", "2.0", -1),
    ("2.0.1", "2.0.1", 0),
    ("2.0", "2.0.1", -1),
    ("2.0.1a", "2.0.1", 1),
    ("5.5p1", "5.5p2", -1),
    ("5.5p10", "5.5p1", 1),
    ("10xyz", "10.1xyz", -1),
    ("xyz10", "xyz10.1", -1),
    ("xyz.4", "8", -1),
    ("xyz.4", "2", -1),
    ("5.5p2", "5.6p1", -1),
    ("5.6p1", "6.5p1", -1),
    ("6.0.rc1", "6.0", 1),
    ("10b2", "10a1", 1),
    ("10a2", "10b2", -1),
    ("1.0aa", "1.0a", 1),
    ("10.0001", "10.1", 0),
    ("10.0001", "10.0039", -1),
    ("4.999.9", "5.0", -1),
    ("20101121", "20101122", -1),
    ("2_0", "2.0", 0),
    ("a+", "a_", 0),
    ("+", "_", 0),
    ("1.0~rc1", "1.0", -1),
    ("1.0~rc1", "1.0~rc2", -1),
    ("1.0~rc1~git123", "1.0~rc1", -1),
    ("1.0^", "1.0", 1),
    ("1.0^git1", "1.0^git2", -1),
    ("1.0^git1", "1.01", -1),
    ("1.0^20160101", "1.0.1", -1),
    ("1.0^20160102", "1.0^20160101^git1", 1),
    ("1.0~rc1^git1", "1.0~rc1", 1),
    ("1.0^git1~pre", "1.0^git1", -1),
    ("1:3.0.8-1.amzn2023.0.1", "1:3.0.8-1.amzn2023.0.14", -1),
    ("1:1.0-1", "2.0-1", 1),
    ("0:1.0-1", "1.0-1", 0),
    ("2.0-1", "2.0-10", -1),
]
ORDERS = {"dpkg": versions.dpkg, "rpm": versions.rpm}


@pytest.mark.parametrize(
    ("rules", "one", "other", "order"),
    [("dpkg", *row) for row in DPKG] + [("rpm", *row) for row in RPM],
)
def test_versions_compare_as_published(rules: str, one: str, other: str, order: int) -> None:
    assert ORDERS[rules](one, other) == order
    assert ORDERS[rules](other, one) == -order


ANY = st.from_regex(r"([0-9]:)?[0-9][0-9a-zA-Z.+~]{0,9}(-[0-9a-zA-Z.+~]{1,6})?", fullmatch=True)
RPMS = st.from_regex(r"([0-9]:)?[0-9a-zA-Z.+_~^]{1,9}-[0-9a-zA-Z.+_~^]{1,6}", fullmatch=True)


@pytest.mark.parametrize(("rules", "texts"), [("dpkg", ANY), ("rpm", RPMS)])
def test_the_order_is_one(rules: str, texts: st.SearchStrategy[str]) -> None:
    order = ORDERS[rules]

    @given(texts, texts, texts)
    @settings(max_examples=300)
    def check(one: str, other: str, third: str) -> None:
        assert order(one, one) == 0
        assert order(one, other) == -order(other, one)
        if order(one, other) <= 0 and order(other, third) <= 0:
            assert order(one, third) <= 0

    check()


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="no dpkg here")
def test_dpkg_says_the_same() -> None:
    @given(ANY, ANY)
    @settings(max_examples=60, deadline=None)
    def check(one: str, other: str) -> None:
        said = {
            sign: subprocess.run(["dpkg", "--compare-versions", one, name, other], check=False).returncode
            == 0
            for sign, name in ((-1, "lt"), (0, "eq"), (1, "gt"))
        }
        assert said[versions.dpkg(one, other)], (one, other)

    check()
