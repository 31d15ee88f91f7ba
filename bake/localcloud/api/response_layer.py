"""Answers of EC2 that moto's response layer lacks, or gives without effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.responses import EC2Response

# What answers a call: it gets the region's backend, and what reads a parameter by its name and a default.
Answer = Callable[[Any, Any], dict[str, Any] | None]


def install(answers: Mapping[str, Answer]) -> None:
    """Give moto's response layer these answers, by method; to be called before the first request."""
    for name, answer in answers.items():
        setattr(EC2Response, name, _method(answer))


def _method(answer: Answer) -> Any:
    def respond(self: Any) -> ActionResult:
        self.error_on_dryrun()
        result = answer(self.ec2_backend, self._get_param)
        return EmptyResult() if result is None else ActionResult(result)

    return respond


def done(_: Any) -> dict[str, bool]:
    """The answer of a call that has nothing else to tell."""
    return {"Return": True}
