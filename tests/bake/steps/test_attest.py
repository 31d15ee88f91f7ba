"""The step that attests: what it leaves, and that it never costs the image."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bake import profile
from bake.attest import signing
from bake.attest.reading import Reading
from bake.attest.verify import Attestation
from bake.creation import tag_of
from bake.errors import BakeError, Interrupted
from bake.image import Image, image_of
from bake.planning.plan import Plan, make
from bake.planning.sources import Sources
from bake.progress import Nothing, Progress
from bake.report.sums import sums
from bake.run import Run
from bake.steps.attest import attested
from bake.weights import flux
from tests.bake.attest.conftest import Snapshots, served
from tests.bake.facts import facts
from tests.bake.variables import VARIABLES

__all__ = ["served"]
pytestmark = pytest.mark.integration
PROFILES = Path(__file__).parents[3] / "profiles"
VERDICT: Any = SimpleNamespace(verdict=SimpleNamespace(state="good"))


@pytest.fixture
def snapshots(served: Any) -> Snapshots:
    return Snapshots(served)


@pytest.fixture
def image(snapshots: Snapshots) -> Image:
    made = snapshots.image(snapshots.make({0: b"boot", 2047: b"end"}), f"made {uuid.uuid4().hex}")
    return image_of(snapshots.account.described("image", made))  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    directory = tmp_path / "20261129-101500-3fa9c1"
    (directory / "logs").mkdir(parents=True)
    progress = Progress(Nothing())
    yield Run(directory.name, directory, progress)
    progress.close()


def planned(*, rehearsal: bool = True, **changes: Any) -> Plan:
    found = profile.load("g6e-ubuntu", PROFILES, VARIABLES).model_copy(update=changes)
    sources = Sources(sizes=flux.SIZES, differences=("no GPU",) if rehearsal else ())
    return make(found, facts(), replace(sources, hub="http://hub") if rehearsal else sources)


def attestation(run: Run) -> Attestation:
    file = run.directory / "attestation.intoto.jsonl"
    return Attestation.read(file.read_text(), str(file), (run.directory / "attestation.pub").read_bytes())


def test_an_image_that_was_proved_is_attested_and_tagged(
    snapshots: Snapshots, image: Image, run: Run
) -> None:
    with attested(planned(), snapshots.aws(), run, image):
        pass
    (run.directory / "report.json").write_text("{}")
    [finish] = run.after_report
    finish(VERDICT)
    found = attestation(run)
    assert found.check_signature(None, "the key")[0] == "beside"
    assert (found.subject.image, found.verdict) == (image.id, "PASSED")
    assert [one.snapshot for one in found.subject.snapshots] == [image.snapshot]
    for kind, name in (("image", image.id), ("snapshot", image.snapshot)):
        tags: Any = snapshots.account.described(kind, name)["Tags"]
        assert tag_of(tags, "bake:digest") == f"sha256:{found.subject.digest}"
    told = json.loads((run.directory / "facts/attestation.json").read_text())
    assert (told["digest"], told["blocks"]) == (found.subject.digest, 2)
    assert found.summary is not None
    said = found.summary.statement["predicate"]["inputAttestations"]
    line = (run.directory / "attestation.intoto.jsonl").read_text().splitlines()[0]
    assert said[0]["digest"]["sha256"] == hashlib.sha256(line.encode()).hexdigest()
    assert said[1]["digest"]["sha256"] == hashlib.sha256(b"{}").hexdigest()
    assert f"attestation-{image.snapshot}.blocks" in sums(run.directory)


def test_the_statement_says_what_the_image_was_made_of(snapshots: Snapshots, image: Image, run: Run) -> None:
    plan = planned()
    with attested(plan, snapshots.aws(), run, image):
        pass
    predicate = attestation(run).provenance.statement["predicate"]
    definition, details = predicate["buildDefinition"], predicate["runDetails"]
    materials = {one["name"]: one for one in definition["resolvedDependencies"]}
    assert plan.launch.base.id in materials["base AMI"]["uri"]
    assert "another account's" in materials["base AMI"]["annotations"]["no digest"]
    assert materials["worker"]["digest"]["sha256"] == plan.provision.worker.tree
    assert materials["requirements"]["digest"]["sha256"] == plan.inputs["requirements"]
    assert definition["internalParameters"]["plan"] == plan.id
    assert details["metadata"]["invocationId"] == run.id
    assert details["builder"]["id"].endswith(":rehearsal")
    assert VARIABLES["HF_TOKEN"] not in json.dumps(predicate)


def test_a_base_of_the_accounts_own_is_read_too(snapshots: Snapshots, image: Image, run: Run) -> None:
    plan = planned()
    base = replace(plan.launch.base, owner="123456789012", snapshot=snapshots.make({}))
    with attested(replace(plan, launch=replace(plan.launch, base=base)), snapshots.aws(), run, image):
        pass
    found = attestation(run).provenance.statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    empty = "a1f4bb98cb1327991f6bc00ddbdc95292560535ba14ea446caa469d4ebf7f64c"
    assert found[0]["digest"] == {"sha256": empty}


def test_on_aws_without_a_key_nobody_signs_and_that_is_said(
    snapshots: Snapshots, image: Image, run: Run
) -> None:
    with attested(planned(rehearsal=False, attest=True), snapshots.aws(), run, image):
        pass
    envelope = json.loads((run.directory / "attestation.intoto.jsonl").read_text())
    assert envelope["signatures"] == []
    assert not (run.directory / "attestation.pub").exists()
    assert any("not signed" in note for note in run.progress.notes)


def test_with_a_key_of_kms_it_is_signed_and_no_private_key_is_anywhere(
    snapshots: Snapshots, image: Image, run: Run, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    kms = snapshots.account.of("kms").create_key(KeyUsage="SIGN_VERIFY", KeySpec="ECC_NIST_P256")
    named = f"awskms:{kms['KeyMetadata']['Arn']}"
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    file = tmp_path / "signing.pem"
    file.write_bytes(pem)
    secret = pem.splitlines()[1]
    for key in (named, str(file)):
        with attested(planned(rehearsal=False, attest=True, signing_key=key), snapshots.aws(), run, image):
            pass
        kind, signer = attestation(run).check_signature(None, "it")
        assert (kind, signer) == ("beside", signing.opened(key, snapshots.aws()).public_key.keyid)
        for kept in run.directory.rglob("*"):
            content = kept.read_bytes() if kept.is_file() else b""
            assert secret not in content
            assert secret not in b"".join(map(_payload, content.splitlines()))


def _payload(line: bytes) -> bytes:
    try:
        return base64.b64decode(json.loads(line)["payload"])
    except (ValueError, KeyError, TypeError):
        return b""


@pytest.mark.parametrize("error", [BakeError("can't"), ValueError("a bug"), ConnectionError("lost")])
def test_a_failure_is_a_note_and_the_image_stays(
    snapshots: Snapshots, image: Image, run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Reading, "content", fail)
    with attested(planned(), snapshots.aws(), run, image):
        pass
    assert any(f"{image.id} is not attested" in note for note in run.progress.notes)
    assert not (run.directory / "attestation.intoto.jsonl").exists()
    assert run.after_report == []


def test_an_image_that_was_not_proved_is_not_attested(
    snapshots: Snapshots, image: Image, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[Reading] = []
    monkeypatch.setattr(Reading, "stop", stopped.append)
    with pytest.raises(Interrupted), attested(planned(), snapshots.aws(), run, image):
        raise Interrupted("SIGTERM")
    assert not (run.directory / "attestation.intoto.jsonl").exists()
    tags: Any = snapshots.account.described("image", image.id).get("Tags", [])
    assert tag_of(tags, "bake:digest") == ""


def test_without_attest_nothing_is_read(snapshots: Snapshots, image: Image, run: Run) -> None:
    aws = snapshots.new_aws()
    with attested(planned(attest=False), aws, run, image):
        pass
    assert aws.tally.api_calls == 0
