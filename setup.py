"""What pyproject.toml can't say: the wheel carries folders that stand beside the package."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.py[cod]", "build", "*.egg-info", ".*_cache")
CARRIED = ("provision", "profiles")
FILES = (
    ".env.example",
    "requirements/bake.txt",
    "requirements/controller.txt",
    "worker/flux_worker/model.json",
    "worker/pyproject.toml",
)
holds_agreement = runpy.run_path(str(ROOT / "bake" / "resources.py"))["holds_agreement"]
EPOCH = (
    "315532800"  # 1980, the first moment that a zip archive can name: the same bytes, whenever it is built
)


class BuildWithData(build_py):
    """Copies the folders into `bake/_data`; an editable install finds them in the checkout."""

    def run(self) -> None:
        """Build the package, then what it carries."""
        package = Path(self.build_lib) / "bake"
        if not self.editable_mode:
            shutil.rmtree(package, ignore_errors=True)  # modules of an earlier build, since moved or removed
        super().run()
        if not self.editable_mode:
            self._carry(package / "_data")

    def _carry(self, data: Path) -> None:
        for folder in CARRIED:
            shutil.copytree(ROOT / folder, data / folder, ignore=LEFT_OUT)
        for file in FILES:
            (data / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, data / file)
        for file in (data / "profiles").iterdir():
            if holds_agreement(file):
                self.warn(f"{file.name} is not carried: it holds what somebody agreed to")
                file.unlink()
        build_worker(data / "worker")


def build_worker(target: Path) -> None:
    """Build the worker's wheel into `target`, by the setuptools that runs here."""
    environment = {"SOURCE_DATE_EPOCH": EPOCH, **os.environ}
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch) / "worker"
        shutil.copytree(ROOT / "worker", project, ignore=LEFT_OUT)
        code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
        command = [sys.executable, "-c", code, str(target.resolve())]
        subprocess.run(command, cwd=project, env=environment, check=True, stdout=sys.stderr)


setup(cmdclass={"build_py": BuildWithData})
