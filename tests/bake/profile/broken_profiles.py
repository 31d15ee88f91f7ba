"""Broken profiles, in tables: what each contains, and the exact message that it gets.

`profiles_broken/*.yaml` are the tables. An entry's key is the profile's name; its fields are
- `profile`, the text, or `bytes`, with one character a byte ("\\xFF"), where the file is no text;
- `message`: all that is printed, with paths relative to the profile's folder;
- `files`: other files, by name, that the profile extends. Most profiles extend `_good.yaml`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

TABLES = Path(__file__).parent / "profiles_broken"
GOOD = (TABLES / "_good.yaml").read_bytes()


@dataclass(frozen=True)
class BrokenProfile:
    """One entry of a table."""

    name: str
    message: str
    profile: str | None = None
    bytes: str | None = None
    files: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        """What stands in the file."""
        assert (self.profile is None) != (self.bytes is None), f"{self.name}: either profile or bytes"
        return self.profile.encode() if self.profile is not None else (self.bytes or "").encode("latin-1")

    def write(self, directory: Path) -> None:
        """Write the profile and what it extends."""
        (directory / "_good.yaml").write_bytes(GOOD)
        (directory / f"{self.name}.yaml").write_bytes(self.content)
        for name, text in self.files.items():
            (directory / name).write_text(text, encoding="utf-8")


def load() -> dict[str, BrokenProfile]:
    """All tables, by name; a name stands in one of them, once."""
    found: dict[str, BrokenProfile] = {}
    for table in sorted(TABLES.glob("[!_]*.yaml")):
        text = table.read_text(encoding="utf-8")
        entries = yaml.safe_load(text)
        # YAML takes the last of two equal keys: none may hide another.
        assert len(entries) == len(re.findall(r"^\S+:$", text, re.M)), table.name
        for name, entry in entries.items():
            assert name not in found, f"{table.name}: {name} stands in another table, too"
            found[name] = BrokenProfile(name, **entry)
    return found
