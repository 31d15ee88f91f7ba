"""Logs are JSON lines with the job's id and the journal's priority, and without secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ABOUT = """
import logging, threading
from flux_worker import redaction
from flux_worker.host import logs
logs.to_stderr()
log = logging.getLogger("here")
"""
DYING = ABOUT + "secret = 'correct horse'; redaction.add_secret(secret); "
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def run(code: str, **environment: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_line_has_the_job_and_the_facts() -> None:
    code = ABOUT + (
        "with logs.job_context('cat-1'):\n"
        "    log.info('done %s', 'well', extra={'facts': {'seconds': 1.5}})\n"
        "log.info('idle')"
    )
    first, second = run(code)
    assert {name: first[name] for name in ("level", "logger", "message", "job", "seconds")} == {
        "level": "info",
        "logger": "here",
        "message": "done well",
        "job": "cat-1",
        "seconds": 1.5,
    }
    assert "job" not in second


@pytest.mark.parametrize(
    ("death", "message"),
    [
        pytest.param(
            "raise ValueError(f'no {secret}')", "the worker crashed: ValueError('no ***')", id="main"
        ),
        pytest.param(
            "thread = threading.Thread(target=lambda: int(secret), name='interruption'); thread.start()",
            "thread interruption crashed: ValueError(\"invalid literal for int() with base 10: '***'\")",
            id="thread",
        ),
        pytest.param(
            "log.error('refused: %r', {'key': secret}, extra={'facts': {secret: [secret]}})",
            "refused: {'key': '***'}",
            id="logged",
        ),
        pytest.param("import warnings; warnings.warn(secret)", "***", id="warned"),
        pytest.param(
            "kind = type('Falling', (), {'__del__': lambda _: int(secret)}); kind()",
            "ValueError(\"invalid literal for int() with base 10: '***'\")",
            id="dropped",
        ),
    ],
)
def test_no_secret_is_told_even_when_dying(death: str, message: str) -> None:
    """A traceback is one line as well: the journal would make many entries of it."""
    (line,) = run(DYING + death)
    assert message in line["message"]
    assert "correct horse" not in json.dumps(line)


def test_the_environments_own_secrets_are_known() -> None:
    code = ABOUT + "import os; log.error('with %s', os.environ['AWS_SECRET_ACCESS_KEY'])"
    assert run(code, AWS_SECRET_ACCESS_KEY=SECRET_KEY)[0]["message"] == "with ***"


def test_a_short_value_blacks_out_nothing() -> None:
    code = ABOUT + "redaction.add_secret('90'); redaction.add_secret(''); log.info('in 90 s')"
    assert run(code)[0]["message"] == "in 90 s"


def stream(file: Path, stated: str | None = None) -> dict[str, str]:
    status = file.stat()
    return {"JOURNAL_STREAM": stated or f"{status.st_dev}:{status.st_ino}"}


def test_the_journal_is_told_priorities(tmp_path: Path) -> None:
    file = tmp_path / "stderr"
    code = ABOUT + "log.info('a'); log.warning('b'); log.error('c'); logs.report_fatal('the\\nend')"
    with file.open("wb") as stderr:
        subprocess.run([sys.executable, "-c", code], stderr=stderr, env=stream(file), check=True)
    lines = file.read_text().splitlines()
    assert [line[:3] for line in lines] == ["<6>", "<4>", "<3>", "<2>"]
    assert json.loads(lines[3][3:])["message"] == "the\nend"


def test_a_stderr_that_was_redirected_is_not_the_journal(tmp_path: Path) -> None:
    """As in `ExecStart=sh -c "flux-worker serve 2> file"`: the variable is still there."""
    file = tmp_path / "stderr"
    with file.open("wb") as stderr:
        code = ABOUT + "log.info('a'); logs.report_fatal('the end')"
        subprocess.run([sys.executable, "-c", code], stderr=stderr, env=stream(file, "1:2"), check=True)
    first, last = file.read_text().splitlines()
    assert json.loads(first)["message"] == "a"
    assert last == "the end"


def test_a_person_reads_no_json() -> None:
    command = str(Path(sys.executable).parent / "flux-worker")
    done = subprocess.run([command, "serve"], capture_output=True, text=True, env={}, check=False)
    assert done.returncode == 78
    assert done.stderr.startswith("flux-worker: The environment is not right:\n  ")


def test_the_log_needs_no_home_and_no_locale() -> None:
    assert run(ABOUT + "log.info('海')", LC_ALL="C", PATH=os.environ["PATH"])[0]["message"] == "海"
