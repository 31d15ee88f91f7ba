"""Ask a machine everything at once: each probe a round trip, all commands of all checks one, side by side."""

from __future__ import annotations

import base64
import shlex
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from testinfra.host import Host

from bake import layout
from bake.checks.backend import SessionBackend
from bake.checks.expectations import Expectations
from bake.checks.probes import probe
from bake.layout import SYSTEM_PYTHON
from bake.ssh.program import Program, facts

_TAIL_LINES = 15


class Facts(dict[str, Any]):
    """What a probe printed; `by` names it for the evidence."""

    by = ""


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    command: str
    code: int
    out: str
    err: str

    @property
    def by(self) -> str:
        return self.command

    @property
    def words(self) -> list[str]:
        return self.out.split()

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def said(self) -> str:
        """Its output, or what went wrong."""
        failed = f"exit code {self.code}: " if self.code else ""
        return failed + ((self.out if self.out.strip() else self.err).strip() or "nothing")


@dataclass(frozen=True)
class Answers:
    """The answers of one check; `began` and `ended` are when they were asked for, by this machine's clock."""

    found: Mapping[str, Answer]
    began: float
    ended: float

    def __getitem__(self, name: str) -> Answer:
        return self.found[name]


class Gathered:
    """The facts of one machine, asked for when the first of them is needed."""

    def __init__(self, host: Host, expect: Expectations, wanted: frozenset[str], lines: Mapping[str, str]):
        self._host, self._expect, self._lines = host, expect, lines
        inputs = {name: given for name, given in _inputs(expect).items() if name in wanted}
        self._pool = ThreadPoolExecutor(len(inputs) + 1, "check")
        self._facts = {name: self._pool.submit(self._probe, name, given) for name, given in inputs.items()}
        self._answers: Future[Answers] = self._pool.submit(self._ask)

    def close(self) -> None:
        """Ask no more; what is being asked ends with its connection."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def facts(self, name: str) -> Facts:
        """What a probe found; the check fails if it could not run."""
        return self._facts[name].result()

    def answers(self, prefix: str) -> Answers:
        """The answers to the questions whose names begin with `prefix`."""
        every = self._answers.result()
        mine = {name[len(prefix) :]: one for name, one in every.found.items() if name.startswith(prefix)}
        return Answers(mine, every.began, every.ended)

    def _probe(self, name: str, given: Mapping[str, Any]) -> Facts:
        prefix = _worker_python(self._expect) if name == "model" else [SYSTEM_PYTHON]
        return _run(self._host, name, given, prefix)

    def _ask(self) -> Answers:
        began = time.time()
        told = _run(self._host, "commands", {"commands": dict(self._lines)}, [SYSTEM_PYTHON])["answers"]
        found = {name: Answer(self._lines[name], *answer) for name, answer in told.items()}
        return Answers(found, began, time.time())


def _inputs(expect: Expectations) -> dict[str, dict[str, Any]]:
    """The probes and what each is given."""
    where = {"cache": expect.cache_dir, "repo_dir": expect.repo_dir, "revision": expect.revision}
    return {
        "model": {},  # takes longest
        "secrets": {"token": expect.token, "cache": expect.cache_dir, "seconds": None},
        "rights": {"packages": expect.packages},
        "packages": {"packages": expect.packages, "system_python": expect.system_python},
        "system": {"salt": expect.baseline.salt},
        "updates": {"packages": expect.packages, "index": layout.UPDATES, "held": list(expect.not_updated)},
        "cache": {**where, "files": dict(expect.files)},
        "checkpoint": {"folder": expect.model_dir},
        "start": {"trace": layout.TRACE, "weights": [expect.cache_dir, expect.model_dir]},
    }


def _run(host: Host, name: str, given: Mapping[str, Any], prefix: Sequence[str]) -> Facts:
    """Run a probe as root, by the command `prefix` and its Python."""
    program = probe(name)
    *before, python = prefix
    line = shlex.join([*before, *program.command(python)])
    done = _send(host, line, program, given)
    if done.rc != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-_TAIL_LINES:])
        pytest.fail(f"the probe {name!r} ended with exit code {done.rc}:\n{said}", pytrace=False)
    found = Facts(facts(done.stdout))
    found.by = f"bake/checks/probes/{name}.py, run as {'the worker' if name == 'model' else 'root'}"
    return found


def _send(host: Host, line: str, program: Program, given: Mapping[str, Any]) -> Any:
    """Over the bake's session by stdin; testinfra's own connections have none, and get no token either."""
    stdin = program.stdin(given)
    if isinstance(host.backend, SessionBackend):
        return host.run(line, stdin=stdin)
    return host.run(f"echo {base64.b64encode(stdin).decode()} | base64 -d | {line}")


def as_worker(expect: Expectations) -> list[str]:
    """Return the start of a command that runs a program as the worker's unit would, but without a network."""
    properties = (f"User={expect.user}", f"EnvironmentFile={expect.worker_env}", "PrivateNetwork=yes")
    unit = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--setenv=CUDA_VISIBLE_DEVICES="]
    return [*unit, *(f"--property={name}" for name in properties)]


def _worker_python(expect: Expectations) -> list[str]:
    # Without a visible GPU the weights are only mapped, which takes seconds and checks the same. The worker's
    # own environment chooses its backend.
    return [*as_worker(expect), "env", "FLUX_BACKEND=cpu", f"{expect.venv}/bin/python"]
