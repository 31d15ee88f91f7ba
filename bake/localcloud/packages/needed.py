"""The Python packages that rehearsals need: check that they are installed, and download torch for the CPU."""

from __future__ import annotations

import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable
from importlib.machinery import PathFinder
from pathlib import Path

from bake import resources
from bake.errors import UsageError

NEEDED = ("moto", "pip", "torch", "diffusers", "transformers")
# PyTorch's index of CPU builds, a tenth of the size; no machine here has a GPU.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
ANSWERS_WITHIN = 3.0  # seconds
INSTALL = "install bake with its extra `local`: uv tool install --torch-backend=cpu './ami_bake-….whl[local]'"


def require_packages() -> None:
    """Raise UsageError if packages are missing, with the command that installs them."""
    missing = [name for name in NEEDED if not _installed(name)]
    if missing:
        raise UsageError(
            f"the local cloud needs Python packages that are not installed: {', '.join(missing)}",
            hint=INSTALL if resources.INSTALLED else "make rehearse installs them",
        )


def _installed(name: str) -> bool:
    """Whether a package can be imported.

    Not by importlib.util.find_spec: setuptools takes the look for pip as pip's start, and gives up its own
    distutils in this process (_distutils_hack), without which torch compiles nothing.
    """
    return sys.modules[name] is not None if name in sys.modules else PathFinder.find_spec(name) is not None


def download_cpu_torch(requirements: Iterable[str], python: str, target: Path) -> bool:
    """Download torch from PyTorch's CPU index into `target`; return False if that fails.

    pip then prefers this file: the version "2.13.0+cpu" is newer than "2.13.0".
    """
    torch = [one for one in requirements if one.startswith("torch==")]
    if not torch or not answers(f"{CPU_INDEX}/torch/"):
        return False
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input",
        "--only-binary=:all:", "--no-deps", f"--python-version={python}", f"--dest={target}",
        f"--index-url={CPU_INDEX}", *torch,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def answers(url: str, within: float = ANSWERS_WITHIN) -> bool:
    """Whether the URL can be read within so many seconds, including the look-up of its host."""
    found: list[bool] = []
    # A host look-up ignores the timeout, so it runs in a thread that nobody waits for.
    asking = threading.Thread(target=_ask, args=(url, within, found.append), daemon=True)
    asking.start()
    asking.join(within)
    return bool(found)


def _ask(url: str, timeout: float, tell: Callable[[bool], None]) -> None:
    try:
        with urllib.request.urlopen(url, timeout=timeout):  # noqa: S310 - a constant https URL
            tell(True)
    except (OSError, ValueError):
        return  # also what a proxy refuses: then torch comes from the configured index
