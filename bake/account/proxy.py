"""Look for the program of `builder.proxy_command` on this machine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from bake.profile import Profile


@dataclass(frozen=True)
class Program:
    """A program by the name that the profile gives it, and where it is; None where it is not."""

    name: str
    path: str | None


def ask_program(profile: Profile) -> Program | None:
    """Return the program that leads to the builder; None if none is needed."""
    command = profile.builder.proxy_command
    return Program(command[0], shutil.which(command[0])) if command else None
