"""Remove what the bake needs no more; a signal waits until everything is gone."""

from __future__ import annotations

from bake.run import Run
from bake.undo import Undo


def clean_up(undo: Undo, run: Run, name: str = "clean up", but: str | None = None) -> None:
    """Run all removals that are registered, except for those of the group `but`, as the step `name`."""
    with run.progress.step(name):
        undo.now(but)
