"""Send a program to a machine that has nothing of the bake's yet, and read the facts that it prints.

The programs are the modules in `provision/fit`; they use the standard library alone and run under any Python
from 3.6 on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bake.errors import BakeError
from bake.resources import PROVISION
from bake.ssh import Session

# Programs and input both come by stdin, so neither stands in an argument list or a log.
_LOADER = """
import json, sys, types
for name, text in json.loads(sys.stdin.readline()):
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, "<" + name + ">", "exec"), module.__dict__)
"""
_TOO_LATE = (124, 137)  # what `timeout` exits with


def run(session: Session, *modules: str, given: Mapping[str, Any], seconds: int) -> dict[str, Any]:
    """Run the last of `modules` as root with `given` as its input; the others are what it imports.

    Raises BakeError where it has not answered after `seconds`, RemoteCommandError where it failed.
    """
    names = [*modules[:-1], "__main__"]
    files = [(PROVISION / "fit" / f"{module}.py").read_text(encoding="utf-8") for module in modules]
    stdin = json.dumps(list(zip(names, files, strict=True))) + "\n" + json.dumps(given)
    limit = ("timeout", "--kill-after=5", str(seconds))
    done = session.run(*limit, "python3", "-c", _LOADER, stdin=stdin.encode(), sudo=True, check=False)
    if done.exit_code in _TOO_LATE:
        raise BakeError(
            f"the builder did not say within {seconds} s what its disks hold ({modules[-1]}.py)",
            hint="does the base AMI mount a network's file system that does not answer, or is a disk broken?",
        )
    # A shell may print as well, before and after: the facts are the last object.
    told = [line for line in done.check().stdout.splitlines() if line.startswith("{")]
    facts: dict[str, Any] = json.loads(told[-1])
    return facts
