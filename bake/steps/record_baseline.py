"""Record what the base AMI contains, before anything is written to the machine.

The checks run the same programs at the end (bake/checks/probes), so that the findings can be compared.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from functools import partial
from typing import Any

from bake.background import start
from bake.checks.baseline import CALLED, RECORDED, Baseline
from bake.checks.case_list import baseline_case
from bake.checks.cases import Cases
from bake.checks.probes import probe
from bake.layout import LEASE_UNIT
from bake.planning.plan import Plan
from bake.run import Run
from bake.ssh import Session
from bake.ssh.program import facts
from bake.steps.check_power import is_lease

KEPT = "baseline.json"
SHOWN = 12  # findings of a kind that its case shows
SEARCH = 20.0  # seconds for the search for keys, which on a cold disk covers only a part
# Seconds that each program may take, and the kinds of findings that it records.
LIMITS = {"system": 20, "rights": 25, "packages": 30, "secrets": 30, "power": 30}
KINDS: dict[str, tuple[str, ...]] = {
    "system": ("listening", "with_password", "swap", "hf_home", "failed_units"),
    "rights": ("setuid", "users", "authorized_keys"),
    "packages": ("changed_python", "unsound_packages"),
    "secrets": ("private_keys", "aws_keys", "hf_tokens", "hf_token_files"),
    "power": ("powers_off",),
}
CREDENTIALS = ("aws_keys", "hf_tokens", "hf_token_files")  # each one found is a warning


def record_baseline(session: Session, plan: Plan, run: Run, cases: Cases | None = None) -> Baseline:
    """Record the machine as it is. A note names what could not be recorded; that alone fails nothing."""
    run.progress.status("recording what the base AMI contains")
    salt = secrets.token_hex(16)
    given = {
        "salt": salt,
        "packages": plan.system.packages,
        "system_python": plan.system.python,
        "token": None,
        "cache": plan.weights.cache,
        "seconds": SEARCH,
        "lease": LEASE_UNIT,
    }
    asked = [(name, start(partial(_ask, session, name, given, limit))) for name, limit in LIMITS.items()]
    told = {name: answer.result() for name, answer in asked}
    # A unit that is about to be restarted may have failed by the time of the checks.
    if failing := told["system"].get("failing_units"):
        told["system"]["failed_units"] = dict.fromkeys(failing, "")
    if brought := told["power"].get("powers_off"):  # the lease is this builder's, and not the base's
        told["power"]["powers_off"] = {name: one for name, one in brought.items() if not is_lease(name)}
    unknown = [kind for name, facts in told.items() for kind in KINDS[name] if kind in _missing(facts, name)]
    found = {kind: facts[kind] for name, facts in told.items() for kind in KINDS[name] if kind in facts}
    baseline = Baseline(told["system"].get("now", 0.0), found, tuple(unknown), salt)
    run.keep(KEPT, json.dumps(baseline.as_dict(), indent=2, sort_keys=True) + "\n")
    _tell(baseline, run)
    if cases is not None:
        _record(baseline, cases)
    return baseline


def _record(baseline: Baseline, cases: Cases) -> None:
    """Make a case of each kind: whether it was recorded, and what the base AMI has of it."""
    programs = {kind: name for name, kinds in KINDS.items() for kind in kinds}
    for kind in RECORDED:
        with cases.case(baseline_case(kind)) as case:
            found = sorted(baseline.found.get(kind, {}))
            shown = ", ".join(found[:SHOWN]) + (
                f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            )
            case("recorded", shown or "none", f"the probe {programs[kind]}")
            if kind in baseline.unknown:
                case.untold = f"the probe {programs[kind]} did not answer in time, or not to the end"


def _missing(facts: Mapping[str, Any], name: str) -> set[str]:
    return set(KINDS[name]) - set(facts) | set(facts.get("unfinished", ()))


def _ask(session: Session, name: str, given: Mapping[str, Any], seconds: int) -> dict[str, Any]:
    """Return the facts of one program; empty if it fails or takes too long."""
    done = probe(name).run(session, given, seconds)
    try:
        return facts(done.stdout) if done.exit_code == 0 else {}
    except ValueError:
        return {}


def _tell(baseline: Baseline, run: Run) -> None:
    for name, kind in baseline.found.get("with_password", {}).items():
        if kind == "empty":
            run.progress.note(
                f"WARNING: the base AMI lets {name} in without any password; the image will, too"
            )
    for kind in CREDENTIALS:
        for name in baseline.found.get(kind, {}):
            run.progress.note(f"WARNING: the base AMI holds, and the image will: {CALLED[kind]} {name}")
    if baseline.unknown:
        called = ", ".join(RECORDED[kind] for kind in baseline.unknown)
        run.progress.note(f"not recorded of the base AMI, or not to the end: {called}")
