"""Make a run's report of what the run directory holds, however far the run came.

Nothing is asked: the steps have left their facts. A file that is torn or holds something else than a run
writes costs its part of the report, which says so in a note.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from bake import costs
from bake.checks.inventory import Inventory
from bake.checks.result import Check, Waiver
from bake.errors import UsageError
from bake.report import check_facts, content, last_good, meant, readied, timeline
from bake.report.image_facts import base_facts, image_facts
from bake.report.meant import Intended
from bake.report.model import (
    Agreement,
    Attestation,
    Changes,
    ColdStart,
    Cost,
    Log,
    Note,
    Publication,
    Report,
    RunFacts,
    Scan,
    Venue,
    Verdict,
)
from bake.report.run_directory import RunDirectory
from bake.report.scan import FILE as SCAN
from bake.report.verdict import Ending, ending, first_line, verdict

MOMENTS = ("base", "sealed", "booted")
ATTESTATION = "facts/attestation.json"
COLD_START = "facts/cold-start.json"
UPDATES = "facts/updates.json"
TAIL, LINES = 8000, 60  # of a log: bytes and lines
OLD = "this run was made by an older bake: manifest.json and junit.xml have its checks"


def collect(directory: Path) -> Report:
    """The report of a run; raises UsageError if the directory is none of a run's."""
    run = RunDirectory(directory.absolute())
    if run.journal is None and not run.plan:
        raise UsageError(
            f"{directory} is not a run directory: it has neither a journal nor a plan",
            hint="bake runs --all lists the runs",
        )
    image, end = run.json("facts/image.json"), ending(run.events, run.journal)
    ran = check_facts.checks(run)
    facts = _run(run)
    came_to = run.part("the verdict", lambda: verdict(end, image, ran), _unknown())
    report = Report(
        venue=_venue(run),
        verdict=came_to,
        run=facts,
        image=run.part("facts/image.json", lambda: image_facts(image), None),
        base=run.part("the base AMI in plan.json", lambda: base_facts(run.plan), None),
        agreement=run.part("facts/agreement.json", lambda: _agreement(run), None),
        publication=run.part("facts/publication.json", lambda: _publication(run), ()),
        checks=_checks(run, ran, facts.command, came_to, end),
        waivers=run.part("the waivers in plan.json", lambda: _waivers(run), ()),
        changed_on_machine=run.part("facts/intended.json", lambda: _changed(run), None),
        inventories=_inventories(run),
        pictures=content.pictures(run),
        weights=run.part("the weights", lambda: content.weights(run), None),
        trace=run.part("facts/trace.json", lambda: content.trace(run), None),
        compiled=run.part(readied.COMPILED, lambda: readied.compiled(run), None),
        unused_libraries=run.part(readied.LIBRARIES, lambda: readied.libraries(run), None),
        disk=run.part("the disk", lambda: content.disk(run), ()),
        timeline=run.part("events.jsonl", lambda: timeline.spans(run.events), ()),
        cold_start=run.part(COLD_START, lambda: _cold_start(run), None),
        cost=run.part("the journal", lambda: _cost(run, came_to), None),
        attestation=run.part(ATTESTATION, lambda: _attestation(run), None),
        warnings=run.part("plan.json", lambda: tuple(map(str, run.plan.get("warnings", ()))), ()),
        scan=run.part(SCAN, lambda: Scan.model_validate(run.json(SCAN)) if run.json(SCAN) else None, None),
        logs=_logs(run),
        plan=run.plan,
    )
    return _finished(report, run)


def _finished(report: Report, run: RunDirectory) -> Report:
    """Compare with the last good image, and add what could not be read."""
    changes, why = run.part(
        "the last good image", lambda: last_good.since_last_good(report, run.path), (None, "")
    )
    notes = run.part("the notes", lambda: timeline.notes(run.events), ())
    old = [OLD] if (run.path / "manifest.json").exists() and not report.checks else []
    more = tuple(Note(text=text, warning=True) for text in (*old, *dict.fromkeys(run.problems)))
    told = {"since_last_good": changes, "last_good": why or None, "notes": (*notes, *more)}
    return report.model_copy(update=told)


def _unknown() -> Verdict:
    return Verdict(state="unfinished", sentence="nobody can tell how it ended: its files are not a run's")


def _run(run: RunDirectory) -> RunFacts:
    journal, known = run.journal, run.json("facts/identity.json")
    begun: Mapping[str, Any] = journal.begun if journal else {}
    entries = journal.entries if journal else ()
    times = [str(one["at"]) for one in entries if "at" in one]
    profile = run.plan.get("profile") or {}
    builder = profile.get("builder") if isinstance(profile, Mapping) else {}
    began = next((one for one in run.events if one["event"] == "began"), {})
    started = str(began.get("time") or next(iter(times), ""))
    ended = times[-1] if journal and journal.ended and times else None
    name = profile.get("name", "") if isinstance(profile, Mapping) else ""
    region = builder.get("region", "") if isinstance(builder, Mapping) else ""
    return RunFacts(
        id=run.path.name,
        command=str(begun.get("command") or known.get("command") or "bake"),
        attempts=journal.attempt if journal else 1,
        bake_version=str(known.get("bake_version") or "not recorded"),
        profile=str(begun.get("profile") or name),
        plan=str(begun.get("plan") or run.plan.get("id") or ""),
        account=_text(known.get("account")),
        region=str(known.get("region") or region),
        operator=_text(known.get("operator")),
        started=started,
        finished=ended,
    )


