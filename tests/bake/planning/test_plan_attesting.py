"""Attesting in a plan: whether it is done, what it costs, and a key that can't sign."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bake import iam, profile
from bake.account.answers import Unanswered
from bake.account.prices import direct_reads
from bake.account.signing import SigningKey, ask_signing_key
from bake.attest.merkle import BLOCK
from bake.aws import Aws
from bake.errors import UsageError
from bake.localcloud.api.access.evaluation import evaluate
from bake.localcloud.api.access.needs import Need
from bake.planning.plan import Plan, make
from bake.planning.render import as_dict, as_text
from bake.planning.sources import Sources
from bake.profile import Profile
from bake.weights import flux

from ..facts import facts
from ..variables import VARIABLES

PROFILES = Path(__file__).parents[3] / "profiles"
REHEARSAL = Sources(sizes=flux.SIZES, differences=("no GPU",), hub="http://hub")
COSTS = {"List": "0.00000062", "Put": "0.0000065", "Get": "0.0000031"}
KMS = "awskms:arn:aws:kms:eu-north-1:123456789012:key/mrk-0123456789abcdef0123456789abcdef"


def loaded(**changes: Any) -> Profile:
    return profile.load("g6e-ubuntu", PROFILES, VARIABLES).model_copy(update=changes)


def planned(sources: Sources | None = None, signing: Any = None, **changes: Any) -> Plan:
    known = facts(signing=signing)
    prices = replace(known.types.prices, block=0.003e-3, block_list=0.0006e-3)
    known = replace(known, types=replace(known.types, prices=prices))
    return make(loaded(**changes), known, sources or Sources(sizes=flux.SIZES))


def product(usage: str, dollars: str) -> str:
    """A product as the price list has it."""
    terms = {"OnDemand": {"x": {"priceDimensions": {"x": {"pricePerUnit": {"USD": dollars}}}}}}
    return json.dumps({"product": {"attributes": {"usagetype": usage}}, "terms": terms})


def test_the_price_list_is_asked_what_blocks_cost() -> None:
    listed = [product(f"EUN1-EBS:directAPI.snapshot.{one}", cost) for one, cost in COSTS.items()]
    asked: list[Any] = []

    def get(**request: Any) -> Any:
        asked.append({one["Field"]: one["Value"] for one in request["Filters"]})
        return {"PriceList": listed}

    aws: Any = SimpleNamespace(
        partition="aws", region="eu-north-1", pricing=SimpleNamespace(get_products=get)
    )
    assert direct_reads(aws) == (0.0000031, 0.00000062)
    assert asked == [{"regionCode": "eu-north-1", "productFamily": "EBS direct API Requests"}]
    listed.clear()
    assert direct_reads(aws) == (None, None)
    aws.partition = "aws-cn"
    assert all(isinstance(one, Unanswered) for one in direct_reads(aws))


def test_rehearsals_attest_and_bakes_on_aws_do_not_unless_the_profile_says_otherwise() -> None:
    assert REHEARSAL.venue == "REHEARSAL"
    assert planned(REHEARSAL).attesting is not None
    assert planned(REHEARSAL, attest=False).attesting is None
    assert planned().attesting is None
    assert planned(attest=True).attesting is not None
    assert "attestation" not in as_text(planned())


def test_requests_dollars_and_traffic_are_in_the_plan() -> None:
    plan = planned(attest=True, signing_key="signing.pem", signing=SigningKey("0123456789abcdef0"))
    found, told = plan.attesting, as_dict(plan)["attesting"]
    assert found is not None
    assert plan.image.disk.stored < found.bytes <= 80 << 30
    assert found.blocks == found.bytes // BLOCK
    assert found.dollars == pytest.approx(found.blocks * 0.003e-3 + found.lists * 0.0006e-3)
    assert (told["requests"], told["bytes"]) == (found.blocks + found.lists, found.bytes)
    assert f"{found.requests:,} requests, ${found.dollars:.2f}" in as_text(plan)
    assert f"these {found.bytes / 1e9:.0f} GB leave it" in as_text(plan)
    assert "signed with signing.pem" in as_text(plan)
    assert "the key 0123456789abcdef signs attestations" in plan.checked


def test_neither_setting_is_an_input_of_the_image() -> None:
    assert len({planned().id, planned(attest=True).id, planned(attest=False, signing_key="x.pem").id}) == 1


def test_without_a_key_the_plan_warns() -> None:
    assert any("nobody signs the attestation" in one for one in planned(attest=True).warnings)
    assert not any("signing_key" in one for one in planned(REHEARSAL).warnings)


def test_a_key_that_can_not_sign_is_a_problem_before_anything_starts() -> None:
    with pytest.raises(UsageError, match="signing_key: it is encrypted"):
        planned(attest=True, signing_key="x.pem", signing=SigningKey(wrong="it is encrypted"))
    told = planned(attest=True, signing_key=KMS, signing=Unanswered("AWS answers AccessDenied"))
    assert "the key that signs attestations (AWS answers AccessDenied)" in told.unchecked


def test_the_key_is_opened_only_where_it_will_sign(tmp_path: Path) -> None:
    key, file = ed25519.Ed25519PrivateKey.generate(), tmp_path / "signing.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    aws = Aws(region="eu-north-1", worker_region="eu-north-1")
    local = Aws(region="eu-north-1", worker_region="eu-north-1", endpoint="http://127.0.0.1:9")
    named = loaded(attest=True, signing_key=str(file))
    found = ask_signing_key(named, aws)
    assert isinstance(found, SigningKey)
    assert len(found.id) == 64
    assert ask_signing_key(named, local) is None  # a rehearsal
    assert ask_signing_key(named.model_copy(update={"attest": None}), aws) is None
    file.write_text("no key")
    wrong = ask_signing_key(named, aws)
    assert isinstance(wrong, SigningKey)
    assert "it is no private key in PEM" in wrong.wrong


@pytest.mark.parametrize(
    "value",
    [
        *("signing.pem", "~/keys/signing.pem", "/etc/bake/signing key.pem", KMS, "awskms:alias/bake-signing"),
        *("awskms:01234567-89ab-cdef-0123-456789abcdef", "awskms:arn:aws:kms:eu-west-1:123456789012:alias/x"),
    ],
)
def test_keys_that_a_profile_may_name(value: str, tmp_path: Path) -> None:
    assert read(value, tmp_path).signing_key == value


@pytest.mark.parametrize(
    "value", ["awskms:", "awskms:x y", "-----BEGIN PRIVATE KEY-----\nMC4CAQ", "gcpkms:x"]
)
def test_what_is_no_key_is_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="signing_key"):
        read(value, tmp_path)


def read(value: str, folder: Path) -> Profile:
    for file in PROFILES.glob("*.yaml"):
        (folder / file.name).write_text(file.read_text())
    text = "extends: g6e-ubuntu\nattest: true\nsigning_key: ${BAKE_SIGNING_KEY}\n"
    (folder / "signed.yaml").write_text(text)
    return profile.load("signed", folder, {**VARIABLES, "BAKE_SIGNING_KEY": value})


def test_rights_come_only_where_the_profile_attests() -> None:
    def statements(**changes: Any) -> dict[str, iam.Statement]:
        subject = iam.Subject.of(loaded(**changes), "123456789012", role="arn:aws:iam::123456789012:role/w")
        return {one.sid: one for one in iam.statements("caller", subject)}

    without, attesting = statements(), statements(attest=True, signing_key=KMS)
    assert attesting.keys() - without.keys() == {"ReadTheSnapshot", "SignAttestations"}
    assert attesting["ReadTheSnapshot"].resources == ("arn:aws:ec2:eu-north-1::snapshot/*",)
    assert attesting["ReadTheSnapshot"].condition == attesting["UseAndRemoveOurs"].condition
    assert attesting["SignAttestations"].resources == (KMS.removeprefix("awskms:"),)
    alias = statements(attest=True, signing_key="awskms:alias/bake")["SignAttestations"]
    assert alias.resources == ("arn:aws:kms:eu-north-1:123456789012:key/*",)
    assert "bake:digest" in json_of(attesting["MarkOurs"])
    assert "bake:digest" not in json_of(without["MarkOurs"])
    assert "SignAttestations" not in statements(attest=True, signing_key="signing.pem")


def json_of(statement: iam.Statement) -> str:
    return str(statement.as_dict())


def test_whoever_verifies_may_look_and_read_and_nothing_else() -> None:
    account = iam.Account("123456789012", "eu-west-1", "eu-west-1")
    policy = iam.document(iam.of_verifying(account))
    snapshot = "arn:aws:ec2:eu-west-1::snapshot/snap-1"
    wanted = [
        ("ec2:DescribeImages", "*"),
        ("ebs:ListSnapshotBlocks", snapshot),
        ("ebs:GetSnapshotBlock", snapshot),
    ]
    assert all(evaluate([policy], Need(*one)).allowed for one in wanted)
    for other in (("ec2:DeleteSnapshot", snapshot), ("ebs:PutSnapshotBlock", snapshot)):
        assert not evaluate([policy], Need(*other)).allowed
