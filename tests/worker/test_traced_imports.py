"""What the bake records where no GPU is at hand: the imports of a start, held against those of a real one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import REVISION

pytestmark = pytest.mark.integration
IMPORTS = Path(__file__).parents[2] / "provision/tracing/imports.py"
# Of the command that draws into a file, which the service does not need.
COMMANDS = ("flux_worker.commands", "click._termui_impl", "tty")


def modules(tmp_path: Path, cache: Path, program: str, *words: str) -> set[str]:
    """The modules that a Python has imported when it ends."""
    file = tmp_path / "modules"
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "FLUX_MODEL_REVISION": REVISION}
    environment |= {"FLUX_BACKEND": "cpu", "HF_HUB_OFFLINE": "1", "MODULES": str(file)}
    done = subprocess.run(
        [sys.executable, "-c", program, *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(file.read_text().split())


TELL = """
import atexit, os, pathlib, runpy, sys
def tell():
    found = [name for name, module in list(sys.modules.items()) if getattr(module, "__file__", None)]
    pathlib.Path(os.environ["MODULES"]).write_text("\\n".join(found))
atexit.register(tell)
"""
DRAWS = TELL + "import flux_worker.serve, flux_worker.cli; flux_worker.cli.main()"
TRACED = TELL + "sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"


def test_a_recorded_start_imports_all_that_a_real_one_does(cache: Path, tmp_path: Path) -> None:
    (snapshot,) = cache.glob("*/snapshots/*")
    size = ("--width", "256", "--height", "256", "--steps", "1")
    drawn = modules(tmp_path, cache, DRAWS, "draw", "--prompt", "x", *size, "--out", str(tmp_path / "x.png"))
    traced = modules(tmp_path, cache, TRACED, str(IMPORTS), str(snapshot))
    assert len(drawn) > 1000
    assert {name for name in drawn - traced if not name.startswith(COMMANDS)} == set()
