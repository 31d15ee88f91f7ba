"""Verifying an AMI: yes or no, with what differs; and what is no attestation of it."""

from __future__ import annotations

import base64
import json
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bake.attest import leaves, signing
from bake.attest.merkle import BLOCK
from bake.attest.reading import read
from bake.attest.statement import Attested, Build, Subject, provenance, summary
from bake.attest.verify import described
from bake.commands import attest as command
from bake.errors import BakeError, NotVerified, UsageError
from bake.localcloud.settings import SPOT_REGION

from .conftest import Snapshots

pytestmark = pytest.mark.integration

BUILD = Build(
    "20261129-101500-3fa9c1", "abc", "p", "1", "", "", {"x": 1}, {"checks": "c"}, ({"name": "base"},)
)
BLOCKS = {0: b"boot", 7: b"x" * BLOCK, 8: b"y" * BLOCK, 2047: b"end"}


@dataclass
class Released:
    """An AMI with its attestation in `folder`, and the public key in a file elsewhere."""

    snapshots: Snapshots
    image: str
    snapshot: str
    folder: Path
    key: Path

    @property
    def file(self) -> Path:
        return self.folder / "attestation.intoto.jsonl"

    def verify(self, *options: str, image: str = "", region: str = SPOT_REGION) -> Result:
        """`bake attest verify`, as whoever owns the account."""
        aws, name = self.snapshots.aws(region), image or self.image
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(command, "_found", lambda *_: (aws, described(aws, name)))
            obj = {"runs": self.folder / "runs", "profile": None, "rehearse": False, "as_json": False}
            arguments = ["verify", name, *options]
            return CliRunner().invoke(command.attest, arguments, obj=obj)

    def yes(self, *options: str, **more: str) -> str:
        done = self.verify("--attestation", str(self.file), *options, **more)
        assert done.exception is None, done.exception
        return done.output

    def no(self, kind: type[BakeError], match: str, *options: str, **more: str) -> str:
        done = self.verify("--attestation", str(self.file), *options, **more)
        assert isinstance(done.exception, kind), done.exception
        assert re.search(match, str(done.exception)), done.exception
        return done.output


@pytest.fixture
def released(snapshots: Snapshots, tmp_path: Path) -> Released:
    snapshot = snapshots.make(BLOCKS)
    image = snapshots.image(snapshot, f"attested {uuid.uuid4().hex}")
    return attested(snapshots, image, snapshot, tmp_path)


def attested(snapshots: Snapshots, image: str, snapshot: str, folder: Path) -> Released:
    content = read(snapshots.aws(), snapshot)
    one = Attested("/dev/sda1", snapshot, content.gib, content.digest())
    subject = Subject(image, "an image", SPOT_REGION, "REHEARSAL", (one,))
    signer, key = signing.passing(), folder / "trusted.pub"
    told = {"version": "1", "now": "", "checks": "c", "provenance": "p", "report": "r"}
    statements = (provenance(subject, BUILD), summary(subject, good=True, **told))
    lines = [signing.sign(statement, signer) for statement in statements]
    run = folder / "run"
    run.mkdir()
    (run / "attestation.intoto.jsonl").write_text("\n".join(lines) + "\n")
    (run / "attestation.pub").write_bytes(signing.pem(signer.public_key))
    (run / leaves.name(snapshot)).write_bytes(leaves.write(snapshot, content))
    key.write_bytes(signing.pem(signer.public_key))
    return Released(snapshots, image, snapshot, run, key)


def test_an_image_that_holds_what_was_attested_is_verified(released: Released) -> None:
    told = released.yes("--key", str(released.key))
    assert told.startswith(f"YES: {released.image} in {SPOT_REGION}\n")
    assert "REHEARSAL, PASSED" in told
    assert "which --key names" in told
    assert "name the one that you trust" in released.yes()


