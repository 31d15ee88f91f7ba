"""Give the image what makes its starts fast: compiled code, and the order in which a start reads."""

from __future__ import annotations

from bake.planning.plan import Plan
from bake.run import Run
from bake.ssh import Session
from bake.steps.compile_model import compile_model
from bake.steps.record_trace import record_trace


def speed_up_starts(session: Session, plan: Plan, run: Run) -> None:
    """Compile first, since a start reads what was compiled, too. Raises BakeError as these steps do."""
    compile_model(session, plan, run)
    record_trace(session, plan, run)
