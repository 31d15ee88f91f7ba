"""Refuse values in a profile that are secret or differ between accounts (R-CONFIG)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bake.profile import fields, values
from bake.profile.variables import STORED
from bake.profile.yaml_source import Document, Path_
from bake.systems import ami_variable

# Values that are recognised wherever they stand, and the variable that usually holds them.
LITERALS = (
    ("a Hugging Face token", r"hf_[A-Za-z0-9]{10,}", "HF_TOKEN"),
    ("an AWS access key", r"\b(AKIA|ASIA)[A-Z0-9]{16}\b", None),
    ("an AMI id", r"\bami-[0-9a-f]{8,17}\b", "BASE_AMI_ID"),
    ("a subnet id", r"\bsubnet-[0-9a-f]{8,17}\b", "BAKE_SUBNET_ID"),
    ("a security group id", r"\bsg-[0-9a-f]{8,17}\b", "BAKE_SECURITY_GROUP_ID"),
    ("a VPC id", r"\bvpc-[0-9a-f]{8,17}\b", None),
    ("a URL", r"(?i:https?)://", None),
    ("an account id", r"(?<![\w.])[0-9]{12}(?![\w.])", "AWS_ACCOUNT_ID"),
)
SECRET = ("a Hugging Face token", "an AWS access key")


def report(document: Document) -> None:
    """Add a problem for each value of `document` that must come from the environment."""
    for path, value in _scalars(document.value, ()):
        extra = fields.extra_facts(path)
        what = _literal(value)
        refers = isinstance(value, str) and ("$" in value or value.startswith(STORED))
        bound = "variable" in extra and not extra["literal"] and value not in extra["literals"]
        if what or (bound and not refers and value is not None and path not in document.unread):
            _add(document, path, *(what or (None, None)))


def _add(document: Document, path: Path_, what: str | None, usual: str | None) -> None:
    variable = _variable(document, path, usual)
    known = f"${{{variable}}}" if variable else "${NAME}"
    says = f"{what} must come" if what else "must come"
    hint = f"write {known} here and set {variable or 'NAME'} in the environment or in .env.local"
    if path == ("builder", "instance_profile") and (wrong := _invalid_name(document.value)):
        says, hint = f"{wrong}; it must come", f"{hint}, to that name"
    if what in SECRET and path[:2] != ("weights", "token"):
        hint = "take it out, and revoke it if anybody may have seen it"
    document.unread.add(path)
    document.problem(path, f"{says} from the environment, not from the file", hint)


def _invalid_name(value: Any) -> str | None:
    """Why the instance profile's text is not a valid name, in a variable or in the file."""
    try:
        values.instance_profile(str(value["builder"]["instance_profile"]))
    except ValueError as error:
        return str(error)
    return None


def _variable(document: Document, path: Path_, usual: str | None) -> str | None:
    found: str | None = fields.extra_facts(path).get("variable") or usual
    if found != "BASE_AMI_ID":
        return found
    base = document.value.get("base")
    base = base if isinstance(base, dict) else {}
    return ami_variable(str(base.get("os")), str(base.get("accelerator")))


def _literal(value: Any) -> tuple[str, str | None] | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return next(((what, usual) for what, pattern, usual in LITERALS if re.search(pattern, str(value))), None)


def _scalars(value: Any, path: Path_) -> Iterator[tuple[Path_, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _scalars(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _scalars(item, (*path, index))
    else:
        yield path, value
