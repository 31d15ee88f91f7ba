"""The EC2 call that is being answered, for what moto's response layer does not hand to its backend."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

# The parameters of the EC2 call that this thread is answering, as they came over the wire.
CALL: ContextVar[Mapping[str, str]] = ContextVar("CALL", default=MappingProxyType({}))
