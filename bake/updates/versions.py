"""Compare versions of packages, by dpkg's rules and by rpm's.

python-debian's comparison comes with a library of archives and a copyleft licence, and rpm-vercmp has had no
release since 2018; the rules are as short as these functions. Tests hold them against the published vectors,
and against dpkg and rpm themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

Order = Callable[[str, str], int]
"""Negative, 0 or positive: the first version is older than the second, as new, or newer."""


def dpkg(one: str, other: str) -> int:
    """Compare two versions as `[EPOCH:]UPSTREAM[-REVISION]` (deb-version(7))."""
    for left, right in zip(_deb(one), _deb(other), strict=True):
        if order := _dpkg_part(left, right):
            return order
    return 0


def _deb(version: str) -> tuple[str, str, str]:
    epoch, colon, rest = version.partition(":")
    upstream, hyphen, revision = (rest if colon else version).rpartition("-")
    return (epoch if colon else "0", upstream if hyphen else revision, revision if hyphen else "0")


def _dpkg_part(one: str, other: str) -> int:
    """Compare text and numbers in turn; a tilde sorts before the end, letters before all other signs."""
    pairs = zip_longest(re.findall(r"(\D*)(\d*)", one), re.findall(r"(\D*)(\d*)", other), fillvalue=("", ""))
    for (text, number), (text2, number2) in pairs:
        if order := _sign(_signs(text, text2), _signs(text2, text)):
            return order
        if order := _sign(int(number or 0), int(number2 or 0)):
            return order
    return 0


def _signs(text: str, other: str) -> list[int]:
    """Weights of the signs, as many as the longer of the two texts has."""
    weights = [-1 if sign == "~" else ord(sign) if sign.isalpha() else ord(sign) + 256 for sign in text]
    return weights + [0] * (len(other) - len(text))


def rpm(one: str, other: str) -> int:
    """Compare two versions as `[EPOCH:]VERSION-RELEASE`."""
    for left, right in zip(_rpm(one), _rpm(other), strict=True):
        if order := _rpm_part(left, right):
            return order
    return 0


def _rpm(version: str) -> tuple[str, str, str]:
    epoch, colon, rest = version.partition(":")
    upstream, _, release = (rest if colon else version).partition("-")
    return (epoch if colon else "0", upstream, release)


def _rpm_part(one: str, other: str) -> int:
    """Compare segments of digits or of letters; all other signs only part them (rpmvercmp).

    A tilde sorts before the end and a caret after it, and both before any other segment.
    """
    left, right = (re.findall(r"[0-9]+|[a-zA-Z]+|~|\^", text) for text in (one, other))
    for first, second in zip_longest(left, right, fillvalue=""):
        if first != second and (order := _sign(_rank(first), _rank(second))):
            return order
        if first.isdigit() and (order := _sign(int(first), int(second))):
            return order
        if first.isalpha() and (order := _sign(first, second)):
            return order
    return 0


def _rank(segment: str) -> int:
    """Where a segment sorts before anybody looks at what it says."""
    ranks = {"~": 0, "": 1, "^": 2}
    return ranks.get(segment, 4 if segment.isdigit() else 3)


def _sign(one: Any, other: Any) -> int:
    return int(one > other) - int(one < other)
