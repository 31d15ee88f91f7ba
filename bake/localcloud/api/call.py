"""The call that is being answered, for what moto's response layer does not hand to its backends."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

from bake.localcloud.settings import ACCOUNT

# The parameters of the EC2 call that this thread is answering, as they came over the wire.
CALL: ContextVar[Mapping[str, str]] = ContextVar("CALL", default=MappingProxyType({}))
# The ARN of whoever makes the call; the account itself where nobody does, as for the cloud's own fixtures.
CALLER: ContextVar[str] = ContextVar("CALLER", default=f"arn:aws:iam::{ACCOUNT}:root")
