"""EBS's encryption: keys, encryption by default, and what an encrypted volume may not become.

Disks are not really encrypted; what EC2 says of them, and refuses because of it, is as on EC2.
https://docs.aws.amazon.com/ebs/latest/userguide/work-with-ebs-encr.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend
from moto.kms.models import kms_backends

INACCESSIBLE = "Given key ID is not accessible"


@dataclass(frozen=True)
class Encryption:
    """Whether a new volume or copy is encrypted, and with which key.

    `problem` says why the key can't be used. EC2 notices that after it has answered: what was to be encrypted
    with it fails.
    """

    key: str | None = None
    problem: str = ""

    @property
    def on(self) -> bool:
        return self.key is not None


class EbsEncryption(EC2Backend):  # type: ignore[misc]
    """The encryption settings of a region, for its backend."""

    ebs_encryption_by_default: bool

    def default_key(self) -> str:
        """The ARN of the region's key for volumes: its own of the account, or AWS's aws/ebs."""
        if not self.default_kms_key_id:
            self._create_default_encryption_key()
        return str(self.default_kms_key_id)

    def modify_ebs_default_kms_key_id(self, kms_key_id: str) -> str:
        """As moto's, which fails on a key that there is not."""
        key, problem = self._found(kms_key_id)
        if problem or key is None:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Value ({kms_key_id[:200]}) for parameter KmsKeyId is invalid. {problem}",
            )
        self.default_kms_key_id = key
        return key

    def reset_ebs_default_kms_key_id(self) -> str:
        """Go back to AWS's own key."""
        return str(self._create_default_encryption_key())

    def encryption(
        self, encrypted: bool | None, key: str | None, source: Any = None, *, as_source: bool = True
    ) -> Encryption:
        """Decide what a new volume, or a copy of the snapshot `source`, is encrypted with; or refuse it.

        What is made of something encrypted is encrypted, with its key unless another is named; a copy in
        another region (not `as_source`) with the region's.
        """
        of_source = source is not None and source.encrypted
        if not (encrypted or of_source or self.ebs_encryption_by_default):
            if key:
                raise EC2ClientError(
                    "InvalidParameterDependency",
                    "The parameter KmsKeyId requires the parameter Encrypted to be set.",
                )
            return Encryption()
        if key:
            found, problem = self._found(key)
            return Encryption(found or key, problem)
        if of_source and as_source:
            return Encryption(source.kms_key_id or self.default_key())
        return Encryption(*self._found(self.default_key()))

    def is_default(self, key: str | None) -> bool:
        """Whether a key is AWS's own for EBS, which nobody can be given rights on."""
        if key is None:
            return False
        kms = kms_backends[self.account_id][self.region_name]
        return any("alias/aws/ebs" in one.aliases for one in kms.keys.values() if key in (one.arn, one.id))

    def _found(self, named: str) -> tuple[str | None, str]:
        """The ARN of a key, by its id, alias or ARN, and why it can't be used."""
        if named.startswith("arn:") and f":kms:{self.region_name}:" not in named:
            return None, INACCESSIBLE
        try:
            key = kms_backends[self.account_id][self.region_name].describe_key(named)
        except (JsonRESTError, KeyError, AttributeError):  # moto looks no further than its dictionaries
            return None, INACCESSIBLE
        usable = key.enabled and key.key_state == "Enabled" and key.key_spec == "SYMMETRIC_DEFAULT"
        return str(key.arn), "" if usable else INACCESSIBLE


def check_shared(backend: Any, snapshots: list[Any], code: str, message: str, permissions: Any) -> None:
    """Refuse to let others use what is encrypted with AWS's own key, or to make public what is encrypted."""
    if not permissions:
        return
    for snapshot in snapshots:
        if backend.is_default(snapshot.kms_key_id):
            raise EC2ClientError(code, message)
        if snapshot.encrypted and any("Group" in one for one in permissions):
            raise EC2ClientError(
                "InvalidParameterValue", f"{snapshot.id} is encrypted: it can't be made public"
            )
