"""What `bake --profile` and `bake --profile --rehearse` do, once the command line is understood."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bake import plan as planning
from bake import run as runs_of
from bake.agreement import texts as agreement_texts
from bake.errors import BakeError
from bake.pipeline import bake
from bake.progress import Progress, choose_screen
from bake.proposal import Wish, cloud_of, lock_rehearsal, propose
from bake.release import summary


def bake_profile(name: str, *, directory: Path, env_file: Path, runs: Path, as_json: bool) -> None:
    """Bake on AWS."""
    _bake(Wish(name, directory, env_file), runs, as_json)


def rehearse_profile(name: str, *, directory: Path, env_file: Path, runs: Path, as_json: bool) -> None:
    """Bake on the local cloud, which is brought up for it unless it is up already."""
    _bake(Wish(name, directory, env_file, rehearsal=True), runs, as_json)


def _bake(wish: Wish, runs: Path, as_json: bool) -> None:
    with _progress(as_json) as progress, ExitStack() as stack:
        cloud = cloud_of(wish, stack, progress.note, progress)
        if cloud is not None:
            lock_rehearsal(wish, cloud, progress.note)
        with progress.step("plan"):
            proposal = propose(wish, cloud, progress.tally, baking=True)
        plan, aws = proposal.plan, proposal.aws
        run = runs_of.new(runs, progress)
        kept = {**planning.as_dict(plan), **agreement_texts.as_dict(proposal)}
        (run.directory / "plan.json").write_text(json.dumps(kept, indent=2) + "\n")
        progress.emit("plan", text=planning.as_text(plan), plan=planning.as_dict(plan))
        if proposal.agreement is None:
            progress.note(agreement_texts.without_agreement(wish))
        progress.emit("run", id=run.id, directory=str(run.directory))
        release = bake(plan, aws, run)
        text = summary(release, rehearsal=wish.rehearsal)
        progress.emit("released", image=release.image.id, directory=str(release.directory), text=text)


@contextmanager
def _progress(as_json: bool) -> Iterator[Progress]:
    progress = Progress(choose_screen(as_json=as_json))
    try:
        yield progress
    except BakeError as error:
        progress.emit("failed", message=error.message, hint=error.hint)
        raise
    finally:
        progress.close()
