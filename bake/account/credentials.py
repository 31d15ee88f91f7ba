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
    """Read botocore's object, which has no public name for the end.

    The token of one that is renewed is not looked at: that would renew it.
    """
    method = str(found.method)
    source = SOURCES.get(method, method)
    if hasattr(found, "_refresh_using"):
        # What botocore would renew from the environment is the same text again.
        kind: Literal["fixed", "renewed"] = "fixed" if method == "env" else "renewed"
        return Credentials(kind, source, found._expiry_time)
    if method == "env" and os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        source += ", which goes before OIDC's token file"
    return Credentials("unknown" if found.token else "static", source)
