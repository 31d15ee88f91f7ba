"""A client that takes "not found" about what it has just created for "not yet", and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bake.retries import ABSENT, SETTLING_BY_MESSAGE, RetryPolicy


class Patience(RetryPolicy):
    """Waits for what AWS shows late; all other errors are a test's own matter."""

    def _again(
        self,
        error: Mapping[str, Any],
        status: int,
        exception: BaseException | None,
        operation: str,
        context: Mapping[str, Any],
        now: float,
    ) -> bool:
        late = ABSENT.search(str(error.get("Code", ""))) or operation in SETTLING_BY_MESSAGE
        return bool(late and status < 500) and super()._again(
            error, status, exception, operation, context, now
        )
