"""Leave the hashes of the weights' ranges on the image: what a worker reads from S3 is checked by them."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bake.layout import RANGES
from bake.planning.plan import Plan
from bake.ssh import Session

FORMAT = 1
# Read by every user, written by root alone, and never half of it.
_WRITE = 'install -d "$1" && cat > "$2.new" && chmod 0644 "$2.new" && mv "$2.new" "$2"'


@dataclass
class Ranges:
    """What the downloader told: path in the repository -> the sha256 of each of its ranges."""

    range_bytes: int = 0
    files: dict[str, Sequence[str]] = field(default_factory=dict)

    def take(self, event: Mapping[str, Any]) -> None:
        """Take one of its events about a file."""
        self.range_bytes = event["range_bytes"]
        self.files[event["file"]] = event["sha256"]


def record_ranges(session: Session, plan: Plan, ranges: Ranges) -> None:
    """Write the manifest of the files that are served in bfloat16; that of int8 is written with its files."""
    lock = plan.weights.lock
    if plan.weights.model_dir is not None or lock is None or not ranges.files:
        return
    files = {
        path: {"bytes": lock.files[path].bytes, "sha256": lock.files[path].sha256, "ranges": list(hashes)}
        for path, hashes in sorted(ranges.files.items())
        if lock.files[path].sha256
    }
    manifest = {"format": FORMAT, "range_bytes": ranges.range_bytes, "files": files}
    content = (json.dumps(manifest) + "\n").encode()
    argv = ("sh", "-c", _WRITE, "sh", posixpath.dirname(RANGES), RANGES)
    session.run(*argv, stdin=content, sudo=True)
