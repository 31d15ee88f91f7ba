"""Run pytest, run what failed once more, and name at the end what passed only then.

    python tests/rerun.py [ARGUMENTS OF PYTEST]

A host that halts for seconds makes a test miss a moment. That must not reject a change, and must not stay
unseen either. The exit code is 0 where all passed at last, else pytest's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FAILED = Path(".pytest_cache/v/cache/lastfailed")  # pytest keeps the names there
FLAKY = Path(".pytest_cache/flaky")  # .ci/run shows it after all else


def pytest(*arguments: str) -> int:
    """Run pytest with this interpreter; return its exit code."""
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode


def main(*arguments: str) -> int:
    """Run the tests, then those that failed: in one process, up to the first that fails again."""
    FLAKY.unlink(missing_ok=True)
    code = pytest(*arguments, "--cache-clear")
    if code != 1:  # 0: all passed; from 2 on: the run itself ended early
        return code
    failed = json.loads(FAILED.read_text())
    print("\n== once more, alone: what failed above", flush=True)
    code = pytest(*arguments, "-n0", "--last-failed", "--last-failed-no-failures=none", "--maxfail=1")
    if code == 0:
        lines = [f"flaky: {name} (passed when run again; mend it before anything else)" for name in failed]
        FLAKY.write_text("\n".join(lines) + "\n")
        print("", *lines, sep="\n", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
