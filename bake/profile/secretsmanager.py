"""Values from Secrets Manager in AWS_REGION (R-REGIONS): read when a profile names them, kept nowhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from bake.aws import Aws, error_code
from bake.errors import BakeError


def reader(variables: Mapping[str, str]) -> Callable[[str, str], str]:
    """What reads NAME, KEY; it says why it can't with a BakeError, never with a part of a secret."""
    clients: dict[str, Aws] = {}

    def read(name: str, key: str) -> str:
        region = variables.get("AWS_REGION")
        if not region:
            raise BakeError("the variable AWS_REGION is not set")
        aws = clients.setdefault(region, Aws(region=region, worker_region=region))
        return value(aws, name, key)

    return read


def value(aws: Aws, name: str, key: str) -> str:
    """One key of a secret that is a JSON object, as `aws secretsmanager` and the console store it."""
    try:
        answer = aws.secretsmanager.get_secret_value(SecretId=name)
    except Exception as error:
        code = error_code(error)
        if code == "ResourceNotFoundException":
            raise BakeError(f"there is no secret {name} in {aws.worker_region}") from None
        if type(error).__module__.startswith("botocore"):
            raise BakeError(f"AWS says {code or error}") from None
        raise
    try:
        content = json.loads(answer["SecretString"])
    except (KeyError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise BakeError(f"the secret {name} is not a JSON object", hint='store it as {"KEY": "value"}')
    if key not in content:
        raise BakeError(f"the secret {name} has no key {key}", hint=f"it has: {', '.join(sorted(content))}")
    return str(content[key])
