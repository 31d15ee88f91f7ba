"""Ask the kernel which NVIDIA driver is loaded."""

from __future__ import annotations

import re
from pathlib import Path

_FILE = Path("/proc/driver/nvidia/version")


def version() -> str | None:
    """The loaded driver's version, such as 580.95.05; None if none is loaded."""
    try:
        found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", _FILE.read_text())
    except OSError:
        return None
    return found[0] if found else "of unknown version"
