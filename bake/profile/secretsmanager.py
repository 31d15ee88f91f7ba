"""Read values from Secrets Manager in AWS_REGION (R-REGIONS) when a profile names them; keep them nowhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from bake import redaction
from bake.aws import Aws
from bake.aws_errors import explain, redacted
from bake.errors import BakeError
from bake.profile.patterns import PUBLIC
from bake.retries import error_code


def reader(variables: Mapping[str, str]) -> Callable[[str, str], str]:
    """A function that reads NAME, KEY; its BakeError never holds a part of a secret."""
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
        if (known := explain(error)) is not None:
            raise BakeError(f"AWS says {redacted(code or str(error))}", hint=known[1]) from None
        raise
    try:
        content = json.loads(answer["SecretString"])
    except (KeyError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise BakeError(f"the secret {name} is not a JSON object", hint='store it as {"KEY": "value"}')
    if key not in content:
        raise BakeError(f"the secret {name} has no key {key}", hint=f"it has: {', '.join(sorted(content))}")
    found = content[key]
    if not isinstance(found, str | int) or isinstance(found, bool):
        raise BakeError(f"{key} in the secret {name} is not text")
    if not PUBLIC.fullmatch(str(found)):
        redaction.register(str(found))
    return str(found)
