"""Sign and verify statements: DSSE envelopes by securesystemslib, with a key file or a key of AWS KMS.

A key file is a private key in PEM (Ed25519, ECDSA or RSA); it is read where it is, and nothing of it is kept.
`awskms:KEY` names a key for SIGN_VERIFY by its id, ARN or alias; only what is signed goes to KMS, never back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError, UnsupportedLibraryError, VerificationError
from securesystemslib.signer._crypto_signer import CryptoSigner
from securesystemslib.signer._key import Key, SSlibKey
from securesystemslib.signer._signature import Signature
from securesystemslib.signer._signer import SecretsHandler, Signer

from bake.errors import BakeError, NotVerified, UsageError

if TYPE_CHECKING:
    from bake.aws import Aws

PAYLOAD = "application/vnd.in-toto+json"
KMS = "awskms:"
# securesystemslib's scheme of a public key -> KMS's name of the algorithm, and the hash that is signed.
ALGORITHMS: Mapping[str, tuple[str, str]] = {
    "ecdsa-sha2-nistp256": ("ECDSA_SHA_256", "sha256"),
    "ecdsa-sha2-nistp384": ("ECDSA_SHA_384", "sha384"),
    "ecdsa-sha2-nistp521": ("ECDSA_SHA_512", "sha512"),
    "rsassa-pss-sha256": ("RSASSA_PSS_SHA_256", "sha256"),
}
HINT = "openssl genpkey -algorithm ed25519 -out signing.pem makes one"
_WRONG = (ValueError, TypeError, UnsupportedAlgorithm, UnsupportedLibraryError)


class KmsSigner(Signer):
    """Signs by a key of AWS KMS, through the bake's own clients.

    securesystemslib's own signer makes a client by itself, which would leave a rehearsal's cloud, and the
    bake's retries.
    """

    def __init__(self, kms: Any, key: str) -> None:
        self._kms, self._key = kms, key
        answer = kms.get_public_key(KeyId=key)
        if answer.get("KeyUsage") != "SIGN_VERIFY":
            raise ValueError(f"it is for {answer.get('KeyUsage')}")
        self._public = SSlibKey.from_crypto(load_der_public_key(answer["PublicKey"]))
        if self._public.scheme not in ALGORITHMS:
            raise ValueError(f"it signs by {self._public.scheme}")

    @property
    def public_key(self) -> Key:
        """The key that verifies what this one signs."""
        return self._public

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> Signer:
        """Not used: a URI names no clients."""
        raise NotImplementedError

    def sign(self, payload: bytes) -> Signature:
        """Sign the payload's hash: KMS takes no more than 4 KiB as they are."""
        algorithm, name = ALGORITHMS[self._public.scheme]
        answer = self._kms.sign(
            KeyId=self._key,
            Message=hashlib.new(name, payload).digest(),
            MessageType="DIGEST",
            SigningAlgorithm=algorithm,
        )
        return Signature(self._public.keyid, answer["Signature"].hex())


def opened(name: str, aws: Aws) -> Signer:
    """The key that `signing_key` names. Raises UsageError for a file that is none, and what AWS answers."""
    return _of_kms(name.removeprefix(KMS), aws) if name.startswith(KMS) else _of_file(Path(name))


def passing() -> Signer:
    """A key of one rehearsal, which nobody else has and nothing keeps: it shows that signing works."""
    return CryptoSigner.generate_ed25519()


def _of_kms(key: str, aws: Aws) -> Signer:
    region = key.split(":")[3] if key.startswith("arn:") and key.count(":") >= 5 else aws.region
    try:
        return KmsSigner(aws.signer(region), key)
    except _WRONG as error:
        raise UsageError(
            f"the key {key} of AWS KMS can't sign attestations: {error}",
            hint="it must be for SIGN_VERIFY: ECC_NIST_P256, P384 or P521, or RSA",
        ) from error


def _of_file(file: Path) -> Signer:
    try:
        return CryptoSigner(load_pem_private_key(file.expanduser().read_bytes(), password=None))
    except OSError as error:
        raise UsageError(f"signing_key: {file} can't be read: {error.strerror}", hint=HINT) from error
    except _WRONG as error:
        why = "it is encrypted" if "encrypted" in str(error) else "it is no private key in PEM"
        raise UsageError(
            f"signing_key: {file} can't sign: {why}",
            hint=f"Ed25519, ECDSA or RSA, without a password: {HINT}",
        ) from None  # not from what read it: its text may quote the file


def pem(key: Key) -> bytes:
    """A public key as `--key` takes it."""
    found = key._crypto_key()  # type: ignore[attr-defined]
    written: bytes = found.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return written


def public_key(data: bytes, name: str) -> Key:
    """Read a public key in PEM; raises UsageError for anything else."""
    try:
        return SSlibKey.from_crypto(load_pem_public_key(data))
    except _WRONG as error:
        raise UsageError(
            f"{name} is no public key in PEM", hint="attestation.pub of the run, or: openssl pkey -pubout"
        ) from error


def sign(statement: Mapping[str, Any], signer: Signer | None) -> str:
    """The statement in its envelope, on one line; without a key, an envelope that nobody has signed."""
    envelope = Envelope(json.dumps(statement, sort_keys=True).encode(), PAYLOAD, {})
    if signer is not None:
        envelope.sign(signer)
    return json.dumps(envelope.to_dict(), sort_keys=True)


@dataclass(frozen=True)
class Signed:
    """A statement from an envelope, and the ids of the keys that are said to have signed it."""

    statement: Mapping[str, Any]
    keys: tuple[str, ...]
    envelope: Envelope

    @classmethod
    def read(cls, line: str, where: str) -> Signed:
        """Read an envelope; raises BakeError for anything else."""
        try:
            envelope = Envelope.from_dict(json.loads(line))
            statement = json.loads(envelope.payload)
            if envelope.payload_type != PAYLOAD or not isinstance(statement, dict):
                raise ValueError(f"its payload is no {PAYLOAD}")
        except (ValueError, KeyError, TypeError, AttributeError, FormatError, RecursionError) as error:
            raise BakeError(
                f"{where} is no attestation: {type(error).__name__}: {error}",
                hint="it is attestation.intoto.jsonl of a run, as bake wrote it",
            ) from error
        return cls(statement, tuple(envelope.signatures), envelope)

    def verify(self, key: Key, where: str) -> None:
        """Raise NotVerified unless `key` has signed the statement as it is."""
        if key.keyid not in self.envelope.signatures:
            by = f"by the key {', '.join(one[:16] for one in self.keys)}" if self.keys else "by nobody"
            raise NotVerified(
                f"{where} was not signed by the key {key.keyid[:16]}: it is signed {by}",
                hint="--key names the public key of whoever baked",
            )
        try:
            self.envelope.verify([key], 1)
        except VerificationError as error:
            raise NotVerified(
                f"{where} is not what the key {key.keyid[:16]} signed: somebody has changed it",
                hint="take the attestation from where the run left it, and trust no other",
            ) from error
