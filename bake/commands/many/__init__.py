"""Bake several profiles, each in a process of its own: signals and checks are a process's.

Each builder is an EC2 instance of its own, so that EC2 does the work and the controller mostly waits.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bake import run as runs_of
from bake.commands.ending import tell_end
from bake.commands.many.children import Child, Children
from bake.commands.many.screens import choose
from bake.commands.many.selection import Selection, select
from bake.commands.many.summary import summarize
from bake.errors import UsageError
from bake.progress import Progress

if TYPE_CHECKING:
    from bake.request import BakeRequest

# A bake on AWS is a process that waits; in a rehearsal its machines work on this host, too.
ON_AWS = 8


@dataclass(frozen=True)
class Asked:
    """What was asked for: profiles by name or all of them, how many at once, and how.

    `words` are the options of the command line that each bake gets, `request` is that of each of them but
    for the profile.
    """

    profiles: tuple[str, ...]
    everything: bool
    at_once: int | None
    as_json: bool
    words: tuple[str, ...]
    runs: Path
    request: BakeRequest


def bake_many(asked: Asked) -> int:
    """Bake them all; return the exit code of the most serious end.

    Raises UsageError with all that is wrong with the profiles, before anything is started.
    """
    environment = dict(os.environ)  # a rehearsal takes much out of this process's own
    found = _selected(asked)
    progress = Progress(choose(found.names, as_json=asked.as_json))
    try:
        for name, why in found.left_out.items():
            progress.emit("left_out", profile=name, text=f"left out: {why}")
        children = [Child(name, asked.words) for name in found.names]
        with ExitStack() as stack:
            _share_cloud(asked.request, found, stack, progress)
            Children(children, progress, environment).bake(asked.at_once or _fitting(asked.request))
        return summarize(children, found.left_out, progress)
    finally:
        progress.close()


def _selected(asked: Asked) -> Selection:
    """What is baked; what is wrong is an event, too, as of a single bake."""
    try:
        found = select(asked.request, asked.profiles, everything=asked.everything)
        runs_of.check_place(asked.runs)
        # Each bake tries the place and takes away what it made for that; with a folder there, it makes none.
        asked.runs.mkdir(parents=True, exist_ok=True)
    except UsageError as error:
        if asked.as_json:
            tell_end(Progress(choose((), as_json=True)), error)
        raise
    return found


def _fitting(request: BakeRequest) -> int:
    return max(1, os.cpu_count() or 1) if request.rehearsal else ON_AWS


def _share_cloud(request: BakeRequest, found: Selection, stack: ExitStack, progress: Progress) -> None:
    """Bring up the local cloud of all rehearsals before the first of them; it outlasts the last."""
    if request.rehearsal:
        from bake.request import local_cloud

        local_cloud(replace(request, profile=found.names[0]), stack, progress.note)
