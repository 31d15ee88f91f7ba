"""What came of a run, in a sentence: from how it ended and from what became of its AMI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bake.checks.result import Check
from bake.journal import Record
from bake.report.model import Verdict
from bake.report.timeline import attempts, step_of

State = Literal["good", "bad", "unproven", "failed", "interrupted", "unfinished"]
LEFT = "left"


@dataclass(frozen=True)
class Ending:
    """What the events and the journal say of the run's end. `told` is its last `failed` or `interrupted`."""

    told: Mapping[str, Any]
    outcome: str | None
    step: str
    left: tuple[str, ...]
    kept: str = ""
    """The AMI that the journal says was kept."""

    @property
    def message(self) -> str:
        """What ended it; empty if it ended well."""
        if self.told.get("event") == "interrupted":
            return f"interrupted by {self.told.get('signal') or 'a signal'}"
        return str(self.told.get("cause") or self.told.get("message") or "")

    @property
    def interrupted(self) -> bool:
        """Whether a person or a system ended it."""
        return self.outcome == "interrupted" or self.told.get("event") == "interrupted"


def ending(events: Sequence[dict[str, Any]], journal: Record | None) -> Ending:
    """How the last attempt ended, as far as it could write that."""
    last = next(iter(attempts(events)[-1:]), [])
    told = next((one for one in reversed(last) if one["event"] in ("failed", "interrupted")), {})
    entries = journal.entries if journal else ()
    named = [str(one.get("why")) for one in entries if one["event"] == LEFT]
    left = told.get("left_behind")
    listed = [str(one) for one in left] if isinstance(left, list) else named
    outcome = journal.ended if journal else None
    kept = [str(one.get("what")) for one in entries if one["event"] == "kept"]
    image = next((what.split()[1] for what in reversed(kept) if what.startswith("AMI ami-")), "")
    step = step_of(last) or (journal.step if journal and outcome != "done" else "")
    return Ending(told, outcome, step, tuple(listed), image)


def verdict(end: Ending, image: Mapping[str, Any], checks: Sequence[Check]) -> Verdict:
    """The verdict; `image` is `facts/image.json`, empty if no AMI was finished."""
    state = _state(end, image)
    hint, code = end.told.get("hint"), end.told.get("exit_code")
    return Verdict(
        state=state,
        sentence=_sentence(state, end, image, checks),
        error=end.message or None,
        hint=str(hint) if hint else None,
        exit_code=code if isinstance(code, int) else 0 if end.outcome == "done" else None,
        left_behind=end.left,
    )


def _state(end: Ending, image: Mapping[str, Any]) -> State:
    known: dict[object, State] = {"good": "good", "bad": "bad", "unproven": "unproven"}
    if (state := known.get(image.get("state"))) is not None:
        return state
    if end.interrupted:
        return "interrupted"
    if end.outcome == "failed" or (end.told and end.outcome is not None):
        return "failed"
    return "good" if end.outcome == "done" else "unfinished"


def _sentence(state: State, end: Ending, image: Mapping[str, Any], checks: Sequence[Check]) -> str:
    facts = image.get("image")
    name = str(facts.get("id")) if isinstance(facts, Mapping) else end.kept or "the AMI"
    where = f" in step {end.step!r}" if end.step else ""
    why = first_line(end.message)
    failed = [one for one in checks if one.outcome == "failed"]
    match state:
        case "good":
            after = f"; after that the run failed: {why}" if why else ""
            return f"{name} is good: it booted and drew an image{after}"
        case "bad":
            gone = "could not be removed" if end.left else "was removed"
            return f"{name} is bad and {gone}: {why or 'its boot check failed'}"
        case "unproven":
            return f"{name} is kept, and unproven: {why or 'its boot check did not end'}"
        case "interrupted":
            return f"{why or 'interrupted'}{where}, so no AMI was made"
        case "failed" if failed:
            return f"{len(failed)} of {len(checks)} checks failed{where}, so no AMI was made"
        case "failed":
            return f"failed{where}, so no AMI was made: {why or 'nobody wrote why'}"
    return f"it has not ended: it goes on, or was cut{where}"


def first_line(text: str) -> str:
    """The first line of an error, without the colon that announces the others."""
    lines = text.strip().splitlines()
    return lines[0].rstrip(":") if lines else ""
