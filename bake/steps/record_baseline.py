"""Record what the base AMI brought, before anything is written to the machine.

The programs are those that the checks run at the end (bake/checks/probes), so what they find can be compared.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from bake.checks.baseline import CALLED, RECORDED, Baseline
from bake.checks.probes import probe
from bake.planning.plan import Plan
from bake.run import Run
from bake.ssh import Session
from bake.ssh.program import facts

KEPT = "baseline.json"
SEARCH = 20.0  # seconds that the search for keys takes at most; of a disk that is cold it may see a part
# The seconds each program may take. What it finds of each kind:
LIMITS = {"system": 20, "rights": 25, "packages": 30, "secrets": 30}
KINDS: dict[str, tuple[str, ...]] = {
    "system": ("listening", "with_password", "swap", "hf_home", "failed_units"),
    "rights": ("setuid", "users", "authorized_keys"),
    "packages": ("changed_python", "unsound_packages"),
    "secrets": ("private_keys", "aws_keys", "hf_tokens", "hf_token_files"),
}
CREDENTIALS = ("aws_keys", "hf_tokens", "hf_token_files")  # each of them is said aloud


def record_baseline(session: Session, plan: Plan, run: Run) -> Baseline:
    """Look at the machine as it came. What could not be recorded is said, and fails nothing by itself."""
    run.progress.status("recording what the base AMI brought")
    salt = secrets.token_hex(16)
    given = {
        "salt": salt,
        "packages": plan.system.packages,
        "system_python": plan.system.python,
        "token": None,
        "cache": plan.weights.cache,
        "seconds": SEARCH,
    }
    told = {name: _ask(session, name, given, limit) for name, limit in LIMITS.items()}
    # One that is to be started again may be a failed one by the time of the checks.
    if failing := told["system"].get("failing_units"):
        told["system"]["failed_units"] = dict.fromkeys(failing, "")
    unknown = [kind for name, facts in told.items() for kind in KINDS[name] if kind in _missing(facts, name)]
    found = {kind: facts[kind] for name, facts in told.items() for kind in KINDS[name] if kind in facts}
    baseline = Baseline(told["system"].get("now", 0.0), found, tuple(unknown), salt)
    run.keep(KEPT, json.dumps(baseline.as_dict(), indent=2, sort_keys=True) + "\n")
    _tell(baseline, run)
    return baseline


def _missing(facts: Mapping[str, Any], name: str) -> set[str]:
    return set(KINDS[name]) - set(facts) | set(facts.get("unfinished", ()))


def _ask(session: Session, name: str, given: Mapping[str, Any], seconds: int) -> dict[str, Any]:
    """The facts of one program; none where it fails or takes too long."""
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
