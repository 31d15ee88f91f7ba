"""Record what the machine holds: for the report, and to compare images."""

from __future__ import annotations

import json

from bake.checks import inventory
from bake.checks.result import Moment
from bake.planning.plan import Plan
from bake.run import Run
from bake.ssh import Session


def record_inventory(session: Session, plan: Plan, run: Run, moment: Moment) -> None:
    """Keep the inventory of a machine in `facts/inventory-MOMENT.json`; a gap in it fails nothing."""
    run.progress.status("recording what the machine holds")
    found, disk = inventory.take(session, moment, cache=plan.weights.cache, asked=plan.system.packages)
    told = {"inventory": found.model_dump(mode="json"), "disk": disk.model_dump(mode="json")}
    run.keep(f"facts/inventory-{moment}.json", json.dumps(told, indent=1) + "\n")
