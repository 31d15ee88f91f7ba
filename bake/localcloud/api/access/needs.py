"""What a call must be allowed: an action on a resource, with what IAM's conditions may ask about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Context = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Need:
    """One action on one resource; `resource` is an ARN, or "*" for an action without resource types.

    What a call will create has no id yet: its resource ends in `/*`, as IAM sees it. `context` has the values
    of the condition keys, each named as AWS writes it (`aws:RequestTag/bake:run`); a key without a value is
    absent.
    """

    action: str
    resource: str
    context: Context = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, tuple[tuple[str, tuple[str, ...]], ...]]:
        """All of it in a form that can be hashed and sorted."""
        return self.action, self.resource, tuple(sorted(self.context.items()))

    def __hash__(self) -> int:
        return hash(self.key)

    def value(self, key: str) -> tuple[str, ...]:
        """The values of a condition key, whose name has no case; none if it is absent."""
        found = self.context.get(key)
        if found is not None:
            return found
        wanted = key.lower()
        return next((values for name, values in self.context.items() if name.lower() == wanted), ())