def _text(value: object) -> str | None:
    return str(value) if value else None


def _venue(run: RunDirectory) -> Venue:
    """Where it was baked. What does not say AWS is taken for a rehearsal: that proves less."""
    known = run.json("facts/identity.json")
    differences = known.get("differences") or run.plan.get("differences") or ()
    listed = tuple(map(str, differences)) if isinstance(differences, list) else ()
    if known.get("venue") in ("AWS", "REHEARSAL"):
        return Venue(name=known["venue"], differences=listed)
    real = run.journal is not None and run.journal.begun.get("rehearsal") is False
    return Venue(name="AWS" if real else "REHEARSAL", differences=listed)


def _checks(
    run: RunDirectory, ran: tuple[Check, ...], command: str, came_to: Verdict, end: Ending
) -> tuple[Check, ...]:
    """The checks that ran, and those that the run did not come to."""
    if not ran and not run.json("facts/identity.json"):
        return ()  # of an older bake, or one that ended before it began
    why = {
        "unfinished": "the run has not come to it",
        "good": "its results were not kept",
    }.get(came_to.state, f"the run ended before: {first_line(came_to.error or came_to.sentence)}")
    where = f" (in step {end.step})" if end.step and came_to.state not in ("good", "unfinished") else ""
    missing = check_facts.missing(run, command, f"{why}{where}")
    return check_facts.by_moment((*ran, *missing))


def _agreement(run: RunDirectory) -> Agreement | None:
    told = run.json("facts/agreement.json")
    return Agreement.model_validate(told) if told else None


def _attestation(run: RunDirectory) -> Attestation | None:
    told = run.json(ATTESTATION)
    return Attestation.model_validate(told) if told else None


def _cold_start(run: RunDirectory) -> ColdStart | None:
    told = run.json(COLD_START)
    return ColdStart.model_validate(told) if told else None


def _publication(run: RunDirectory) -> tuple[Publication, ...]:
    told = run.json("facts/publication.json").get("parts") or ()
    return TypeAdapter(tuple[Publication, ...]).validate_python(told)


def _waivers(run: RunDirectory) -> tuple[Waiver, ...]:
    profile = run.plan.get("profile") or {}
    return TypeAdapter(tuple[Waiver, ...]).validate_python(profile.get("waivers") or ())


def _inventories(run: RunDirectory) -> tuple[Inventory, ...]:
    found = (_inventory(run, moment) for moment in MOMENTS)
    return tuple(one for one in found if one is not None)


def _inventory(run: RunDirectory, moment: str) -> Inventory | None:
    name = f"facts/inventory-{moment}.json"

    def read() -> Inventory | None:
        told = run.json(name)
        return Inventory.model_validate(told["inventory"]) if told else None

    return run.part(name, read, None)


def _changed(run: RunDirectory) -> Changes | None:
    """What the bake changed: the disk before its seal, compared with the base AMI."""
    told = run.json("facts/intended.json")
    before, after = _inventory(run, "base"), _inventory(run, "sealed")
    if not told or before is None or after is None:
        return None
    updated = run.part(UPDATES, lambda: _updated(run), {})
    wanted = TypeAdapter(Intended).validate_python({**told, "updated": updated})
    return meant.on_machine(before, after, wanted)


def _updated(run: RunDirectory) -> dict[str, list[str]]:
    """Package -> the versions that its security update installed."""
    found: dict[str, list[str]] = {}
    for one in run.json(UPDATES).get("updated", ()):
        found.setdefault(str(one["package"]).partition(":")[0], []).append(str(one["new"]))
    return found


def _cost(run: RunDirectory, came_to: Verdict) -> Cost | None:
    """What the instances cost until the run's last word; the AMI's month only where there is one."""
    if run.journal is None:
        return None
    entries = [one for one in run.journal.entries if "at" in one]
    found = costs.of(entries, datetime.fromisoformat(entries[-1]["at"]))
    kept = found.kept_month if came_to.state in ("good", "unproven") else None
    return Cost(hours=round(found.hours, 4), dollars=found.dollars, kept_month=kept)


def _logs(run: RunDirectory) -> tuple[Log, ...]:
    """The ends of the logs, without those that are empty."""
    found = (run.part(name, partial(_log, run.path, name), None) for name in run.files("logs/**/*"))
    return tuple(one for one in found if one is not None)


def _log(directory: Path, name: str) -> Log | None:
    try:
        with (directory / name).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - TAIL, 0))
            text = file.read(TAIL).decode(errors="replace")
    except OSError as error:
        raise ValueError(str(error)) from error
    if not size:
        return None
    return Log(file=name, bytes=size, tail="\n".join(text.splitlines()[-LINES:]) + "\n")
