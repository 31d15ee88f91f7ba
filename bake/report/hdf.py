"""A report in MITRE's Heimdall Data Format, which is InSpec's execution JSON.

Heimdall, `saf` and whatever reads InSpec's results read it. The schema is inspecjs's `exec-json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bake.checks.result import GROUPS
from bake.report.system import system
from bake.report.text import visible

if TYPE_CHECKING:
    from bake.checks.result import Check
    from bake.report.model import Report

IMPACT = {"critical": 0.9, "high": 0.7, "medium": 0.5, "low": 0.3}
"""InSpec's numbers for severities (https://docs.chef.io/inspec/dsl_inspec/); 0 says "not applicable"."""
STATUS = {
    "passed": "passed",
    "failed": "failed",
    "waived": "skipped",
    "not applicable": "skipped",
    "not run": "error",
}
LIMIT = 10_000
"""Characters of one text."""


def hdf(report: Report) -> str:
    """The checks as controls of one profile.

    Heimdall shows a failed check as Failed, a waived one and one that does not apply as Not Applicable, and
    one that was not run as Profile Error. A control's id has the moment, too: a check may look at several.
    """
    data = {
        "platform": _platform(report),
        "version": report.run.bake_version,
        "statistics": _statistics(report),
        "profiles": [_profile(report)],
        "passthrough": {"auxiliary_data": [{"name": "ami-bake", "data": _run(report)}]},
    }
    return json.dumps(_visible(data), indent=2, ensure_ascii=False) + "\n"


def _visible(value: Any) -> Any:
    """All texts of a document made harmless, the keys as they are: they are our own."""
    match value:
        case str():
            return visible(value, LIMIT)
        case list():
            return [_visible(one) for one in value]
        case dict():
            return {key: _visible(one) for key, one in value.items()}
    return value


def _platform(report: Report) -> dict[str, Any]:
    inventory = report.inventories[-1] if report.inventories else None
    found = system(inventory.os) if inventory else None
    return {
        "name": found.id if found else "unknown",
        "release": found.version if found else "unknown",
        "target_id": report.image.id if report.image else report.run.id,
    }


def _statistics(report: Report) -> dict[str, Any]:
    statuses = [STATUS[check.outcome] for check in report.checks]
    totals = {status: {"total": statuses.count(status)} for status in ("passed", "skipped", "failed")}
    return {"duration": round(sum(check.seconds for check in report.checks), 3), "controls": totals}


def _run(report: Report) -> dict[str, Any]:
    """What InSpec's format has no place for."""
    return {
        "venue": report.venue.model_dump(mode="json"),
        "verdict": report.verdict.model_dump(mode="json"),
        "run": report.run.model_dump(mode="json"),
        "image": report.image and report.image.id,
        "base": report.base and report.base.id,
    }


def _profile(report: Report) -> dict[str, Any]:
    run, verdict = report.run, report.verdict
    ids = _ids(report.checks)
    controls = [_control(id_, check, run.started) for id_, check in zip(ids, report.checks, strict=True)]
    about = json.dumps([check.about.model_dump(mode="json") for check in report.checks]).encode()
    return {
        "name": f"{report.venue.name} {run.profile}",
        "title": f"{report.venue.name}: the checks of {run.profile}, run {run.id}",
        "version": run.bake_version,
        "summary": verdict.sentence,
        "sha256": hashlib.sha256(about).hexdigest(),
        "supports": [],
        "attributes": [],
        "groups": _groups(ids, report.checks),
        "controls": controls,
        "status": "failed" if verdict.error else "loaded",
        "status_message": verdict.error or "",
    }


def _ids(checks: Sequence[Check]) -> list[str]:
    """Unique ids: readers take two controls of one id for one."""
    ids: list[str] = []
    for check in checks:
        name = f"{check.id}@{check.moment}"
        number = sum(other.partition("#")[0] == name for other in ids)
        ids.append(f"{name}#{number + 1}" if number else name)
    return ids


def _groups(ids: Sequence[str], checks: Sequence[Check]) -> list[dict[str, Any]]:
    found: dict[str, list[str]] = {group: [] for group in GROUPS}
    for id_, check in zip(ids, checks, strict=True):
        found[check.about.group].append(id_)
    return [{"id": group, "title": group, "controls": names} for group, names in found.items() if names]


def _control(id_: str, check: Check, started: str) -> dict[str, Any]:
    about = check.about
    file, _, line = about.source.rpartition(":")
    known = bool(file) and line.isdecimal()
    return {
        "id": id_,
        "title": about.title,
        "desc": check.reason if check.outcome == "not applicable" else about.rationale,
        "descriptions": _descriptions(check),
        "impact": 0.0 if check.outcome == "not applicable" else IMPACT[about.severity],
        "refs": [{"ref": f"docs/requirements.md: {requirement}"} for requirement in about.requirements],
        "tags": _tags(check),
        "code": "\n".join([f"# {about.source}", *(one.by for one in check.evidence)]),
        "source_location": {"ref": file, "line": int(line)} if known else {"ref": about.source, "line": None},
        "waiver_data": _waiver(check),
        "results": [_result(check, started)],
    }


def _descriptions(check: Check) -> list[dict[str, str]]:
    texts = {"rationale": check.about.rationale, "check": _evidence(check), "fix": check.about.remedy}
    if check.base:
        texts["base AMI"] = "\n".join(check.base)
    return [{"label": label, "data": text} for label, text in texts.items() if text]


def _tags(check: Check) -> dict[str, Any]:
    """No `nist`: inspecjs then says UM-1, unmapped, which is true."""
    about = check.about
    tags: dict[str, Any] = {
        "severity": about.severity,
        "requirements": list(about.requirements),
        "group": about.group,
        "moment": check.moment,
        "outcome": check.outcome,
    }
    return tags | ({"cis": about.cis} if about.cis else {})


def _waiver(check: Check) -> dict[str, Any]:
    """As InSpec has it; `message` has who approved it and the risk, for which InSpec has no field."""
    waiver = check.waiver
    if waiver is None:
        return {}
    ended = "" if check.outcome == "waived" else "ended: "
    return {
        "justification": waiver.reason,
        "expiration_date": waiver.until.isoformat(),
        "run": True,
        "skipped_due_to_waiver": check.outcome == "waived",
        "message": f"{ended}approved by {waiver.approved_by} until {waiver.until}; risk: {waiver.risk}",
    }


def _result(check: Check, started: str) -> dict[str, Any]:
    result: dict[str, Any] = {
        "status": STATUS[check.outcome],
        "code_desc": check.about.title,
        "run_time": check.seconds,
        "start_time": started,
    }
    match check.outcome:
        case "passed":
            return result | {"code_desc": f"{check.about.title}\n{_evidence(check)}"}
        case "failed" | "not run":
            return result | {"message": "\n".join(part for part in (check.reason, _evidence(check)) if part)}
        case "waived":
            why = check.waiver.reason if check.waiver else ""
            return result | {"skip_message": f"waived: {why}\n{check.reason}\n{_evidence(check)}"}
    return result | {"skip_message": check.reason}


def _evidence(check: Check) -> str:
    return "\n".join(f"expected {one.expected}; found {one.found}; by: {one.by}" for one in check.evidence)
