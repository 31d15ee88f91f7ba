"""List the URLs of the pinned Python: the mirror of the weights, then its publisher.

A builder without internet access gets it from the mirror. The controller puts it there and hands the builder
a presigned URL, which is a secret and goes in by stdin.
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
    """Return the URLs that the builder tries, in order."""
    archive = plan.provision.interpreter
    mirrored = _mirrored(archive, plan, aws, run)
    return [*([mirrored] if mirrored else []), archive.url]


def _mirrored(archive: Archive, plan: Plan, aws: Aws, run: Run) -> str | None:
    """Return a presigned URL of the mirror's copy, uploading it if missing; None without a mirror."""
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
