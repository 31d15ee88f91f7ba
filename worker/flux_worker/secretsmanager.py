"""Read settings from AWS Secrets Manager, `secretsmanager:NAME#KEY`, into memory only (R-CONFIG)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

PREFIX = "secretsmanager:"

# Errors that a retry does not fix; others, such as no network or no credentials yet, are transient.
_PERMANENT = {
    "AccessDeniedException": "this role may not read it (secretsmanager:GetSecretValue)",
    "DecryptionFailure": "its KMS key cannot be used with this role (kms:Decrypt)",
    "InvalidRequestException": "it is marked for deletion",
    "ResourceNotFoundException": "there is no such secret",
}


class SecretUnreadable(Exception):
    """A secret cannot be read; the message names its reference and never contains a part of it."""

    def __init__(self, reason: str, *, permanent: bool = True) -> None:
        super().__init__(reason)
        self.permanent = permanent


@dataclass
class Secrets:
    """Reads each secret of one region once. `region` is None if AWS_REGION is not set."""

    region: str | None
    _read: dict[str, dict[str, Any]] = field(default_factory=dict, init=False, repr=False)

    def value(self, reference: str) -> str:
        """The value of `secretsmanager:NAME#KEY`. Raises SecretUnreadable."""
        named = re.fullmatch(r"([^#\s]+)#([^#\s]+)", reference.removeprefix(PREFIX))
        if not named:
            raise SecretUnreadable("must name a secret and its key: secretsmanager:NAME#KEY")
        name, key = named.groups()
        if name not in self._read:
            self._read[name] = self._content(name)
        content = self._read[name]
        if key not in content:
            raise SecretUnreadable(f"the secret has no key {key}; it has: {', '.join(sorted(content))}")
        return str(content[key])

    def _content(self, name: str) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        try:
            answer = self._client.get_secret_value(SecretId=name)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            reason = _PERMANENT.get(code, f"AWS says {code}")
            raise SecretUnreadable(f"{reason} in {self.region}", permanent=code in _PERMANENT) from None
        except (BotoCoreError, ResponseParserError) as error:  # the latter if a proxy answers
            raise SecretUnreadable(f"cannot be read now: {error}", permanent=False) from None
        return _json_object(answer.get("SecretString", ""))

    @cached_property
    def _client(self) -> SecretsManagerClient:
        if not self.region or is_reference(self.region):
            raise SecretUnreadable("AWS_REGION itself must be set to read a secret")
        import boto3
        from botocore.config import Config

        config = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard"})
        client: SecretsManagerClient = boto3.client("secretsmanager", region_name=self.region, config=config)
        return client


def _json_object(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise SecretUnreadable('the secret is not a JSON object: store it as {"KEY": "value"}')
    return content


def is_reference(value: str) -> bool:
    """Whether the value refers to Secrets Manager."""
    return value.startswith(PREFIX)


def resolve_references(
    values: Mapping[str, str], region: str | None
) -> tuple[dict[str, str], dict[str, SecretUnreadable]]:
    """Read every value that is a reference; returns the values read and the errors, both by name."""
    secrets = Secrets(region)
    read: dict[str, str] = {}
    failed: dict[str, SecretUnreadable] = {}
    for name, value in values.items():
        if not is_reference(value):
            continue
        try:
            read[name] = secrets.value(value)
        except SecretUnreadable as reason:
            failed[name] = reason
    return read, failed
