"""`bake costs` multiplies the calls of a job with prices: a real worker makes just those."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from bake.planning.serving.calls import CALLS_OF_A_JOB
from tests.worker.worker_harness import CallLog

RECEIVE = "ReceiveMessage"


def operation(call: str) -> str:
    return call.partition(" ")[0]


@pytest.mark.parametrize("images", [1, 4])
def test_a_worker_makes_the_calls_that_are_priced(harness: Any, images: int) -> None:
    call_log = CallLog()
    harness.aws.send(
        f'{{"id": "one", "prompt": "a cat", "width": 256, "height": 256, "steps": 4, "images": {images}}}'
    )
    with harness.worker(call_log) as worker:
        harness.run_until(worker, lambda: "DeleteMessage" in call_log.calls)
    made = Counter(map(operation, call_log.calls))
    priced = Counter(
        call.operation for call in CALLS_OF_A_JOB for _ in range(images if call.per_image else 1)
    )
    assert made.pop(RECEIVE) >= priced.pop(RECEIVE) == 1  # an empty poll may come before or after
    assert made == priced
