"""What a run's report says of who bakes what and where, known before the run begins."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from bake import git, retries
from bake.agreement.facts import Entry, shown
from bake.aws import Aws, call_errors
from bake.request import Proposal
from bake.run import Run

LOOK = 10.0  # seconds for asking AWS who asks
REHEARSED = (
    "the builder and the worker are containers on one machine, with its kernel and without a GPU",
    "the base AMI is a stand-in without drivers or CUDA",
    "the model is a tiny FLUX with random weights from a local Hub: its pictures are noise",
    "packages come from a local mirror, torch for the CPU",
    "the EC2 API is a local one (moto, strict as EC2): disks, network, quotas, prices and keys are its own",
)
"""docs/rehearsing.md has all of it, and so has the plan."""


def keep(proposal: Proposal, run: Run, command: str) -> None:
    """Keep `facts/identity.json` and `facts/agreement.json`; nothing of that fails the bake."""
    _keep(run, "identity", {"command": command, **identity(proposal)})
    _keep(run, "agreement", agreement(proposal))


def _keep(run: Run, name: str, told: Mapping[str, Any]) -> None:
    run.keep(f"facts/{name}.json", json.dumps(told, indent=1) + "\n")


def identity(proposal: Proposal) -> dict[str, Any]:
    """Who bakes, in which account, with what, and where; null where AWS does not tell."""
    venue, caller = proposal.plan.sources.venue, _caller(proposal.aws)
    return {
        "account": caller.get("Account"),
        "operator": caller.get("Arn"),
        "region": proposal.plan.profile.builder.region,
        "bake_version": version("ami-bake"),
        "venue": venue,
        "differences": list(REHEARSED) if venue == "REHEARSAL" else [],
    }


def _caller(aws: Aws) -> dict[str, Any]:
    """The caller, as AWS names it; whoever bakes needs no right for this call."""
    try:
        with retries.until(time.monotonic() + LOOK):
            return dict(aws.sts.get_caller_identity())
    except call_errors():
        return {}


def agreement(proposal: Proposal) -> dict[str, Any]:
    """Each fact that needs the user's agreement, and the history: who agreed to what, when and why."""
    request, agreed = proposal.request, proposal.agreement
    differing = {one.name for one in proposal.differences}
    free = request.rehearsal and agreed is None
    facts = [
        {
            "fact": name,
            "value": shown(value, name),
            "origin": origin,
            "state": "rehearsal" if free else "not agreed" if name in differing else "agreed",
        }
        for name, value, origin in proposal.guarded.rows()
    ]
    history = [_entry(one) for one in agreed.history] if agreed else []
    if agreed and history:
        commit, dirty = git.last_change(agreed.file.absolute())
        history[-1]["commit"] = f"{commit} dirty" if commit and dirty else commit
    return {"file": str(agreed.file) if agreed else None, "facts": facts, "history": history}


def _entry(entry: Entry) -> dict[str, Any]:
    changed = [f"{name}: {_change(one)}" for name, one in entry.changed.items()]
    return {"when": entry.when, "who": entry.who, "why": entry.why, "commit": None, "changed": changed}


def _change(one: Any) -> str:
    """One fact of a history, which is YAML that somebody may have written by hand."""
    if not isinstance(one, Mapping):
        return str(one)
    return f"{one['from']} -> {one.get('to')}" if "from" in one else str(one.get("to"))
