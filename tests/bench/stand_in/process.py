"""Start the stand-in as a process of its own, and ask it for its figures."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Usage:
    """What the stand-in did so far: calls by operation, and its own CPU seconds; and its connections now."""

    calls: Counter[str]
    cpu_seconds: float
    connections: int

    def since(self, earlier: Usage) -> Usage:
        """What it did after `earlier`."""
        return Usage(self.calls - earlier.calls, self.cpu_seconds - earlier.cpu_seconds, self.connections)


@contextlib.contextmanager
def stand_in_server(latency_ms: str = "0") -> Iterator[str]:
    """The URL of a stand-in that ends with the block, and with this process."""
    command = [sys.executable, "-m", "tests.bench.stand_in", "--latency-ms", latency_ms]
    with subprocess.Popen(
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def usage(url: str) -> Usage:
    """The stand-in's figures so far."""
    with urllib.request.urlopen(f"{url}/figures", timeout=60) as answer:
        content = json.load(answer)
    return Usage(Counter(content["calls"]), content["cpu_seconds"], content["connections"])
