"""Run compiled blocks, and read their warnings."""

from __future__ import annotations

from typing import Any

import pytest

from flux_worker.inference.compilation import CompiledBlocks
from flux_worker.jobspec.job import Job

SMALL = Job(id="a", prompt="a cat", width=256, height=256)
OTHER = Job(id="b", prompt="a cat", width=320, height=256)


def run(blocks: CompiledBlocks, transformer: Any, job: Job) -> tuple[Any, int]:
    """What the transformer makes of the job's size, and how many graphs were compiled or fetched for it."""
    import torch
    from torch._dynamo.utils import counters

    counters.clear()
    pixels = torch.linspace(0, 1, job.width * 8).reshape(-1, 8)
    with torch.no_grad():
        made = blocks.run(job, lambda: transformer(pixels))
        expected = (pixels.sin() + 1).sin() + 1
    assert torch.allclose(made, expected, atol=1e-5)
    return made, counters["stats"]["unique_graphs"]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == CompiledBlocks.__module__]