def test_json_has_all_of_it(released: Released) -> None:
    told = json.loads(released.yes("--json", "--key", str(released.key)))
    assert (told["verified"], told["verdict"], told["signature"]) == (True, "PASSED", "trusted")
    assert told["attested"] == told["found"] == told["snapshots"][0]["found"]["digest"]
    assert told["snapshots"][0]["differing"] == []


def test_one_flipped_byte_is_found_where_it_is(released: Released) -> None:
    released.snapshots.write(released.snapshot, 8 * BLOCK + 4711, b"z")
    told = released.no(NotVerified, "does not hold what was attested")
    assert told.startswith("NO: ")
    assert f"block 8 differs: bytes {8 * BLOCK:,} to {9 * BLOCK - 1:,}" in told
    found = json.loads(released.no(NotVerified, "", "--json"))
    where = {"first_block": 8, "last_block": 8, "offset": 8 * BLOCK, "end": 9 * BLOCK}
    assert (found["verified"], found["snapshots"][0]["differing"]) == (False, [where])


def test_ranges_that_differ_are_told_with_both_ends(released: Released) -> None:
    released.snapshots.write(released.snapshot, 8 * BLOCK - 1, b"zz")
    released.snapshots.write(released.snapshot, 100 * BLOCK, b"more")
    told = released.no(NotVerified, "")
    assert "blocks 7 to 8 differ" in told
    assert "block 100 differs" in told


def test_zeros_that_lie_on_the_disk_now_are_no_difference(released: Released) -> None:
    released.snapshots.write(released.snapshot, 500 * BLOCK, bytes(4096))
    assert released.yes().startswith("YES")


def test_without_the_blocks_it_is_said_that_nobody_knows_which_differ(released: Released) -> None:
    released.snapshots.write(released.snapshot, 0, b"root")
    blocks = released.folder / leaves.name(released.snapshot)
    blocks.write_bytes(blocks.read_bytes()[:-36])  # which is not what was attested, either
    assert "which blocks differ is not known" in released.no(NotVerified, "")
    blocks.unlink()
    assert "which blocks differ is not known" in released.no(NotVerified, "")


