"""Where the builder gets the pinned Python from: the mirror of the weights, then where it is made.

A builder that can't reach the internet gets it from the mirror, which the controller fills: that has the
rights, and the builder gets a presigned URL, which is a secret and travels by stdin.
"""

from __future__ import annotations

from bake import redaction
from bake.aws import Aws, call_errors, unanswered
from bake.errors import BakeError
from bake.interpreter import Archive
from bake.planning.plan import Plan
from bake.run import Run
from bake.weights.mirror import Mirror


def python_urls(plan: Plan, aws: Aws, run: Run) -> list[str]:
    """The URLs that the builder tries, in their order."""
    archive = plan.provision.interpreter
    mirrored = _mirrored(archive, plan, aws, run)
    return [*([mirrored] if mirrored else []), archive.url]


def _mirrored(archive: Archive, plan: Plan, aws: Aws, run: Run) -> str | None:
    """A presigned URL of the mirror's copy, which is put there first where it is not; None without one."""
    uri = plan.profile.weights.mirror
    if uri is None:
        return None
    try:
        mirror = Mirror.open(uri, aws)
        url = mirror.lend(archive.sha256)
        if url is None:
            mirror.add(archive.sha256, archive.fetch())
            url = mirror.lend(archive.sha256)
    except BakeError as error:
        run.progress.note(f"{archive.name} is not in the mirror: {error.message}")
        return None
    except call_errors() as error:
        run.progress.note(f"{archive.name} is not in the mirror: AWS answers {unanswered(error)}")
        return None
    if url is not None:
        redaction.register(url)
    return url
