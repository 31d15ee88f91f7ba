"""What the resources of a template share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Resources = dict[str, dict[str, Any]]
# A stack that is deleted, or a template without it, leaves jobs, images and who listens to the bus alone.
KEPT = {"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}


def resource(kind: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """A resource of a type."""
    return {"Type": kind, "Properties": dict(properties)}


def only_encrypted(action: str, arns: list[Any]) -> dict[str, Any]:
    """A policy that refuses whoever comes without TLS."""
    statement = {
        "Sid": "OnlyEncrypted",
        "Effect": "Deny",
        "Principal": "*",
        "Action": action,
        "Resource": arns,
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}
