"""Answers that moto does not have: a call of a client is answered here, and not sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any


@contextmanager
def answered(client: Any, operation: str, answer: dict[str, Any]) -> Iterator[list[Any]]:
    """Each call of an operation has this answer meanwhile; yields the parameters that were sent."""
    sent: list[Any] = []

    def reply(params: Any, **_: Any) -> tuple[Any, dict[str, Any]]:
        sent.append(params["body"])
        return SimpleNamespace(status_code=200), {**answer, "ResponseMetadata": {"HTTPStatusCode": 200}}

    name = f"before-call.{client.meta.service_model.service_name}.{operation}"
    client.meta.events.register_first(name, reply)
    try:
        yield sent
    finally:
        client.meta.events.unregister(name, reply)
