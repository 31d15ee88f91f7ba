"""Run pytest on the checks of this package, silently and in this process."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from bake.checks.caused import BASE
from bake.checks.expectations import Expectations
from bake.checks.report import Check, Outcome, Report
from bake.errors import BakeError
from bake.redaction import redact
from bake.ssh import Session

SUBJECT: pytest.StashKey[tuple[Session, Expectations]] = pytest.StashKey()
REQUIREMENT = re.compile(r"\b[RC]-[A-Z0-9]+(?:-[A-Z0-9]+)*\b")


def run_checks(
    session: Session, expect: Expectations, junit_xml: Path, log: Path, select: str | None
) -> Report:
    """See `bake.checks.run`."""
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as stream, _no_outside_options():
        recorder, here = Recorder(session, expect, stream), Path(__file__).parent
        arguments = [
            str(here),
            # Ignore the user's own pytest settings and plugins, a conftest.py above the place where bake is
            # installed, and PYTHONWARNINGS=error.
            f"--config-file={os.devnull}",
            f"--rootdir={here}",
            f"--confcutdir={here}",
            "--disable-plugin-autoload",
            "-p",
            "no:cacheprovider",
            "-W",
            "default",
            "--color=no",
            # Another thread of this process shows progress, and its output must not be captured.
            "--capture=no",
            "--tb=short",
            # Show whole lists: a reviewer wants all paths, not the first difference.
            "--override-ini=verbosity_assertions=2",
            "-ra",
            f"--junit-xml={junit_xml}",
            *(["-k", select] if select else []),
        ]
        code = pytest.main(arguments, plugins=[recorder])
    for file in (log, junit_xml):  # pytest's output besides its reports
        if file.exists() and redact(text := file.read_text(encoding="utf-8")) != text:
            file.write_text(redact(text), encoding="utf-8")
    if recorder.stopped_by is not None:
        raise recorder.stopped_by
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise BakeError(f"the checks could not be run (pytest ended with {code!r})", hint=f"see {log}")
    return Report(tuple(recorder.checks), time.monotonic() - started)


@contextmanager
def _no_outside_options() -> Iterator[None]:
    """Hide PYTEST_ADDOPTS, PYTEST_PLUGINS and the like during the block."""
    options = {name: value for name, value in os.environ.items() if name.startswith("PYTEST_")}
    for name in options:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(options)


def _is_about(item: pytest.Item, expect: Expectations) -> bool:
    about, needs = item.get_closest_marker("accelerator"), item.get_closest_marker("device")
    if needs is not None:
        return expect.device and expect.accelerator in needs.args
    return about is None or expect.accelerator in about.args


class Recorder:
    """A pytest plugin that hands in the machine and collects the results."""

    def __init__(self, session: Session, expect: Expectations, stream: IO[str]) -> None:
        self._subject = (session, expect)
        self._stream = stream
        self.checks: list[Check] = []
        self.stopped_by: BaseException | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Hand the machine to the fixtures and send pytest's words to the log."""
        config.stash[SUBJECT] = self._subject
        config.addinivalue_line("markers", "accelerator(name): a check for images for that accelerator")
        config.addinivalue_line("markers", "device(name): a check that needs that accelerator itself")
        reporter = config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            config.pluginmanager.unregister(reporter)
            config.pluginmanager.register(type(reporter)(config, self._stream), "terminalreporter")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out checks for another accelerator, or that need one the builder does not have."""
        items[:] = [item for item in items if _is_about(item, self._subject[1])]

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Put the title and the ids of requirements into the JUnit report."""
        item.user_properties.append(("title", _title(item)))
        item.user_properties += [("requirement", name) for name in _requirements(item)]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Record the result; an interrupt or a broken connection is not a failed check, and ends the run."""
        report = yield
        _redact(report)
        error = call.excinfo.value if call.excinfo else None
        if error is not None and _ends_the_run(error):
            self.stopped_by = self.stopped_by or error
            item.session.shouldstop = "the machine cannot be checked any more"
        if report.when == "call" or not report.passed:
            self.checks.append(_check(item, report))
        return report

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Keep what interrupted the run; `run_checks` raises it."""
        self.stopped_by = self.stopped_by or excinfo.value

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Keep an interrupt that arrived between two checks, which pytest would swallow."""
        self.stopped_by = self.stopped_by or excinfo.value


def _redact(report: pytest.TestReport) -> None:
    """Redact a failure before it goes into JUnit XML, log and events."""
    told = str(report.longrepr or "")
    if redact(told) != told:
        if isinstance(report.longrepr, tuple):  # of a skip: file, line, reason
            report.longrepr = (*report.longrepr[:2], redact(report.longrepr[2]))
        else:
            report.longrepr = redact(told)
    report.sections = [(name, redact(content)) for name, content in report.sections]


def _ends_the_run(error: BaseException) -> bool:
    # `pytest.skip` and `pytest.fail` are not `Exception`s either.
    verdict = isinstance(error, pytest.skip.Exception | pytest.fail.Exception)
    return isinstance(error, BakeError) or not (verdict or isinstance(error, Exception))


def _title(item: pytest.Item) -> str:
    return _docstring(item).strip().splitlines()[0]


def _requirements(item: pytest.Item) -> tuple[str, ...]:
    return tuple(dict.fromkeys(REQUIREMENT.findall(_docstring(item))))


def _docstring(item: pytest.Item) -> str:
    return getattr(getattr(item, "function", None), "__doc__", None) or item.name


def _check(item: pytest.Item, report: pytest.TestReport) -> Check:
    outcome: Outcome = "error" if report.when != "call" and report.failed else report.outcome
    crash = getattr(report.longrepr, "reprcrash", None)
    message = "" if report.passed else redact(str(crash.message if crash else report.longrepr))
    base = tuple(redact(str(value)) for key, value in item.user_properties if key == BASE)
    name = f"{item.path.stem.removeprefix('test_')}::{item.name.removeprefix('test_')}"
    return Check(name, _title(item), outcome, report.duration, message, _requirements(item), base)
