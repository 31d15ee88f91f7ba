"""Profiles and lock files as users have them today; nobody edits these when the code changes.

In the lock files `${NAME}` stands for what an account makes up: ids, and the worker's lock, which moves with
the worker.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
PROFILES = HERE / "profiles"
LOCKS = HERE / "locks"


def lock(kind: str, profile: str, values: Mapping[str, str]) -> str:
    """A lock file of `aws` or `rehearsal`, with the account's values in it."""
    text = (LOCKS / kind / f"{profile}.lock.yaml").read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value)
    assert "${" not in text
    return text


def agreement(profile: str, values: Mapping[str, str]) -> str:
    """The same of a rehearsal, without the weights' lock: the libraries that make the tiny FLUX write
    their versions into it."""
    text = lock("rehearsal", profile, values)
    return re.sub(r"^  weights\.repo:.*?(?=^  worker\.lock:)", "", text, flags=re.MULTILINE | re.DOTALL)