def test_a_copy_in_another_region_is_held_against_its_source(released: Released) -> None:
    asked = {"Name": uuid.uuid4().hex, "SourceImageId": released.image, "SourceRegion": SPOT_REGION}
    copy = str(released.snapshots.account.call("copy_image", "eu-west-1", **asked)["ImageId"])
    facts = released.snapshots.account.available(copy, "eu-west-1")
    told = released.yes(image=copy, region="eu-west-1")
    assert told.startswith(f"YES: {copy} in eu-west-1, a copy of {released.image} in {SPOT_REGION}")
    snapshot = facts["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    released.snapshots.write(snapshot, 5, b"!")
    assert "block 0 differs" in released.no(NotVerified, "does not hold", image=copy, region="eu-west-1")
    assert released.yes().startswith("YES")  # the source is as it was


def test_the_attestation_of_another_image_is_not_taken(released: Released) -> None:
    other = released.snapshots.image(released.snapshot, f"another {uuid.uuid4().hex}")
    released.no(NotVerified, f"is about {released.image}, and {other} is no copy of it", image=other)


def test_an_image_that_maps_to_another_snapshot_is_not_verified(
    released: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto.ec2.models import ec2_backends

    other = released.snapshots.make({0: b"other"})
    backend = ec2_backends["123456789012"][SPOT_REGION]
    monkeypatch.setattr(backend.amis[released.image], "ebs_snapshot", backend.snapshots[other])
    released.no(NotVerified, f"maps /dev/sda1 to {other}; attested is {released.snapshot}")


def test_an_image_of_somebody_else_is_told(released: Released, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.ec2.models import ec2_backends

    record = ec2_backends["123456789012"][SPOT_REGION].amis[released.image]
    monkeypatch.setattr(record, "owner_id", "999999999999")
    released.no(UsageError, "belongs to the account 999999999999, and not to 123456789012")
    released.no(UsageError, "there is no ami-00000000000000abc", image="ami-00000000000000abc")


def test_the_wrong_key_is_told(released: Released) -> None:
    released.key.write_bytes(signing.pem(signing.passing().public_key))
    released.no(NotVerified, "was not signed by the key", "--key", str(released.key))
    released.key.write_text("no key")
    released.no(UsageError, "is no public key in PEM", "--key", str(released.key))
    released.no(UsageError, "can't be read", "--key", str(released.key.parent / "none"))


@pytest.mark.parametrize("line", [0, 1], ids=["provenance", "summary"])
def test_a_statement_that_was_tampered_with_is_told(released: Released, line: int) -> None:
    lines = [json.loads(one) for one in released.file.read_text().splitlines()]
    payload = json.loads(base64.b64decode(lines[line]["payload"]))
    payload["predicate"]["more"] = "than was signed"
    lines[line]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    released.file.write_text("\n".join(map(json.dumps, lines)))
    released.no(NotVerified, "somebody has changed it", "--key", str(released.key))
    released.no(NotVerified, "somebody has changed it")


def test_an_attestation_that_nobody_signed_says_so(released: Released) -> None:
    lines = [json.loads(one) for one in released.file.read_text().splitlines()]
    released.file.write_text("\n".join(json.dumps({**one, "signatures": []}) for one in lines))
    assert "NOT SIGNED" in released.yes()
    released.no(NotVerified, "it is signed by nobody", "--key", str(released.key))


@pytest.mark.parametrize("text", ["", "{}", "no JSON", json.dumps({"payload": "e30=", "payloadType": "x"})])
def test_what_is_no_attestation_is_told(released: Released, text: str) -> None:
    released.file.write_text(text)
    released.no(BakeError, "is no attestation")


def test_other_provenance_is_no_attestation_of_bakes(released: Released) -> None:
    other: Any = {"_type": "https://in-toto.io/Statement/v1", "predicateType": "x", "subject": []}
    released.file.write_text(signing.sign(other, None))
    released.no(BakeError, "is no attestation of bake's")


def test_an_image_without_an_attestation_is_told(released: Released) -> None:
    done = released.verify()
    assert isinstance(done.exception, BakeError)
    assert f"there is no attestation of {released.image}" in str(done.exception)


def test_an_attestation_is_found_beside_the_report_that_the_tags_name(released: Released) -> None:
    account, bucket = released.snapshots.account, f"reports-{uuid.uuid4().hex}"
    s3, place = account.of("s3"), {"LocationConstraint": SPOT_REGION}
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=place)
    for file in released.folder.glob("attestation*"):
        s3.put_object(Bucket=bucket, Key=f"p/run/{file.name}", Body=file.read_bytes())
    url = f"s3://{bucket}/p/run"
    account.call("create_tags", Resources=[released.image], Tags=[{"Key": "bake:report", "Value": url}])
    released.snapshots.write(released.snapshot, 0, b"root")
    done = released.verify("--key", str(released.key))
    assert isinstance(done.exception, NotVerified)
    assert f"attestation {url}/attestation.intoto.jsonl" in done.output
    assert "block 0 differs" in done.output


def test_an_attestation_is_found_by_its_runs_report(released: Released) -> None:
    run = released.folder / "runs/20261129-101500-3fa9c1"
    run.mkdir(parents=True)
    for file in released.folder.glob("attestation*"):
        (run / file.name).write_bytes(file.read_bytes())
    (run / "report.json").write_text(json.dumps({"image": {"id": released.image}}, indent=2))
    done = released.verify()
    assert done.exception is None
    assert str(run) in done.output


@pytest.mark.parametrize("name", ["ami-1", "snap-0123456789abcdef0", ""])
def test_what_is_no_ami_is_told(name: str) -> None:
    done = CliRunner().invoke(command.attest, ["verify", name], obj={})
    assert isinstance(done.exception, UsageError)
