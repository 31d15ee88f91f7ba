"""docs/chaos.md, made from outcomes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .cells import CUTS, FAULTS, Cell, calls, steps
from .forks import Forks

Key = tuple[str, str, str]
MARKS = {"ok": "ok", "red": "**red**", "not run": "not run", "does not apply": "–"}
HEAD = """# Where a bake was cut

Made by `make chaos` (`tests/rehearsal/chaos`); don't edit. Each cell is one rehearsal of g6e-ubuntu that was
cut, from a copy of the local cloud as it was when the step began; on a spot builder with a reaper, where the
cut or the call is theirs alone. It is ok if the exit code and the message are true, what is left is named,
`bake resume` ends with a good AMI where a run can go on, and one sweep past the expiry leaves nothing of the
bake in the API or on the host, and each good or unproven AMI.
"""


OUTCOMES = Path(__file__).with_name("outcomes.jsonl")
MADE = Path(__file__).with_name("bake.json")
PAGE = Path(__file__).parents[3] / "docs/chaos.md"


def page() -> str:
    """What docs/chaos.md is to say: of the last bake's steps and calls, and all outcomes so far."""
    return render(read(OUTCOMES), Forks(**json.loads(MADE.read_text(encoding="utf-8"))))


def key(cell: Cell) -> Key:
    """What tells one cell from the others."""
    return cell.step, cell.cut, cell.call


def read(file: Path) -> dict[Key, dict[str, Any]]:
    """The last outcome of each cell."""
    found: dict[Key, dict[str, Any]] = {}
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            found[one["step"], one["cut"], one["call"]] = one
    return found


def render(outcomes: Mapping[Key, Mapping[str, Any]], made: Forks) -> str:
    """The page."""
    first, second = calls(made.calls, made.on_spot), steps(made.steps)
    parts = [HEAD, _figures([*first, *second], outcomes)]
    parts += ["## AWS calls\n", _table("call", first, tuple(FAULTS), outcomes)]
    parts += ["## Steps\n", _table("step", second, CUTS, outcomes)]
    parts += [_red([*first, *second], outcomes)]
    return "\n".join(part for part in parts if part)


def _verdict(cell: Cell, outcomes: Mapping[Key, Mapping[str, Any]]) -> str:
    if cell.why_not:
        return "does not apply"
    return str(outcomes[key(cell)]["verdict"]) if key(cell) in outcomes else "not run"


def _figures(cells: Sequence[Cell], outcomes: Mapping[Key, Mapping[str, Any]]) -> str:
    found = [_verdict(cell, outcomes) for cell in cells]
    counts = ", ".join(f"{found.count(kind)} {kind}" for kind in MARKS)
    return f"{len(cells)} cells: {counts}.\n"


def _table(
    head: str, cells: Sequence[Cell], columns: Sequence[str], outcomes: Mapping[Key, Mapping[str, Any]]
) -> str:
    rows: dict[str, dict[str, str]] = {}
    for cell in cells:
        name = f"{cell.call} ({cell.step})" if cell.call else cell.step
        rows.setdefault(name, {})[cell.cut] = MARKS[_verdict(cell, outcomes)]
    lines = [f"| {head} | {' | '.join(columns)} |", f"|{'---|' * (len(columns) + 1)}"]
    lines += [f"| {name} | {' | '.join(row[one] for one in columns)} |" for name, row in rows.items()]
    return "\n".join(lines) + "\n"


def _red(cells: Sequence[Cell], outcomes: Mapping[Key, Mapping[str, Any]]) -> str:
    lines = []
    for cell in cells:
        if _verdict(cell, outcomes) == "red":
            why = "; ".join(" ".join(one.split())[:300] for one in outcomes[key(cell)]["wrong"])
            lines.append(f"- {cell.row}, {cell.cut}: {why.replace('<', '&lt;')}")
    return "## Red\n\n" + "\n".join(lines) + "\n" if lines else ""
