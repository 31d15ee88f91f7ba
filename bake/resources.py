"""Where provisioning, locks, checks, example profiles and the worker are: in a checkout or in a wheel."""

from __future__ import annotations

import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# The folder that `import bake` finds bake in: the checkout, or site-packages.
IMPORTED_FROM = PACKAGE.parent
# setup.py copies the checkout's folders here while it builds a wheel; a checkout never has it.
_CARRIED = PACKAGE / "_data"

INSTALLED = _CARRIED.is_dir()
_HOME = _CARRIED if INSTALLED else IMPORTED_FROM

PROVISION = _HOME / "provision"
LOCKS = PROVISION / "locks"
CHECKS = PACKAGE / "checks"
EXAMPLES = _HOME / "profiles"
SCHEMA = EXAMPLES / "schema.json"
ENV_EXAMPLE = _HOME / ".env.example"
# Of bake alone, and with the local cloud and the tests.
LOCK = _HOME / "requirements" / "bake.txt"
# The worker's project in a checkout; of it a wheel holds what is read here, and the worker's wheel.
WORKER = _HOME / "worker"
MODEL_FACTS = WORKER / "flux_worker" / "model.json"  # what is known of FLUX.1-dev; in both


def worker_wheel() -> Path | None:
    """The worker's wheel that an installed bake carries; None in a checkout, which builds its own."""
    return next(WORKER.glob("flux_worker-*.whl")) if INSTALLED else None


def holds_agreement(file: Path) -> bool:
    """Whether a lock file says more than which weights there are: what was agreed is its owner's alone."""
    is_lock = file.name.endswith(".lock.yaml")
    return is_lock and bool(re.search(r"^(agreed|history):", file.read_text(encoding="utf-8"), re.MULTILINE))
