"""What the base AMI brought, so that a check fails for what the bake caused and not for what it met.

A finding is known by its name (a path, a unit, a port) and its identity: mode, owner and hash of a file,
what a package manager says of it. A file of the base's that the bake changed is the bake's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CALLED = {
    "failed_units": "failed unit",
    "listening": "open port",
    "with_password": "account that a password, or none, opens",
    "swap": "swap",
    "hf_home": "HF_HOME set by",
    "hf_tokens": "something like a Hugging Face token in",
    "hf_token_files": "stored Hugging Face token",
    "aws_keys": "AWS access key in",
    "private_keys": "private key",
    "changed_python": "file of the system's Python",
    "unsound_packages": "package manager says",
    "setuid": "program with another's rights",
}
"""Kinds of findings that the checks judge, as people call them."""
RECORDED = {**CALLED, "users": "user", "authorized_keys": "authorised keys"}
"""All that is recorded."""


@dataclass(frozen=True)
class Baseline:
    """What a fresh machine of the base AMI had: kind -> name -> identity.

    `began` is when the record began, by the machine's clock. `unknown` are the kinds that were not recorded,
    or not to the end; of these a file is the base's where its ctime is before
    `began`.
    `salt` keeps the hashes of passwords comparable within a run, and is kept nowhere.
    """

    began: float = 0.0
    found: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    salt: str = field(default="", repr=False)

    def caused(
        self, kind: str, found: Mapping[str, str], changed: Mapping[str, float] | None = None
    ) -> dict[str, str]:
        """What of these findings the base did not bring; `changed` has the ctimes of those that are files."""
        return {name: one for name, one in found.items() if not self._brought(kind, name, one, changed or {})}

    def _brought(self, kind: str, name: str, identity: str, changed: Mapping[str, float]) -> bool:
        if kind in self.unknown and changed.get(name, self.began) < self.began:
            return True
        return self.found.get(kind, {}).get(name) == identity

    def as_dict(self) -> dict[str, Any]:
        """For the run directory: no content of a key, and nothing of a password."""
        found = {kind: dict(names) for kind, names in self.found.items()}
        opened = found.get("with_password", {})
        found["with_password"] = {name: one if one == "empty" else "set" for name, one in opened.items()}
        return {"began": self.began, "unknown": list(self.unknown), "found": found}
