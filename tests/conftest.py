"""One local cloud for all tests that need real machines, in a directory and network of its own."""

from __future__ import annotations

import collections
import functools
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bake import localcloud, profile, redaction
from bake import run as runs_of
from bake.aws import Aws
from bake.lease import Lease
from bake.localcloud import LocalCloud, RemoteFaults, Settings, over_socket, sources
from bake.localcloud.images import hostile as hostile_bases
from bake.localcloud.network import bridge
from bake.planning.plan import Plan
from bake.progress import PlainScreen, Progress
from bake.request import ask_and_plan
from bake.run import Run
from bake.ssh import Session
from bake.steps.connect import log_in
from bake.steps.launch import Instance, launch_builder
from bake.undo import Undo
from bake.weights import lock as locks

from .outside import Outside
from .outside import outside as beyond

ROOT = Path(__file__).parents[1]
PROFILES = ROOT / "profiles"
# A test that asks for one of these fixtures needs a server or a process, and is no unit test.
SERVERS = {"cloud", "endpoint", "hub_process", "moto_served", "outside", "plan_account", "repository"}
HEAVY = {"diffusers", "torch", "transformers"}
# Of the rehearsals, those that cut bakes: about half of the time.
CUTS = re.compile(
    r"tests/rehearsal/(chaos/|test_(builder_lease|interrupted|kept|killed|reaper|resume|swept)\b)"
)
# What takes longest begins first; each of these scopes keeps one process busy for most of a run.
LONGEST = ("rehearsals", "cuts", "machines")
NO_UNIT_TEST = re.compile(r"^pytestmark = .*\bmark\.(root|long|integration)\b", re.MULTILINE)


@dataclass(frozen=True)
class Machine:
    """A builder as the bake has it after `connect`."""

    plan: Plan
    aws: Aws
    run: Run
    instance: Instance
    session: Session


NewMachine = Callable[..., AbstractContextManager[Machine]]


# This process's environment before any test file is imported.
ENVIRONMENT = dict(os.environ)


def pytest_configure() -> None:
    """Let what the tests start hear Ctrl-C; a shell's background jobs inherit that it is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """An import that changes the environment changes it for all other tests of the process."""
    changed = {name for name, value in os.environ.items() if ENVIRONMENT.get(name) != value}
    if changed := {name for name in changed if name.startswith(("AWS_", "BAKE_", "HF_", "MOTO_"))}:
        raise pytest.UsageError(f"the import of a test file set {', '.join(sorted(changed))}")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Spare the unit tier the import of files that have no unit test: torch alone takes seconds."""
    if config.option.markexpr != "unit" or collection_path.suffix != ".py":
        return None
    return bool(NO_UNIT_TEST.search(_text(collection_path))) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the unit tests, skip the machines' tests without root, and sort the scopes (`scope`)."""
    sizes = collections.Counter(scope(item.nodeid) for item in items)
    order = {name: (name not in LONGEST, -size) for name, size in sizes.items()}
    order |= {name: (False, rank) for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (order[scope(item.nodeid)], scope(item.nodeid)))
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.integration)
        if not any(item.get_closest_marker(name) for name in ("root", "long", "integration")):
            item.add_marker(pytest.mark.unit)
        if os.geteuid() != 0 and item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root: real machines"))


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Where tests run side by side: scopes stay whole, and begin in the order of the items."""
    from xdist.scheduler import LoadScopeScheduling

    class Clouds(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    config.option.loadscopereorder = False
    return Clouds(config, log)


def scope(nodeid: str) -> str:
    """The tests that one process runs: a file's, or all that share a cloud."""
    file = nodeid.split("::")[0]
    if file.startswith("tests/rehearsal/"):
        return "cuts" if CUTS.match(file) else "rehearsals"
    # The stress run begins early with the many tests beside it: scopes of few tests come last.
    if file.startswith("tests/worker/stress/"):
        return "stress"
    return "machines" if "mark.root" in _text(ROOT / file) else file


