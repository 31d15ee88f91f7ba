"""The wheel of `ami-bake`, built as anybody builds it, and an environment that it is installed in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What BLOCKED names is as if it were not installed.
BLOCKER = """\
import os, sys

sys.modules.update(dict.fromkeys(os.environ.get("BLOCKED", "").split()))
"""


@dataclass(frozen=True)
class Installed:
    """A virtual environment that bake's wheel is installed in, and nothing of the checkout."""

    python: Path

    def run(
        self, *command: str, cwd: Path, env: Mapping[str, str] | None = None, blocked: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run `bake`, or another command of the environment's `bin`."""
        here = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "BLOCKED": blocked}
        places = {name: value for name, value in os.environ.items() if name.startswith("BAKE_")}
        return subprocess.run(
            [str(self.python.with_name(command[0])), *command[1:]],
            cwd=cwd,
            env={**here, **places, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )


def copy_checkout(target: Path) -> Path:
    """The checkout's files without what git ignores: what a fresh clone has."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if not name.startswith("tests/") and (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def build_wheel(source: Path, target: Path) -> Path:
    """Build the wheel of the project in `source`, offline, into `target`."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "315532800"}
    subprocess.run([*pip, "--wheel-dir", str(target), str(source)], check=True, env=environment)
    return next(target.glob("ami_bake-*.whl"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bake's wheel, built from a copy of the checkout."""
    place = tmp_path_factory.mktemp("wheel")
    return build_wheel(copy_checkout(place / "source"), place / "dist")


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel, installed for real; what it depends on is lent by the tests' environment.

    A folder that a .pth file names may lend packages, and its own .pth files count for nothing: the checkout,
    which is installed there as editable, is not found.
    """
    place = tmp_path_factory.mktemp("tool") / "venv"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--offline", "--python", sys.executable, str(place)], check=True)
    python = place / "bin" / "python"
    install = [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(python)]
    subprocess.run([*install, str(wheel)], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = place / "lib" / version / "site-packages"
    (packages / "_blocker.py").write_text(BLOCKER)
    (packages / "lent.pth").write_text(f"import _blocker\n{sysconfig.get_path('purelib')}\n")
    return Installed(python)
