"""All checks of bake: for waivers, for `bake check --list`, and for the documentation."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

from bake.checks.case_list import CASES
from bake.checks.declare import HERE, about, declaration
from bake.checks.result import About, Moment


def checks() -> tuple[tuple[About, tuple[Moment, ...]], ...]:
    """Each check, and the moments at which it looks; a parametrized one once, without its parameters."""
    found = []
    for file in sorted(HERE.glob("test_*.py")):
        module = import_module(f"bake.checks.{file.stem}")
        tests = [one for name, one in vars(module).items() if name.startswith("test_")]
        for test in sorted(tests, key=lambda one: one.__code__.co_firstlineno):
            line = inspect.getsourcelines(test)[1]
            found.append((about(test.__name__, "", test, Path(file), line), declaration(test).moments))
    return tuple(found)


def ids() -> frozenset[str]:
    """The ids of all checks of a machine; what follows a `[` in a result's id are parameters."""
    return frozenset(one.id for one, _ in checks())


def known() -> frozenset[str]:
    """The same with those that the steps of a bake make: all that a waiver may name."""
    return ids() | frozenset(CASES)
