"""Record what the machine holds: for the report, and to compare images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bake import layout
from bake.checks import inventory
from bake.checks.result import Moment
from bake.planning.plan import Plan
from bake.report import meant
from bake.run import Run
from bake.ssh import Session


def record_inventory(session: Session, plan: Plan, run: Run, moment: Moment) -> None:
    """Keep the inventory of a machine in `facts/inventory-MOMENT.json`; a gap in it fails nothing."""
    run.progress.status("recording what the machine holds")
    found, disk = inventory.take(
        session, moment, cache=plan.weights.cache, asked=meant.asked(plan.provision.settings)
    )
    told = {"inventory": found.model_dump(mode="json"), "disk": disk.model_dump(mode="json")}
    run.keep(f"facts/inventory-{moment}.json", json.dumps(told, indent=1) + "\n")


def record_intended(plan: Plan, run: Run, removed: Sequence[Mapping[str, Any]]) -> None:
    """Keep in `facts/intended.json` what the bake means to change; `removed` is what base.remove took."""
    locks = {layout.VENV: plan.sources.requirements.read_text(encoding="utf-8")}
    if plan.provision.drivers.compiled:
        locks[layout.NEURON_VENV] = plan.sources.neuron.read_text(encoding="utf-8")
    gone = [str(name) for one in removed for name in one["packages"]]
    told = asdict(meant.intended(plan.provision.settings, locks, gone))
    run.keep("facts/intended.json", json.dumps(told, indent=1, default=sorted) + "\n")
