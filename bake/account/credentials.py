"""Tell how long the credentials of whoever bakes live, as far as botocore knows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from bake.aws import Aws

# Where botocore found them (`method`), in words. https://boto3.amazonaws.com/v1/documentation/api/latest/guide/credentials.html
SOURCES = {
    "env": "the environment",
    "shared-credentials-file": "~/.aws/credentials",
    "config-file": "~/.aws/config",
    "assume-role": "a role that the profile takes",
    "assume-role-with-web-identity": "OIDC, a role taken with a web identity's token",
    "sso": "SSO",
    "login": "`aws login`",
    "custom-process": "the profile's credential_process",
    "iam-role": "the role of this instance",
    "container-role": "the role of this container",
}


@dataclass(frozen=True)
class Credentials:
    """Where they come from, and their end.

    `kind`: "static" have none; "renewed" get a new one from botocore in time; "fixed" end at `expires`;
    "unknown" are a session's, and nobody says when that ends.
    """

    kind: Literal["static", "renewed", "fixed", "unknown"]
    source: str
    expires: datetime | None = None


def ask_credentials(aws: Aws) -> Credentials | None:
    """Return what signs the calls to AWS; None where there is nothing, and in a rehearsal."""
    found = aws.credentials
    return None if found is None else read(found)


def read(found: Any) -> Credentials:
    """Read botocore's object, which has no public name for the end."""
    method = str(found.method)
    source, expires = SOURCES.get(method, method), getattr(found, "_expiry_time", None)
    if method == "env":  # what botocore would "renew" from there is the same text
        source = f"{source} ({'AWS_SESSION_TOKEN' if found.token else 'AWS_ACCESS_KEY_ID'})"
        if os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
            source += ", which goes before OIDC's token file"
        if expires is not None:
            return Credentials("fixed", source, expires)
    elif hasattr(found, "_refresh_using"):
        return Credentials("renewed", source, expires)
    return Credentials("unknown" if found.token else "static", source)
