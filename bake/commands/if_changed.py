"""`--if-changed`: tell whether a bake would make another image, and what changed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bake.aws import Aws, call_errors
from bake.errors import BakeError
from bake.progress import Progress, Tally
from bake.request import BakeRequest, ask_whether_changed

if TYPE_CHECKING:
    from bake.account.baked import Baked
    from bake.localcloud import LocalCloud
    from bake.planning.identity import Parts
    from bake.planning.rebuild import Decision
    from bake.report.model import Report
    from bake.updates.pending import Pending

OUTPUT = "GITHUB_OUTPUT"
"""The variable with the file that GitHub Actions reads a step's outputs from."""


def needs_no_bake(request: BakeRequest, cloud: LocalCloud | None, runs: Path, progress: Progress) -> bool:
    """Whether there is a good image of just what would be baked; all screens and GitHub Actions are told."""
    with progress.step("compare"):
        decision = decided(request, cloud, runs, progress.tally)
    text = f"changed: {decision.sentence}" if decision.changed else f"{decision.sentence}: nothing to bake"
    progress.emit("changed" if decision.changed else "unchanged", **decision.as_dict(), text=text)
    image = decision.image.id if decision.image and not decision.changed else ""
    output(
        progress,
        changed=str(decision.changed).lower(),
        image=image,
        plan=decision.plan or "",
        reason=decision.sentence,
    )
    return not decision.changed


def decided(request: BakeRequest, cloud: LocalCloud | None, runs: Path, tally: Tally) -> Decision:
    """Ask, and compare with the newest good image.

    Its report is looked for only where something changed, or where security updates count.
    """
    question = ask_whether_changed(request, cloud, tally)
    decision, image = question.decide(), question.standard
    if image is None or question.identity is None:
        return decision
    if decision.changed:
        return question.decide(recorded(image, runs, question.aws))
    if question.profile.rebuild.when_updates is None:
        return decision
    from bake.planning.rebuild import with_updates

    return with_updates(decision, updates(image, runs, question.aws, rehearsal=cloud is not None))


def updates(image: Baked, runs: Path, aws: Aws, *, rehearsal: bool) -> Pending:
    """The security updates that came out for an image, by what its report says that it holds."""
    from bake.updates.pending import Pending, pending

    taken = [one for report in reports(image, runs, aws) for one in report.inventories if one.packages]
    sealed = [one for one in taken if one.moment == "sealed"]
    newest = next(iter([*sealed, *taken]), None)
    if newest is None:
        return Pending(unknown=(f"security updates, as the report of {image.id} is not here",))
    if rehearsal and not newest.sources:
        return Pending(unknown=("security updates: the stand-in base of a rehearsal has no index of them",))
    return pending(newest)


def recorded(image: Baked, runs: Path, aws: Aws) -> Parts | None:
    """What an image was made of, by its report."""
    known = reports(image, runs, aws)
    plans = (report.plan for report in known if report.plan.get("id") == image.tags.get("bake:plan"))
    return next((plan["identity"] for plan in plans if _is_parts(plan.get("identity"))), None)


def reports(image: Baked, runs: Path, aws: Aws) -> list[Report]:
    """The reports of an image, newest first: of runs on this machine, or else where its tags name one."""
    from bake.report.kept import by_image, read
    from bake.report.places import REPORT_TAG, SHA256_TAG, download

    found = []
    for directory in by_image(runs).get(image.id, ()):
        with suppress(BakeError):  # of another version
            found.append(read(directory))
    url, sha256 = image.tags.get(REPORT_TAG, ""), image.tags.get(SHA256_TAG, "")
    if not found and url:
        with suppress(BakeError, OSError, *call_errors()):
            found.append(download(aws, url, sha256, runs.parent / "reports" / sha256[:16]))
    return found


def _is_parts(found: object) -> bool:
    return isinstance(found, Mapping) and all(isinstance(group, Mapping) for group in found.values())


def output(progress: Progress, **values: str) -> None:
    """Append a step's outputs for GitHub Actions, a line each; a later value of a name replaces this one.

    Nothing is done elsewhere; what can't be written is noted.
    """
    file = os.environ.get(OUTPUT)
    if not file:
        return
    lines = "".join(f"{name}={' '.join(value.split())}\n" for name, value in values.items())
    try:
        with Path(file).open("a", encoding="utf-8") as end:
            end.write(lines)
    except OSError as error:
        progress.note(f"{OUTPUT}={file} could not be written: {error.strerror or error}")
