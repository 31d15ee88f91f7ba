"""The statements about an AMI: what it was made of (SLSA provenance), and what was found out (a summary).

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
https://slsa.dev/spec/v1.0/provenance and https://slsa.dev/spec/v1.0/verification_summary
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bake.attest.merkle import image_digest

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
SUMMARY = "https://slsa.dev/verification_summary/v1"
BUILD_TYPE = "urn:ami-bake:bake/1"
"""How an AMI is built: docs/attestation.md says which parameters there are."""
BUILDER = "urn:ami-bake:controller"
CHECKS = "urn:ami-bake:checks"
GOOD = "BAKE_GOOD"
"""The level that a good image has; SLSA's own names say how far a build is isolated, which bake does not."""
DIGEST_TAG = "bake:digest"
"""Tag of an AMI and its snapshots: their content digests."""


@dataclass(frozen=True)
class Attested:
    """One snapshot of an AMI: its device there, its volume's size, and its content digest."""

    device: str
    snapshot: str
    gib: int
    digest: str


@dataclass(frozen=True)
class Subject:
    """An AMI and what its snapshots hold."""

    image: str
    name: str
    region: str
    venue: str
    snapshots: tuple[Attested, ...]

    @property
    def digest(self) -> str:
        """The AMI's digest."""
        return image_digest({one.device: one.digest for one in self.snapshots})

    @property
    def uri(self) -> str:
        """The AMI's ARN, without a partition's name: AMI ids are never given twice."""
        return f"arn:aws:ec2:{self.region}::image/{self.image}"

    def descriptors(self) -> list[dict[str, Any]]:
        """The AMI and its snapshots, as in-toto names what a statement is about."""
        named = {self.image: self.digest, **{one.snapshot: one.digest for one in self.snapshots}}
        return [{"name": name, "digest": {"sha256": digest}} for name, digest in named.items()]


@dataclass(frozen=True)
class Build:
    """One bake: its run and plan, the version of bake, and when it went on (RFC 3339).

    `parameters` are what the user chose, without secrets; `inputs` the hashes of what goes into the image.
    """

    run: str
    plan: str
    profile: str
    version: str
    started: str
    finished: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str]
    materials: Sequence[Mapping[str, Any]]
    byproducts: Sequence[Mapping[str, Any]] = ()
    """What the build made beside the image's content as planned: no input, and in no plan's id."""


def provenance(subject: Subject, build: Build) -> dict[str, Any]:
    """The statement of what an AMI was made of, and by whom."""
    snapshots = {
        one.device: {"snapshot": one.snapshot, "volumeGiB": one.gib, "digest": one.digest}
        for one in subject.snapshots
    }
    return _statement(
        subject,
        PROVENANCE,
        {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"profile": build.profile, "parameters": dict(build.parameters)},
                "internalParameters": {
                    "plan": build.plan,
                    "inputs": dict(build.inputs),
                    "venue": subject.venue,
                    "image": {"id": subject.image, "name": subject.name, "region": subject.region},
                    "snapshots": snapshots,
                },
                "resolvedDependencies": [dict(one) for one in build.materials],
            },
            "runDetails": {
                "builder": {"id": _builder(subject.venue), "version": {"ami-bake": build.version}},
                "metadata": {
                    "invocationId": build.run,
                    "startedOn": build.started,
                    "finishedOn": build.finished,
                },
                **({"byproducts": [dict(one) for one in build.byproducts]} if build.byproducts else {}),
            },
        },
    )


def summary(
    subject: Subject, *, good: bool, version: str, now: str, checks: str, provenance: str, report: str
) -> dict[str, Any]:
    """The statement of what was found out: `checks`, `provenance` and `report` are SHA-256 of what that was.

    `checks` are the bake's own, and the profile's; `provenance` is the envelope, `report` report.json.
    """
    return _statement(
        subject,
        SUMMARY,
        {
            "verifier": {"id": _builder(subject.venue), "version": {"ami-bake": version}},
            "timeVerified": now,
            "resourceUri": subject.uri,
            "policy": {"uri": CHECKS, "digest": {"sha256": checks}},
            "inputAttestations": [
                {"uri": "attestation.intoto.jsonl#1", "digest": {"sha256": provenance}},
                {"uri": "report.json", "digest": {"sha256": report}},
            ],
            "verificationResult": "PASSED" if good else "FAILED",
            "verifiedLevels": [GOOD] if good else [],
            "slsaVersion": "1.0",
        },
    )


def _builder(venue: str) -> str:
    """A rehearsal's is another one: what it vouches for is nothing that runs on AWS."""
    return f"{BUILDER}:{venue.lower()}"


def _statement(subject: Subject, kind: str, predicate: dict[str, Any]) -> dict[str, Any]:
    return {
        "_type": STATEMENT,
        "subject": subject.descriptors(),
        "predicateType": kind,
        "predicate": predicate,
    }


# What may stand in messages and on a terminal, wherever the statement comes from.
_ALLOWED = re.compile(
    r"ami-[0-9a-f]+\0[a-z0-9-]+\0(AWS|REHEARSAL)((\0[A-Za-z0-9/_.-]+\0snap-[0-9a-f]+\0[0-9a-f]{64})*)"
)


def _check(subject: Subject) -> None:
    """Raise ValueError for ids, digests and devices that are none."""
    parts = [subject.image, subject.region, subject.venue]
    for one in subject.snapshots:
        parts += [one.device, one.snapshot, one.digest]
    if not _ALLOWED.fullmatch("\0".join(parts)):
        raise ValueError("it names an AMI, a snapshot, a device or a digest that is none")


def subject_of(statement: Mapping[str, Any]) -> Subject:
    """The subject of a provenance statement; raises ValueError for any other statement."""
    try:
        if (statement["_type"], statement["predicateType"]) != (STATEMENT, PROVENANCE):
            raise ValueError(f"it is no {PROVENANCE}")
        definition = statement["predicate"]["buildDefinition"]
        if definition["buildType"] != BUILD_TYPE:
            raise ValueError(f"it is about no {BUILD_TYPE}")
        told = definition["internalParameters"]
        snapshots = tuple(
            Attested(str(device), str(one["snapshot"]), int(one["volumeGiB"]), str(one["digest"]))
            for device, one in told["snapshots"].items()
        )
        image = told["image"]
        found = Subject(
            str(image["id"]), str(image["name"]), str(image["region"]), str(told["venue"]), snapshots
        )
        _check(found)
        if not snapshots or list(statement["subject"]) != found.descriptors():
            raise ValueError("its subject is not what its parameters say")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it lacks {error}") from error
    return found
