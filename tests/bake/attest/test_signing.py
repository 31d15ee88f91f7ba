"""Envelopes: signed by a key file or by KMS, verified, tampered with."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from bake.attest.signing import PAYLOAD, Signed, opened, pem, public_key, sign
from bake.aws import Aws
from bake.errors import BakeError, NotVerified, UsageError

from .conftest import Snapshots

NOBODY = Aws(region="eu-north-1", worker_region="eu-north-1", endpoint="http://127.0.0.1:9")
STATEMENT = {"_type": "https://in-toto.io/Statement/v1", "subject": [{"name": "ami-1"}], "b": "ü"}
KINDS: dict[str, Any] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


def written(folder: Path, key: Any, password: bytes | None = None, name: str = "signing.pem") -> Path:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    file = folder / name
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return file


@pytest.fixture
def key(tmp_path: Path) -> str:
    return str(written(tmp_path, ed25519.Ed25519PrivateKey.generate()))


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_key_file_signs_is_verified_by_its_public_key(tmp_path: Path, kind: str) -> None:
    signer = opened(str(written(tmp_path, KINDS[kind]())), NOBODY)
    line = sign(STATEMENT, signer)
    assert "\n" not in line
    found = Signed.read(line, "it")
    found.verify(public_key(pem(signer.public_key), "it"), "it")
    assert found.statement == STATEMENT
    assert found.keys == (signer.public_key.keyid,)


@pytest.mark.parametrize("spec", ["ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "RSA_2048"])
@pytest.mark.integration
def test_what_kms_signs_is_verified_by_its_public_key(snapshots: Snapshots, spec: str) -> None:
    kms = snapshots.account.of("kms")
    made = kms.create_key(KeyUsage="SIGN_VERIFY", KeySpec=spec)["KeyMetadata"]
    kms.create_alias(AliasName=f"alias/{spec}", TargetKeyId=made["KeyId"])
    for name in (made["KeyId"], made["Arn"], f"alias/{spec}"):
        signer = opened(f"awskms:{name}", snapshots.aws())
        Signed.read(sign({**STATEMENT, "long": "x" * 5000}, signer), "it").verify(signer.public_key, "it")


@pytest.mark.integration
@pytest.mark.parametrize("usage", ["ENCRYPT_DECRYPT", "ECC_SECG_P256K1"])
def test_a_key_of_kms_that_can_not_sign_is_told(snapshots: Snapshots, usage: str) -> None:
    kms, spec = snapshots.account.of("kms"), {"KeyUsage": "SIGN_VERIFY", "KeySpec": usage}
    made = kms.create_key(**(spec if usage.startswith("ECC") else {}))["KeyMetadata"]
    with pytest.raises(UsageError, match="can't sign attestations"):
        sign(STATEMENT, opened(f"awskms:{made['KeyId']}", snapshots.aws()))


def test_a_statement_without_a_key_is_in_an_envelope_without_a_signature(key: str) -> None:
    found = Signed.read(sign(STATEMENT, None), "it")
    assert (found.keys, found.statement) == ((), STATEMENT)
    with pytest.raises(NotVerified, match="it is signed by nobody"):
        found.verify(opened(key, NOBODY).public_key, "it")


def test_another_key_does_not_verify_it(tmp_path: Path, key: str) -> None:
    other = opened(str(written(tmp_path, KINDS["p256"](), name="other.pem")), NOBODY)
    found = Signed.read(sign(STATEMENT, opened(key, NOBODY)), "it")
    with pytest.raises(NotVerified, match="was not signed by the key"):
        found.verify(other.public_key, "it")


@pytest.mark.parametrize("what", ["payload", "payloadType", "sig"])
def test_what_was_changed_is_not_verified(key: str, what: str) -> None:
    signer = opened(key, NOBODY)
    envelope = json.loads(sign(STATEMENT, signer))
    if what == "payload":
        envelope["payload"] = base64.b64encode(json.dumps({**STATEMENT, "b": "u"}).encode()).decode()
    elif what == "sig":
        [signature] = envelope["signatures"]
        signature["sig"] = base64.b64encode(bytes(64)).decode()
    else:
        envelope["payloadType"] = "text/plain"
    with pytest.raises(BakeError, match=r"somebody has changed it|is no attestation"):
        Signed.read(json.dumps(envelope), "it").verify(signer.public_key, "it")


@given(st.one_of(st.text(), st.recursive(st.none() | st.text(), lambda one: st.lists(one)).map(json.dumps)))
def test_what_is_no_envelope_is_told(line: str) -> None:
    with pytest.raises(BakeError, match="it is no attestation"):
        Signed.read(line, "it")


@pytest.mark.parametrize("what", ["absent", "a folder", "text", "a public key", "encrypted", "of no use"])
def test_a_file_that_can_not_sign_is_told_without_what_is_in_it(tmp_path: Path, what: str) -> None:
    file = tmp_path / "signing.pem"
    if what == "a folder":
        file.mkdir()
    elif what == "text":
        file.write_text("hunter2")
    elif what == "a public key":
        file.write_bytes(pem(opened(str(written(tmp_path, KINDS["p256"]())), NOBODY).public_key))
    elif what == "encrypted":
        written(tmp_path, KINDS["p256"](), b"hunter2")
    elif what == "of no use":
        written(tmp_path, x25519.X25519PrivateKey.generate())
    with pytest.raises(UsageError, match=r"signing\.pem can't") as caught:
        opened(str(file), NOBODY)
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"


def test_openssl_verifies_it_as_well(tmp_path: Path, key: str) -> None:
    """The signature is over DSSE's PAE, and by nothing that only bake or securesystemslib knows."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here")
    signer = opened(key, NOBODY)
    envelope = json.loads(sign(STATEMENT, signer))
    payload = base64.b64decode(envelope["payload"])
    head = f"DSSEv1 {len(PAYLOAD)} {PAYLOAD} {len(payload)} ".encode()
    (tmp_path / "pae").write_bytes(head + payload)
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    (tmp_path / "pub").write_bytes(pem(signer.public_key))
    command = [openssl, "pkeyutl", "-verify", "-pubin", "-inkey", "pub", "-rawin", "-in", "pae", "-sigfile"]
    subprocess.run([*command, "sig"], cwd=tmp_path, check=True, capture_output=True)
