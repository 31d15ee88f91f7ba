"""How a Python program gets to a machine, and how its facts come back; this machine stands for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bake.checks.probes import probe
from bake.ssh.program import Program, facts


def run(program: Program, given: dict[str, object]) -> subprocess.CompletedProcess[bytes]:
    command = program.command(sys.executable)
    return subprocess.run(command, input=program.stdin(given), capture_output=True, check=False)


def files(folder: Path, **texts: str) -> list[Path]:
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return [folder / f"{name}.py" for name in texts]


def test_a_program_reads_its_input_and_imports_what_came_with_it(tmp_path: Path) -> None:
    library = "def twice(text):\n    return 2 * text\n"
    main = "import json, sys, library\nprint('é')\nif __name__ == '__main__':\n"
    main += "    print(json.dumps({'said': library.twice(json.load(sys.stdin)['say'])}))\n"
    done = run(Program.read(*files(tmp_path, library=library, main=main)), {"say": "a✓"})
    assert facts(done.stdout.decode()) == {"said": "a✓a✓"}


def test_neither_program_nor_input_is_an_argument(tmp_path: Path) -> None:
    program = Program.read(*files(tmp_path, main="SECRET = 1\n"))
    assert not any("SECRET" in word for word in program.command())


def test_a_traceback_names_the_program(tmp_path: Path) -> None:
    done = run(Program.read(*files(tmp_path, broken="1 / 0\n")), {})
    assert done.returncode == 1
    assert b'File "<broken>", line 1' in done.stderr


def test_a_probe_is_such_a_program(tmp_path: Path) -> None:
    done = run(probe("checkpoint"), {"folder": str(tmp_path / "nowhere")})
    assert facts(done.stdout.decode()) == {"there": False}


@pytest.mark.parametrize("said", ["", "a greeting\n", "{not JSON}\n"])
def test_no_facts_are_an_error(said: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting"):
        facts(said)


def test_what_a_shell_prints_around_the_facts_is_left_out() -> None:
    assert facts('welcome\n{"a": 1}\nbye\n') == {"a": 1}
