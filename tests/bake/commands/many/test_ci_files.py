"""What several bakes tell a job on GitHub: no two outputs have one name, and no line is cut by another."""

from __future__ import annotations

from pathlib import Path

import pytest

from bake.commands.many.ci_files import ROOM, CiFiles, renamed


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("digest=sha256:1\n", "g6e_digest=sha256:1\n", id="a line"),
        pytest.param("a=b=c\nempty=\n", "g6e_a=b=c\ng6e_empty=\n", id="equals signs"),
        pytest.param("", "", id="nothing"),
        pytest.param("rubbish\nok=1\n", "g6e_ok=1\n", id="no output"),
        pytest.param("text<<E\nnever ended\n", "", id="cut"),
    ],
)
def test_outputs_get_their_profile(content: str, expected: str) -> None:
    assert renamed(content, "g6e") == expected


def test_a_value_of_several_lines_stays_whole() -> None:
    lines = renamed("text<<E\none\nx=y\nE\nlast=1\n", "g6e").splitlines()
    name, mark = lines[0].split("<<")
    assert name == "g6e_text"
    assert lines[1:] == ["one", "x=y", mark, "g6e_last=1"]


def test_a_summary_too_many_is_left_out_and_the_others_stay(tmp_path: Path) -> None:
    target = tmp_path / "summary.md"
    files = CiFiles({"GITHUB_STEP_SUMMARY": str(target)})
    for profile, text in {"a": "first\n", "b": "x" * ROOM, "c": "third\n"}.items():
        Path(files.of(profile)["GITHUB_STEP_SUMMARY"]).write_text(text)
        files.take(profile)
    files.close()
    assert target.read_text() == "first\nthird\n"


def test_where_there_is_no_job_nothing_is_made() -> None:
    files = CiFiles({"GITHUB_OUTPUT": ""})
    assert files.of("a") == {}
    files.take("a")
    files.close()


def test_a_file_that_cant_be_written_costs_no_bake(tmp_path: Path) -> None:
    files = CiFiles({"GITHUB_OUTPUT": str(tmp_path / "absent" / "output")})
    Path(files.of("a")["GITHUB_OUTPUT"]).write_text("x=1\n")
    files.take("a")
    files.close()
