"""The statements: their form, and which of them are believed to be bake's."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from bake.attest.merkle import image_digest
from bake.attest.statement import Attested, Build, Subject, provenance, subject_of, summary

ONE = Attested("/dev/sda1", "snap-1", 80, "a" * 64)
TWO = Attested("/dev/sdb", "snap-2", 8, "b" * 64)
BUILD = Build(
    "run", "plan", "g6e-ubuntu", "1.0", "then", "now", {"x": 1}, {"checks": "c"}, ({"name": "base"},)
)


def subject(*snapshots: Attested, venue: str = "AWS") -> Subject:
    return Subject("ami-1", "an image", "eu-north-1", venue, snapshots or (ONE,))


def test_the_subjects_are_the_image_and_its_snapshots() -> None:
    told = provenance(subject(ONE, TWO), BUILD)
    assert told["_type"] == "https://in-toto.io/Statement/v1"
    assert told["predicateType"] == "https://slsa.dev/provenance/v1"
    both = image_digest({"/dev/sda1": ONE.digest, "/dev/sdb": TWO.digest})
    assert told["subject"] == [
        {"name": "ami-1", "digest": {"sha256": both}},
        {"name": "snap-1", "digest": {"sha256": ONE.digest}},
        {"name": "snap-2", "digest": {"sha256": TWO.digest}},
    ]


def test_a_rehearsals_builder_is_another_one() -> None:
    ids = {
        provenance(subject(venue=one), BUILD)["predicate"]["runDetails"]["builder"]["id"]
        for one in ("AWS", "REHEARSAL")
    }
    assert ids == {"urn:ami-bake:controller:aws", "urn:ami-bake:controller:rehearsal"}


@pytest.mark.parametrize(
    ("good", "result", "levels"), [(True, "PASSED", ["BAKE_GOOD"]), (False, "FAILED", [])]
)
def test_the_summary_has_the_verdict_and_what_it_goes_by(good: bool, result: str, levels: list[str]) -> None:
    told = summary(subject(), good=good, version="1", now="t", checks="c", provenance="p", report="r")
    predicate = told["predicate"]
    assert told["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert (predicate["verificationResult"], predicate["verifiedLevels"]) == (result, levels)
    assert predicate["resourceUri"] == "arn:aws:ec2:eu-north-1::image/ami-1"
    assert predicate["policy"]["digest"] == {"sha256": "c"}
    assert [one["digest"]["sha256"] for one in predicate["inputAttestations"]] == ["p", "r"]


def test_a_statement_is_read_back() -> None:
    assert subject_of(provenance(subject(ONE, TWO), BUILD)) == subject(ONE, TWO)


@pytest.mark.parametrize(
    "way",
    [
        ("_type",),
        ("predicateType",),
        ("predicate", "buildDefinition", "buildType"),
        ("predicate", "buildDefinition", "internalParameters", "snapshots"),
        ("predicate", "buildDefinition", "internalParameters", "image", "id"),
        ("subject",),
    ],
    ids=lambda way: way[-1],
)
@pytest.mark.parametrize("value", [None, "x", [], {}], ids=["absent", "a text", "a list", "a mapping"])
def test_another_statement_is_refused(way: tuple[str, ...], value: Any) -> None:
    told = copy.deepcopy(provenance(subject(), BUILD))
    part: Any = told
    for name in way[:-1]:
        part = part[name]
    part.pop(way[-1])
    if value is not None:
        part[way[-1]] = value
    with pytest.raises(ValueError, match=r"^its? "):
        subject_of(told)
