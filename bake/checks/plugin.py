"""The pytest plugin of the checks: the machine, its facts, and the verdict of each check.

Used by a bake, by `bake check`, and by plain pytest with testinfra's options:

    pytest "$(bake check --path)" --hosts=ssh://ubuntu@192.0.2.1 --expect RUN/facts/expectations.json
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from testinfra import get_host
from testinfra.host import Host

from bake.checks.declare import HERE, Declaration, declaration
from bake.checks.evidence import BOOK, Book, Caused, Compare
from bake.checks.expectations import Expectations
from bake.checks.gathered import Answers, Facts, Gathered

SUBJECT: pytest.StashKey[tuple[Host, Expectations]] = pytest.StashKey()
SHARED = "shared "
NO_EVIDENCE = "it compared nothing, so it proves nothing"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Plain pytest is told what to expect; a bake knows."""
    parser.addoption(
        "--expect", metavar="FILE", help="What the checks expect: facts/expectations.json of a run."
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the checks of this moment."""
    _, expect = _subject(config)
    items[:] = [item for item in items if _looks(declaration(_function(item)), expect)]


def _looks(declared: Declaration, expect: Expectations) -> bool:
    return expect.moment in declared.moments or (expect.by_hand and not declared.on_builder)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """End a check that does not apply before anything is asked."""
    item.stash[BOOK] = Book()
    reason = declaration(_function(item)).applies(_subject(item.config)[1])
    if reason is not None:
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a check with all that was wrong, and one of bake's own that compared nothing."""
    yield
    book = item.stash[BOOK]
    if not book.evidence and item.path.parent == HERE:
        book.wrong.append(NO_EVIDENCE)
    if book.wrong:
        pytest.fail("\n".join(book.wrong), pytrace=False)


def _shared(expect: Expectations) -> dict[str, str]:
    """Questions of many checks, each a fixture."""
    return {
        "unit": f"systemctl show --no-pager {expect.unit}",
        "worker_env": f"cat {expect.worker_env}",
    }


def _function(item: pytest.Item) -> Any:
    return getattr(item, "function", None)


def _subject(config: pytest.Config) -> tuple[Host, Expectations]:
    """The machine and what is expected of it."""
    if SUBJECT not in config.stash:
        config.stash[SUBJECT] = _named(config)
    return config.stash[SUBJECT]


def _named(config: pytest.Config) -> tuple[Host, Expectations]:
    """What testinfra's options and --expect name."""
    options = config.option
    if not (options.expect and getattr(options, "hosts", None)):
        raise pytest.UsageError(
            "the checks need --hosts (testinfra's) and --expect RUN/facts/expectations.json"
        )
    host = get_host(
        options.hosts,
        connection=options.connection,
        ssh_config=options.ssh_config,
        ssh_identity_file=options.ssh_identity_file,
        sudo=True,
    )
    return host, replace(Expectations.read(Path(options.expect)), moment="booted", by_hand=True)


@pytest.fixture(scope="session")
def host(pytestconfig: pytest.Config) -> Host:
    """The machine, as root."""
    return _subject(pytestconfig)[0]


@pytest.fixture(scope="session")
def expect(pytestconfig: pytest.Config) -> Expectations:
    """What is expected of the machine."""
    return _subject(pytestconfig)[1]


@pytest.fixture
def compare(request: pytest.FixtureRequest) -> Compare:
    """Compares what was found with what is expected, and keeps both as evidence."""
    return Compare(request.node.stash[BOOK])


@pytest.fixture
def caused(request: pytest.FixtureRequest, expect: Expectations) -> Caused:
    """Selects what the bake caused, and not its base AMI."""
    return Caused(expect, request.node.stash[BOOK])


@pytest.fixture(scope="session")
def gathered(request: pytest.FixtureRequest, host: Host, expect: Expectations) -> Iterator[Gathered]:
    """Everything that the selected checks ask."""
    items = [item for item in request.session.items if declaration(_function(item)).applies(expect) is None]
    wanted = frozenset(name for item in items for name in getattr(item, "fixturenames", ()))
    lines = {
        f"{item.nodeid} {name}": line
        for item in items
        for name, line in declaration(_function(item)).asks(expect).items()
    }
    lines |= {f"{SHARED}{name}": line for name, line in _shared(expect).items() if name in wanted}
    found = Gathered(host, expect, wanted, lines)
    yield found
    found.close()


@pytest.fixture
def answers(request: pytest.FixtureRequest, gathered: Gathered) -> Answers:
    """What the commands said that the check's declaration asks for."""
    return gathered.answers(f"{request.node.nodeid} ")


@pytest.fixture(scope="session")
def system(gathered: Gathered) -> Facts:
    """Facts about users, ports, disks and failed units."""
    return gathered.facts("system")


@pytest.fixture(scope="session")
def packages(gathered: Gathered) -> Facts:
    """Problems that the package manager reports."""
    return gathered.facts("packages")


@pytest.fixture(scope="session")
def updates(gathered: Gathered) -> Facts:
    """Security updates that are pending, by the index that the bake's came from."""
    return gathered.facts("updates")


@pytest.fixture(scope="session")
def rights(gathered: Gathered) -> Facts:
    """Setuid files and users."""
    return gathered.facts("rights")


@pytest.fixture(scope="session")
def cache(gathered: Gathered) -> Facts:
    """Facts about the Hugging Face cache."""
    return gathered.facts("cache")


@pytest.fixture(scope="session")
def checkpoint(gathered: Gathered) -> Facts:
    """Facts about the int8 checkpoint."""
    return gathered.facts("checkpoint")


@pytest.fixture(scope="session")
def start(gathered: Gathered) -> Facts:
    """Facts about what a start reads: trace, bytecode, copies of weights."""
    return gathered.facts("start")


@pytest.fixture(scope="session")
def secrets(gathered: Gathered) -> Facts:
    """Places of secrets: files, processes, the journal."""
    return gathered.facts("secrets")


@pytest.fixture(scope="session")
def model(gathered: Gathered) -> Facts:
    """Facts about the model, loaded as the worker would: its user and environment, without a network."""
    return gathered.facts("model")


@pytest.fixture(scope="session")
def unit(gathered: Gathered) -> Facts:
    """The worker's unit as systemd understands it, property -> value; lines of a repeated one are joined."""
    answer = gathered.answers(SHARED)["unit"]
    found = Facts()
    found.by = answer.by
    for name, _, value in (line.partition("=") for line in answer.lines):
        found[name] = f"{found[name]}\n{value}" if name in found else value
    return found


@pytest.fixture(scope="session")
def worker_env(gathered: Gathered) -> Facts:
    """The worker's baked environment: name -> value."""
    answer = gathered.answers(SHARED)["worker_env"]
    lines = [line.strip() for line in answer.lines]
    found = Facts(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    found.by = answer.by
    return found
