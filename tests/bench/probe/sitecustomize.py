"""Notes what each drawing of a worker costs, and makes it as long as on a GPU.

Python imports this at its start wherever this folder is on PYTHONPATH. A GPU leaves the host idle while it
draws; here the rest of the time is slept.
"""

from __future__ import annotations

import functools
import json
import os
import time
from pathlib import Path
from typing import Any


def _measured(generate: Any, notes: Path, seconds: float) -> Any:
    @functools.wraps(generate)
    def measured(self: Any, job: Any, *arguments: Any) -> Any:
        began, thread, process = time.monotonic(), time.thread_time(), time.process_time()
        try:
            return generate(self, job, *arguments)
        finally:
            time.sleep(max(0.0, seconds - (time.monotonic() - began)))
            note = {"job": job.id, "thread_before": thread, "thread_after": time.thread_time()}
            note |= {"process_before": process, "process_after": time.process_time()}
            with notes.open("a") as file:
                file.write(json.dumps(note) + "\n")

    return measured


if "PROBE_NOTES" in os.environ:
    import flux_worker
    from flux_worker.inference.model import FluxModel

    _notes = Path(os.environ["PROBE_NOTES"])
    _notes.write_text(json.dumps({"source": str(Path(flux_worker.__file__).parents[1])}) + "\n")
    FluxModel.generate = _measured(FluxModel.generate, _notes, float(os.environ["PROBE_SECONDS"]))  # type: ignore[method-assign]
