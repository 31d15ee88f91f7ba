"""A folder to schedule from."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bake.cli import main_group
from bake.errors import UsageError
from tests.bake.variables import VARIABLES

PROFILES = Path(__file__).parents[3] / "profiles"


@dataclass(frozen=True)
class Folder:
    """A folder with profiles and variables, in which `bake` is called."""

    path: Path

    def profile(self, name: str, text: str) -> str:
        """Add a profile; its name."""
        (self.path / "profiles" / f"{name}.yaml").write_text(text)
        return name

    def schedule(
        self, kind: str, *words: str, profiles: tuple[str, ...] = ("g6e-ubuntu",), planned: bool = False
    ) -> dict[str, Any]:
        """Call `bake schedule … --json`; without asking AWS for the plan, unless `planned`."""
        named = [word for name in profiles for word in ("--profile", name)]
        defaults = [] if "--hours" in words or planned else ["--hours", "3"]
        defaults += [] if "--cron" in words else ["--cron", "0 3 * * 1"]
        arguments = ["schedule", *named, "--as", kind, *defaults, *words, "--json"]
        done = CliRunner().invoke(main_group, arguments, catch_exceptions=False)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def refusal(self, kind: str, *words: str, **how: Any) -> UsageError:
        """The error of a call that is refused; nothing is written."""
        before = sorted(self.path.rglob("*"))
        with pytest.raises(UsageError) as caught:
            self.schedule(kind, *words, **how)
        assert sorted(self.path.rglob("*")) == before
        return caught.value


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """The folder, which is the current one; nothing of this process's own variables is set."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "profiles").mkdir()
    for file in PROFILES.glob("g*-ubuntu.yaml"):
        shutil.copy(file, tmp_path / "profiles")
    known = {
        **VARIABLES,
        "BAKE_REAPER_ROLE": "arn:aws:iam::123456789012:role/bake-reaper",
        "BAKE_SSH_FROM": "203.0.113.0/24",
    }
    lines = "".join(f"{name}={value}\n" for name, value in known.items())
    (tmp_path / ".env.local").write_text(lines)
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)