@functools.cache
def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _no_secret_outlives_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test calls a secret is a plain word in the next."""
    monkeypatch.setattr(redaction, "_known", redaction.Registry())


@pytest.fixture(autouse=True)
def _unit_tests_stay_light(request: pytest.FixtureRequest) -> Iterator[None]:
    """In the unit tier nothing imports torch: the first test after such an import fails."""
    yield
    if request.config.option.markexpr == "unit":
        assert not HEAVY & sys.modules.keys(), "mark the test that imports it: pytest.mark.integration"


def networks(first: int) -> Iterator[str]:
    """Networks for a cloud of a test's own; of processes that run side by side each has others."""
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    start = first + 8 * (process % 4)
    return (f"10.214.{number}.0/24" for number in range(start, start + 8))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """The place of a cloud of one test's own, beside the shared one; nothing is up yet."""
    monkeypatch.setenv("BAKE_LOCAL_STATE", str(tmp_path / "state"))
    for block in networks(100):
        monkeypatch.setenv("BAKE_LOCAL_NETWORK", block)
        if not bridge.claimed(Settings.load()):
            break
    yield Settings.load()
    localcloud.down()


@pytest.fixture(scope="session")
def cloud_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The test cloud's place: beside a cloud of the user's, with the same caches (BAKE_CACHE)."""
    monkeypatch = pytest.MonkeyPatch()
    state: Path = tmp_path_factory.mktemp("local-cloud")
    monkeypatch.setenv("BAKE_LOCAL_STATE", str(state))
    for block in networks(1):  # another test run of the same machine may have the first
        monkeypatch.setenv("BAKE_LOCAL_NETWORK", block)
        if not bridge.claimed(Settings.load()):
            break
    yield Settings.load()
    monkeypatch.undo()


@pytest.fixture(scope="session")
def cloud(cloud_settings: Settings) -> Iterator[LocalCloud]:
    """A local cloud that is up; it goes with the test session, also when that is killed."""
    with localcloud.running(print) as up:
        yield up


@pytest.fixture(scope="session")
def outside(cloud: LocalCloud) -> Iterator[Outside]:
    """The world beyond this host, for servers that machines reach as they reach any that was declared."""
    with beyond() as place:
        localcloud.declare_egress([place.address])
        yield place


@pytest.fixture
def faults(cloud: LocalCloud) -> Iterator[RemoteFaults]:
    """What goes wrong with this test's AWS calls: `faults.plant("ec2", "RunInstances", "lost", nth=2)`."""
    planted = RemoteFaults(over_socket(Settings.load()))
    yield planted
    planted.clear()


@contextmanager
def launch(
    cloud: LocalCloud,
    folder: Path,
    name: str = "g6e-ubuntu",
    *,
    hostile: str | None = None,
    builder: Mapping[str, object] | None = None,
) -> Iterator[Machine]:
    """Launch a builder of a profile, log in, and remove it; its run directory is made in `folder`.

    `builder` changes fields of that section.
    """
    progress = Progress(PlainScreen())
    found = profile.load(name, PROFILES, cloud.environment)
    if hostile:
        base = hostile_bases.find(hostile, found.base.os)
        named = found.base.model_copy(update={"ami": None, "name": base.name, "owner": base.owner})
        found = found.model_copy(update={"base": named})
    found = found.model_copy(update={"builder": found.builder.model_copy(update=builder)})
    localcloud.provide(found.base.os, found.base.accelerator, print)
    aws = Aws(
        region=found.builder.region,
        worker_region=found.worker.region,
        endpoint=cloud.endpoint,
        endpoint_key=cloud.keys,
        tally=progress.tally,
    )
    lock = locks.resolve(found.weights, cloud.hub)
    plan = ask_and_plan(found, aws, sources(cloud, found.base.os), lock=lock)
    run = runs_of.new(folder, progress)
    Lease(plan.lease, aws, run)  # what is created has its expiry
    with Undo() as undo:
        instance = launch_builder(plan, aws, run, undo)
        with log_in(instance, plan, aws, run) as session:
            yield Machine(plan, aws, run, instance, session)


@pytest.fixture(scope="session")
def new_machine(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> NewMachine:
    """Launches a builder of a profile and removes it; slow enough to be shared by a module or a session.

    `hostile` is a hostile base to launch instead of the profile's, such as "umask-077"; `builder` changes
    fields of that section.
    """

    def launched(name: str = "g6e-ubuntu", **changes: Any) -> AbstractContextManager[Machine]:
        return launch(cloud, tmp_path_factory.mktemp("runs"), name, **changes)

    return launched
