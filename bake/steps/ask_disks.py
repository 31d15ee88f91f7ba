"""Run a program of `provision/capacity` on the builder: it measures, frees or mounts disks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bake.errors import BakeError
from bake.resources import PROVISION
from bake.ssh import Session
from bake.ssh.program import TOO_LATE, Program, facts


def ask_disks(session: Session, *modules: str, given: Mapping[str, Any], seconds: int) -> dict[str, Any]:
    """Run the last of `modules` as root with `given` as its input; it may import the others.

    Raises BakeError where it does not answer within `seconds`, RemoteCommandError where it fails.
    """
    program = Program.read(*(PROVISION / "capacity" / f"{module}.py" for module in modules))
    done = program.run(session, given, seconds)
    if done.exit_code in TOO_LATE:
        raise BakeError(
            f"the builder did not say within {seconds} s what its disks hold ({modules[-1]}.py)",
            hint="does the base AMI mount a network's file system that does not answer, or is a disk broken?",
        )
    return facts(done.check().stdout)
