"""DryRun: the call is carried out on a copy of the region's records, which is thrown away.

So everything is refused that the call itself would refuse, whichever call it is, and nothing is changed: the
copy has no machines and no disks. moto answers DryRunOperation before it has looked at anything.
"""

from __future__ import annotations

import logging
import pickle
from contextvars import ContextVar
from typing import Any

from moto.ec2.exceptions import DryRunClientError
from moto.ec2.responses._base_response import EC2BaseResponse
from werkzeug.test import run_wsgi_app

from bake.localcloud.api import pickling
from bake.localcloud.images.store import ImageStore

log = logging.getLogger(__name__)

# The copy that this thread's call is carried out on; None: the call is meant.
_COPY: ContextVar[Any] = ContextVar("_COPY", default=None)
_TRIES = 20  # of a copy, since other threads may change the records meanwhile
STATUS = 412


def ongoing() -> bool:
    """Whether this thread's call is a dry run, after which nothing may have changed."""
    return _COPY.get() is not None


def rehearse(
    app: Any, environ: dict[str, Any], backend: Any
) -> tuple[str, list[tuple[str, str]], list[bytes]]:
    """Carry out a call on a copy of `backend`; return the answer's status, headers and body.

    DryRunClientError, which says that the call would have succeeded, unless it is refused.
    """
    token = _COPY.set(_copied(backend))
    try:
        body, status, headers = run_wsgi_app(app, environ, buffered=True)
        content = list(body)
    finally:
        _COPY.reset(token)
    if status.startswith("2") or b"<Code>DryRunOperation</Code>" in b"".join(content):
        raise DryRunClientError
    return status, headers.to_wsgi_list(), content


def _copied(backend: Any) -> Any:
    for left in reversed(range(_TRIES)):
        try:
            copied = pickle.loads(pickling.dumps(backend))  # noqa: S301 - what was pickled a moment ago
            break
        except RuntimeError:  # a dictionary changed during the iteration
            if not left:
                raise
    if hasattr(backend, "local_instances"):
        copied.local_instances = _NoMachines(copied)
        copied.store = _NoDisks(backend.store)
        copied.later = lambda span, act: None
    return copied


class _NoMachine:
    """In place of a LocalInstance: its record, and nothing that happens to it."""

    def __init__(self, moto: Any, changed: float | None = None) -> None:
        self.moto, self.changed = moto, changed
        self.ended = lambda: None
        self.reachable = False
        self.console = ""

    @property
    def state(self) -> str:
        return str(self.moto._state.name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _NOTHING


class _Nothing:
    """Whatever is asked of it, nothing happens."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *words: Any, **named: Any) -> Any:
        return self


_NOTHING = _Nothing()


class _NoMachines:
    """In place of LocalInstances, for the instances of a copy."""

    closing = True  # nothing is launched again
    speeds = None
    volumes = _NOTHING

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._real = type(backend).local_instances
        self.settings = self._real.settings

    def __getitem__(self, instance_id: str) -> _NoMachine:
        return self._of(self._backend.get_instance(instance_id))

    def __contains__(self, instance_id: object) -> bool:
        return self._backend.get_instance_by_id(instance_id) is not None

    def all(self) -> list[_NoMachine]:
        return [self._of(instance) for instance in self._backend.all_instances()]

    def _of(self, moto: Any) -> _NoMachine:
        return _NoMachine(moto, self._real[moto.id].changed if moto.id in self._real else None)

    def add(self, moto: Any) -> _NoMachine:
        return _NoMachine(moto)


class _NoDisks:
    """In place of the ImageStore: it can be read. Who would write has checked all before."""

    _READ = frozenset({"disk", "images", "snapshots", "directory"})
    _PASSED_OVER = frozenset({"save", "forget"})

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        if name in self._READ:
            return getattr(self._store, name)
        if name in self._PASSED_OVER:
            return _NOTHING
        raise DryRunClientError


def install() -> None:
    """Let moto carry out a dry run on the copy; its own test of the parameter comes too early."""

    def refuse(self: Any) -> None:
        if self._get_param("DryRun", False) and not ongoing():
            raise DryRunClientError

    of_moto = EC2BaseResponse.ec2_backend.fget

    def ec2_backend(self: Any) -> Any:
        copied = _COPY.get()
        return of_moto(self) if copied is None else copied

    EC2BaseResponse.error_on_dryrun = refuse
    EC2BaseResponse.ec2_backend = property(ec2_backend)
