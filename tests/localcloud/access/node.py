"""Ask the programs of tests/localcloud/iam, which run by node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "iam"


def ask(program: str, questions: Any) -> Any:
    """The answer of a program to what is sent to it, both as JSON; skips where npm's packages are missing."""
    if not (FOLDER / "node_modules").is_dir() or shutil.which("node") is None:
        pytest.skip(
            "tests/localcloud/iam has no node_modules: make test installs them, or npm ci --ignore-scripts"
        )
    done = subprocess.run(
        ["node", program],
        input=json.dumps(questions),
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
