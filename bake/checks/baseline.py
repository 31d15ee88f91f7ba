"""Findings of the base AMI itself, so that a check fails only for what the bake caused.

A finding has a name (a path, a unit, a port) and an identity: mode, owner and hash of a file, or the package
manager's message. A file of the base AMI that the bake changed counts as the bake's.
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
"""Kinds of findings that the checks judge -> names for people."""
RECORDED = {**CALLED, "users": "user", "authorized_keys": "authorised keys", "powers_off": "what powers off"}
"""All kinds that are recorded."""


SET = "set"
"""What a file says of a password."""


@dataclass(frozen=True)
class Baseline:
    """Findings on a fresh machine of the base AMI: kind -> name -> identity.

    `began` is the start of the record, by the machine's clock. `unknown` lists kinds that were not recorded
    completely; a file of such a kind is the base AMI's if its ctime is before `began`. `salt` makes hashes of
    passwords comparable within a run, and is never stored.
    """

    began: float = 0.0
    found: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    salt: str = field(default="", repr=False)

    def caused(
        self, kind: str, found: Mapping[str, str], changed: Mapping[str, float] | None = None
    ) -> dict[str, str]:
        """Return the findings that the base AMI did not have; `changed` has the ctimes of files."""
        return {name: one for name, one in found.items() if not self._brought(kind, name, one, changed or {})}

    def _brought(self, kind: str, name: str, identity: str, changed: Mapping[str, float]) -> bool:
        if kind in self.unknown and changed.get(name, self.began) < self.began:
            return True
        known = self.found.get(kind, {}).get(name)
        # A record that was read from a file has no salt, and no hashes of passwords.
        return known == identity or (known == SET and not self.salt and identity != "empty")

    def as_dict(self) -> dict[str, Any]:
        """Return it for the run directory, without keys and hashes of passwords."""
        found = {kind: dict(names) for kind, names in self.found.items()}
        opened = found.get("with_password", {})
        found["with_password"] = {name: one if one == "empty" else SET for name, one in opened.items()}
        return {"began": self.began, "unknown": list(self.unknown), "found": found}
