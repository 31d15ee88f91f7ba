"""Client tokens of EC2's calls other than RunInstances: the same token again gives the same answer.

https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html. moto passes them over. RunInstances'
are kept with the launches (`bake.localcloud.api.ec2`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping

from moto.ec2.exceptions import EC2ClientError

Answer = tuple[str, list[tuple[str, str]], list[bytes]]  # status, headers, body
_KEPT = 1000


class Tokens:
    """The answers to calls with a client token. Thread-safe; one call with a token is made at a time."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._answers: OrderedDict[tuple[str, str, str], tuple[dict[str, str], Answer]] = OrderedDict()

    def once(self, region: str, call: Mapping[str, str], make: Callable[[], Answer]) -> Answer:
        """Make a call, or repeat the answer to the call that had its token; a refused call may come again."""
        key = region, call["Action"], call["ClientToken"]
        with self._lock:
            if key in self._answers:
                earlier, answer = self._answers[key]
                if earlier != dict(call):
                    raise EC2ClientError(
                        "IdempotentParameterMismatch",
                        "The client token was used before with other parameters",
                    )
                return answer
            answer = make()
            if answer[0].startswith("2"):
                self._answers[key] = dict(call), answer
                if len(self._answers) > _KEPT:
                    self._answers.popitem(last=False)
        return answer
