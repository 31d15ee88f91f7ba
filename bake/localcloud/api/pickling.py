"""Pickle moto's backends, and of what can't be pickled as it is: our classes, locks, private keys."""

from __future__ import annotations

import io
import pickle
import threading
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

_LOCKS: Mapping[type, Any] = {type(make()): make for make in (threading.Lock, threading.RLock)}
# What makes the tags of a kind of resource in moto's SSM.
_SSM_TAGS = "SimpleSystemManagerBackend.__init__.<locals>.<lambda>"
# Our classes of backends bear the names of moto's modules, where they are not found.
_OURS: dict[str, type] = {}


def ours(cls: type) -> None:
    """Let instances of a backend's class be pickled."""
    _OURS[cls.__name__] = cls


def dumps(thing: Any) -> bytes:
    """Pickle records of moto's; `pickle.loads` reads them in a process where the same classes are `ours`."""
    written = io.BytesIO()
    _Pickler(written, pickle.HIGHEST_PROTOCOL).dump(thing)
    return written.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, thing: Any) -> Any:
        if make := _LOCKS.get(type(thing)):
            return make, ()
        if isinstance(thing, type) and _OURS.get(thing.__name__) is thing:
            return _our_class, (thing.__name__,)
        if getattr(thing, "__qualname__", "") == _SSM_TAGS:
            return _tables, ()
        if type(thing).__name__ == "ParameterDict":  # SSM's, a dict that its own copies can't be made of
            made_with = thing.account_id, thing.region_name
            return type(thing), made_with, dict(vars(thing)), None, iter(dict(thing).items())
        if hasattr(type(thing), "private_bytes"):
            plain = serialization.NoEncryption()
            form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
            return _private_key, (thing.private_bytes(*form, plain),)
        return NotImplemented


def _our_class(name: str) -> type:
    return _OURS[name]


def _private_key(content: bytes) -> PrivateKeyTypes:
    return serialization.load_pem_private_key(content, None)


def _tables() -> Any:
    return _table


def _table() -> Any:
    return defaultdict(dict)
