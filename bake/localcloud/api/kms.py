"""Signatures over a hash, which moto's KMS hashes once more.

https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html
"""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from moto.kms.exceptions import ValidationException
from moto.kms.responses import KmsResponse
from moto.kms.utils import RSAPrivateKey

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}


def install() -> None:
    """Let Sign take `MessageType=DIGEST`; to be called once."""
    of_moto = KmsResponse.sign

    def sign(self: Any) -> Any:
        told = of_moto(self)  # which checks the key and the algorithm
        if self._get_param("MessageType") != "DIGEST":
            return told
        answer = json.loads(told)
        key = self.kms_backend.describe_key(self._get_param("KeyId")).private_key
        signature = _signed(key, self._get_param("Message"), answer["SigningAlgorithm"])
        return json.dumps({**answer, "Signature": base64.b64encode(signature).decode()})

    KmsResponse.sign = sign


def _signed(key: Any, digest: bytes, algorithm: str) -> bytes:
    """Sign a digest as it is, with moto's key."""
    kind = _HASHES[algorithm[-3:]]
    if len(digest) != kind.digest_size:
        raise ValidationException(f"Digest is invalid length for algorithm {algorithm}.")
    if not isinstance(key, RSAPrivateKey):
        made: bytes = key.private_key.sign(digest, ec.ECDSA(Prehashed(kind)))
        return made
    pss = padding.PSS(mgf=padding.MGF1(kind), salt_length=kind.digest_size)
    of_rsa: bytes = key.private_key.sign(
        digest, pss if "PSS" in algorithm else padding.PKCS1v15(), Prehashed(kind)
    )
    return of_rsa
