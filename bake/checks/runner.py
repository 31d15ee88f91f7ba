"""Run pytest on the checks of this package, silently and in this process."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from testinfra.host import Host

from bake.checks import plugin
from bake.checks.declare import about
from bake.checks.evidence import BOOK, Book
from bake.checks.expectations import Expectations
from bake.checks.report import Report
from bake.checks.result import GROUPS, About, Check, Outcome
from bake.errors import BakeError
from bake.redaction import redact


def run_checks(
    host: Host, expect: Expectations, log: Path, select: str | None, files: Sequence[Path] = ()
) -> Report:
    """See `bake.checks.run`."""
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as stream, _no_outside_options():
        recorder = Recorder(host, expect, stream)
        code = pytest.main(_arguments(select, files), plugins=[plugin, recorder])
    if redact(text := log.read_text(encoding="utf-8")) != text:
        log.write_text(redact(text), encoding="utf-8")
    if recorder.stopped_by is not None:
        raise recorder.stopped_by
    ran = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
    if code not in ran:
        said = "\n".join(log.read_text(encoding="utf-8").strip().splitlines()[-TAIL:])
        raise BakeError(
            f"the checks could not be run (pytest ended with {code!r}):\n{said}",
            hint="a file of `checks` may not be a test file that pytest can read" if files else None,
        )
    checks = sorted(recorder.checks, key=lambda one: GROUPS.index(one.about.group))
    return Report(tuple(checks), time.monotonic() - started)


TAIL = 15  # lines of pytest's own words


def _arguments(select: str | None, files: Sequence[Path]) -> list[str]:
    here = Path(__file__).parent
    return [
        str(here),
        *(str(file) for file in files),
        # Ignore the user's own pytest settings and plugins, every conftest.py, and PYTHONWARNINGS=error.
        f"--config-file={os.devnull}",
        f"--rootdir={here}",
        "--noconftest",
        "--disable-plugin-autoload",
        "--import-mode=importlib",
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
        *(["-k", select] if select else []),
    ]


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


class Recorder:
    """A pytest plugin that hands in the machine and collects the results."""

    def __init__(self, host: Host, expect: Expectations, stream: IO[str]) -> None:
        self._subject, self._moment = (host, expect), expect.moment
        self._stream = stream
        self.checks: list[Check] = []
        self.stopped_by: BaseException | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Hand the machine to the fixtures and send pytest's words to the log."""
        config.stash[plugin.SUBJECT] = self._subject
        reporter = config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            config.pluginmanager.unregister(reporter)
            config.pluginmanager.register(type(reporter)(config, self._stream), "terminalreporter")

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
        elif report.when == "call" or not report.passed:
            self.checks.append(self._check(item, report))
        return report

    def _check(self, item: pytest.Item, report: pytest.TestReport) -> Check:
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = "" if report.passed else redact(str(crash.message if crash else _reason(report.longrepr)))
        book = item.stash.get(BOOK, Book())
        return Check(
            about=_about(item),
            moment=self._moment,
            outcome=_outcome(report),
            reason=reason.removeprefix("Failed: ").removeprefix("Skipped: "),
            evidence=tuple(book.evidence),
            base=tuple(book.base),
            seconds=round(report.duration, 4),
        )

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Keep what interrupted the run; `run_checks` raises it."""
        if not isinstance(excinfo.value, pytest.Session.Interrupted):  # a file that can't be imported
            self.stopped_by = self.stopped_by or excinfo.value

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Keep an interrupt that arrived between two checks, which pytest would swallow."""
        self.stopped_by = self.stopped_by or excinfo.value


def _about(item: pytest.Item) -> About:
    name = getattr(item, "originalname", None) or item.name
    function = getattr(item, "function", None)
    line = item.location[1]
    return about(name, item.name.removeprefix(name), function, item.path, (line or 0) + 1)


def _outcome(report: pytest.TestReport) -> Outcome:
    """A check whose facts could not be had was not run; it stands in the way like a failure."""
    if report.skipped:
        return "not applicable"
    if report.passed:
        return "passed"
    return "failed" if report.when == "call" else "not run"


def _reason(longrepr: object) -> object:
    """Of a skip: its reason, from file, line and reason."""
    return longrepr[2] if isinstance(longrepr, tuple) else longrepr


def _redact(report: pytest.TestReport) -> None:
    """Redact a failure before it goes into log and events."""
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
