"""What an archive says of one package: the version that fixes something."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fix:
    """A version of a package that its distribution published for security; `advisory` is its id, if told."""

    package: str
    arch: str
    version: str
    advisory: str = ""
