"""`make test` runs what failed once more, and names what passed only then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
RERUN = Path(__file__).parent / "rerun.py"
PASSES = "def test_passes():\n    pass\n"
FAILS = "def test_fails():\n    assert not 1\n"
FAILS_ONCE = """
from pathlib import Path
def test_fails_once():
    first = not Path("ran").exists()
    Path("ran").touch()
    assert not first
"""
NAMED = "flaky: test_it.py::test_fails_once (passed when run again; mend it before anything else)\n"


def rerun(directory: Path, tests: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a real run of these tests."""
    (directory / "pytest.ini").write_text("[pytest]\n")
    (directory / "test_it.py").write_text(tests)
    command = [sys.executable, RERUN, "-q", *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout


@pytest.mark.parametrize("arguments", [[], ["-n", "2"]], ids=["alone", "side by side"])
def test_what_passes_when_run_again_is_named_last(tmp_path: Path, arguments: list[str]) -> None:
    code, output = rerun(tmp_path, PASSES + FAILS_ONCE, *arguments)
    assert code == 0
    assert "1 failed, 1 passed" in output
    assert output.endswith(f"\n{NAMED}")
    assert output.count("flaky: ") == 1
    assert (tmp_path / ".pytest_cache/flaky").read_text() == NAMED


def test_what_fails_twice_fails_the_run(tmp_path: Path) -> None:
    code, output = rerun(tmp_path, FAILS + FAILS_ONCE)
    assert code == 1
    assert output.count("test_it.py::test_fails -") == 2
    assert "flaky: " not in output


def test_what_passes_runs_once(tmp_path: Path) -> None:
    (tmp_path / ".pytest_cache").mkdir()
    (tmp_path / ".pytest_cache/flaky").write_text(NAMED)  # of an earlier run
    code, output = rerun(tmp_path, PASSES)
    assert code == 0
    assert "1 passed" in output
    assert "once more" not in output
    assert not (tmp_path / ".pytest_cache/flaky").exists()


def test_a_run_that_ends_early_is_not_repeated(tmp_path: Path) -> None:
    code, output = rerun(tmp_path, "import no_such_module\n")
    assert code == 2
    assert "once more" not in output
