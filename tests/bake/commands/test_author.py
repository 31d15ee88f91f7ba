"""Who is recorded as the one who agreed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError

from bake.commands import approving
from bake.errors import BakeError


class _Caller:
    """Stands where AWS would: who the caller is."""

    def __init__(self, answer: str | Exception) -> None:
        self.sts = self
        self.answer = answer

    def get_caller_identity(self) -> dict[str, str]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return {"Arn": self.answer}


def test_the_author_is_gits_else_the_callers_arn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    caller: Any = _Caller("arn:aws:iam::123456789012:user/ada")
    assert approving.author(tmp_path, caller) == "arn:aws:iam::123456789012:user/ada"
    subprocess.run(["git", "config", "--global", "user.name", "Ada Löve"], check=True)
    assert approving.author(tmp_path, caller) == "Ada Löve"
    subprocess.run(["git", "config", "--global", "user.email", "ada@example.org"], check=True)
    assert approving.author(tmp_path, caller) == "Ada Löve <ada@example.org>"
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BakeError, match="nobody to record") as caught:
        approving.author(tmp_path, _Caller(NoCredentialsError()))  # type: ignore[arg-type]
    assert "git config" in str(caught.value.hint)
