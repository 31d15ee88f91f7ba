"""The base class of a profile's sections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


def variable(name: str, *literals: str, optional: bool = False) -> dict[str, Any]:
    """Mark a field whose values are secret or differ between accounts, with the variable that people use.

    Such a value never stands in a profile (R-CONFIG), but for the words in `literals`; `optional` fields may
    hold anything that names no account.
    """
    return {"variable": name, "literals": list(literals), "literal": optional}


class Section(BaseModel):
    """A mapping of the profile: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    def conflicts(self) -> Iterator[str]:
        """Conflicts between fields that are each valid by themselves."""
        yield from ()

    @model_validator(mode="after")
    def _consistent(self) -> Section:
        if found := list(self.conflicts()):
            raise ValueError("\n".join(found))
        return self
