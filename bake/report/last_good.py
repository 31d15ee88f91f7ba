"""Find the last good image of the same profile among the runs beside this one, and compare."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bake.report.difference import difference
from bake.report.model import Changes, Report
from bake.report.run_directory import LARGEST

LOOKED_AT = 40  # reports of other runs, newest first


def since_last_good(report: Report, directory: Path) -> tuple[Changes | None, str]:
    """What changed since then; or None, and why there is nothing to compare with."""
    where = f"good image of {report.run.profile} in {report.venue.name} among the runs beside this one"
    if not report.inventories:
        return None, "this run came to no inventory, so there is nothing to compare"
    for other in _earlier(directory):
        same = (other.run.profile, other.venue.name) == (report.run.profile, report.venue.name)
        if same and other.verdict.state == "good" and other.image is not None:
            return difference(other, report), f"compared with {other.image.id} of run {other.run.id}"
    return None, f"there is no earlier {where}"


def _earlier(directory: Path) -> Iterator[Report]:
    """Reports of runs that began before this one, newest first: names of runs sort by time."""
    try:
        names = sorted((one.name for one in directory.parent.iterdir()), reverse=True)
    except OSError:
        return
    looked = 0
    for name in names:
        file = directory.parent / name / "report.json"
        if name >= directory.name or looked >= LOOKED_AT:
            continue
        try:
            if file.stat().st_size <= LARGEST:
                looked += 1
                yield Report.model_validate_json(file.read_bytes())
        except (OSError, ValueError):
            continue  # an old, a cut or somebody else's run
