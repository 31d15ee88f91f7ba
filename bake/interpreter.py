"""The pinned Python that is installed if the base image has none of the right version (provision/locks)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from bake.errors import BakeError

PATIENCE = 60  # seconds to wait for its server


@dataclass(frozen=True)
class Archive:
    """A relocatable Python: a gzipped tar that holds `python/bin/pythonX.Y`. `name` is uv's name for it."""

    name: str
    url: str
    sha256: str

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    def fetch(self) -> bytes:
        """Download it; BakeError if that fails or the hash differs."""
        try:
            with urlopen(self.url, timeout=PATIENCE) as answer:  # noqa: S310 - the URL is a lock's
                content: bytes = answer.read()
        except (OSError, HTTPException) as error:
            raise BakeError(f"{self.name} can't be fetched from {self.host}: {error}") from error
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise BakeError(f"what {self.host} gave for {self.name} has another sha256: {found}")
        return content


def read(lock: Path) -> Archive:
    """Read the lock: a list in uv's form with one entry."""
    [(name, entry)] = json.loads(lock.read_text(encoding="utf-8")).items()
    return Archive(name, entry["url"], entry["sha256"])
