"""Python programs for a machine that has nothing of the bake's yet: sent by stdin, they print facts as JSON.

A program uses the standard library alone (3.6), reads one JSON object from stdin and prints one as its last
line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from bake.layout import SYSTEM_PYTHON
from bake.ssh import CommandResult, Session

# Program and input both come by stdin, so neither stands in an argument list or a log.
_LOADER = """
import json, sys, types
for name, label, text in json.loads(sys.stdin.readline()):
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, label, "exec"), module.__dict__)
"""
TOO_LATE = (124, 137)
"""Exit codes of `timeout`."""


@dataclass(frozen=True)
class Program:
    """A program's modules: name, label in tracebacks, text. The last one runs, and may import the others."""

    modules: tuple[tuple[str, str, str], ...]

    @classmethod
    def read(cls, *files: Path | Traversable) -> Program:
        """Read its files; the last one is the program."""
        names = [file.name.removesuffix(".py") for file in files]
        called = [*names[:-1], "__main__"]
        texts = [file.read_text(encoding="utf-8") for file in files]
        labels = [f"<{name}>" for name in names]
        return cls(tuple(zip(called, labels, texts, strict=True)))

    def command(self, python: str = SYSTEM_PYTHON) -> list[str]:
        """The command that reads program and input from stdin."""
        return [python, "-c", _LOADER]

    def stdin(self, given: Mapping[str, Any]) -> bytes:
        """What that command reads."""
        return f"{json.dumps(self.modules)}\n{json.dumps(given)}".encode()

    def run(self, session: Session, given: Mapping[str, Any], seconds: int) -> CommandResult:
        """Run it as root; it ends with one of TOO_LATE where it takes longer than `seconds`."""
        limit = ("timeout", "--kill-after=5", str(seconds))
        return session.run(*limit, *self.command(), stdin=self.stdin(given), sudo=True, check=False)


def facts(stdout: str) -> dict[str, Any]:
    """The object that a program printed; a shell or a library may print, too. ValueError without one."""
    lines = [line for line in stdout.splitlines() if line.startswith("{")]
    found: dict[str, Any] = json.loads(lines[-1] if lines else "")
    return found
