"""What the warm-up reads and tells, whatever is wrong with its trace."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .warming import LIBRARY, WarmUp, part, trace, warm, whole

MIB = 1 << 20
# What the report always has, as agreed with those that read it.
AGREED = {"format", "recorded", "started", "ended", "bytes", "of", "seconds", "queue_depth", "cpu_seconds"}
AGREED |= {"stages", "skipped", "state"}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """300 modules and two files of weights."""
    modules = [tmp_path / f"{number}.pyc" for number in range(300)]
    for number, file in enumerate(modules):
        file.write_bytes(b"x" * (number * 40))
    weights = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for file in weights:
        file.write_bytes(os.urandom(3 * MIB + 17))
    return [*modules, *weights]


@pytest.fixture
def image(tmp_path: Path) -> dict[str, str]:
    """A worker's environment and model, by which an order can be guessed; returns changes of the program."""
    venv, cache = tmp_path / "venv", tmp_path / "hub"
    snapshot = cache / "models--owner--name/snapshots/abc"
    packages = venv / "lib/python3.11/site-packages"
    for name in ("text_encoder", "text_encoder_2", "transformer", "vae"):
        (snapshot / name).mkdir(parents=True)
        (cache / name).write_bytes(b"w" * MIB)
        (snapshot / name / "model.safetensors").symlink_to(cache / name)
    for name in ("torch/__pycache__/x.pyc", "torch/lib/libx.so.1", "torch/x.py", "other/x.pyc"):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_bytes(b"p" * 1000)
    lines = {"FLUX_MODEL_REPO": "owner/name", "FLUX_MODEL_REVISION": "abc", "HF_HUB_CACHE": str(cache)}
    text = "".join(f"{name}={value}\n" for name, value in lines.items())
    (tmp_path / "worker.env").write_text(f"# What every worker shares.\n{text}", encoding="utf-8")
    return {"VENV": str(venv)}


STATIC = {"libraries": 2000, "text_encoders": 2 * MIB, "transformer": MIB, "vae": MIB}


def sizes(report: dict[str, Any]) -> dict[str, int]:
    return {stage["name"]: stage["bytes"] for stage in report["stages"]}


def test_all_of_a_trace_is_read_and_told(files: list[Path], tmp_path: Path) -> None:
    *modules, first, second = files
    ranges = [whole(first), part(second, 5000, MIB), part(second, 2 * MIB, MIB + 17)]
    done = warm(tmp_path, trace(libraries=map(whole, modules), transformer=ranges))
    report = done.report
    libraries = sum(file.stat().st_size for file in modules)
    assert sizes(report) == {"libraries": libraries, "transformer": 3 * MIB + 17 + MIB + MIB + 17}
    assert report["bytes"] == report["of"] == sum(sizes(report).values())
    assert (done.code, report["state"], report["skipped"]) == (0, "done", [])
    assert report["recorded"] == "start on cpu"
    assert set(report) >= AGREED
    assert report["started"] <= report["ended"]
    assert "done: " in done.said


def test_what_differs_from_the_trace_is_left_out_and_each_reason_told_once(
    files: list[Path], tmp_path: Path
) -> None:
    """Another size, another time, gone, and what else may lie in a file's place: a link, a pipe, a folder."""
    listed = [whole(file) for file in files]
    (tmp_path / "secret").write_bytes(b"not to be read by a link")
    for number in range(10):
        files[number].write_bytes(b"of another size" * 100)
        os.utime(files[10 + number], ns=(0, 1))
        files[20 + number].unlink()
    for number, place in ((30, Path.unlink), (31, Path.unlink), (32, Path.unlink)):
        place(files[number])
    files[30].symlink_to(tmp_path / "secret")
    os.mkfifo(files[31])
    files[32].mkdir()
    done = warm(tmp_path, trace(libraries=listed))
    assert (done.code, done.report["state"]) == (0, "done")
    assert done.report["bytes"] == done.report["of"] - sum(size for _, _, _, size, _ in listed[:33])
    told = "\n".join(done.report["skipped"])
    for count, why in (
        (10, "has another size than in the trace"),
        (10, "was changed after the trace"),
        (10, "No such file or directory"),
        (1, "Too many levels of symbolic links"),
        (2, "is no regular file"),
    ):
        assert f"{count} left out" in told and why in told
        assert told.count(why) == done.said.count(why) == 1


def test_a_trace_of_another_image_is_followed_by_a_static_order(
    files: list[Path], tmp_path: Path, image: dict[str, str]
) -> None:
    """Ids do not matter: what counts is whether its files are here."""
    listed = [[path, *numbers[:-1], 12345] for path, *numbers in map(whole, files)]
    report = warm(tmp_path, trace(libraries=listed), **image).report
    assert (report["state"], report["recorded"], sizes(report)) == ("done", "static", STATIC)
    assert any("302 left out" in line and "was changed after" in line for line in report["skipped"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "No such file or directory"),
        ("", "is no trace: JSONDecodeError"),
        ("[]", "is no trace: TypeError"),
        ("{}", "is no trace: KeyError"),
        ('{"format": 2}', "is of format 2, and not 1"),
        ('{"format": 1, "stages": 5}', "is no trace: TypeError"),
        ('{"format": 1, "stages": [{"name": "libraries"}]}', "is no trace: KeyError"),
        ('{"format": 1, "stages": []}', "is of little or no use here"),
        ("[" * 100_000, "is no trace: RecursionError"),
        ("\udcff", "is no trace: UnicodeDecodeError"),
    ],
    ids=str,
)
def test_without_a_trace_the_order_is_static(
    tmp_path: Path, image: dict[str, str], text: str | None, why: str
) -> None:
    if text is not None:
        (tmp_path / "trace.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    done = warm(tmp_path, None, **image)
    assert (done.code, done.report["state"], done.report["recorded"]) == (0, "done", "static")
    assert sizes(done.report) == STATIC
    assert any(why in line for line in done.report["skipped"]), done.report["skipped"]


def test_entries_that_mean_nothing_are_left_out(files: list[Path], tmp_path: Path) -> None:
    path, *_, size, time = whole(files[-1])
    broken: list[Any] = [
        None,
        [],
        [path],
        [path, 0, 0, size, time, 1],
        [path, -1, 0, size, time],
        [path, 0, size + 1, size, time],
        [path, "0", 0, size, time],
        [path, True, 0, size, time],
        ["relative", 0, 0, size, time],
        ["/with/a/\0", 0, 0, size, time],
    ]
    done = warm(tmp_path, trace(vae=[*broken, whole(files[-1])]))
    assert (done.code, done.report["state"], done.report["bytes"]) == (0, "done", size)
    assert any("10 entries can't be understood" in line for line in done.report["skipped"])


def test_without_trace_and_model_it_ends_with_a_line(tmp_path: Path) -> None:
    done = warm(tmp_path, None, VENV=str(tmp_path))
    assert (done.code, done.report["state"], done.report["bytes"]) == (0, "failed", 0)
    assert any(
        "FileNotFoundError" in line and "the worker reads the rest" in line for line in done.report["skipped"]
    )


def test_where_its_report_cannot_be_written_it_reads_all_the_same(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "report.json.new").mkdir()
    done = warm(tmp_path, trace(libraries=map(whole, files)))
    assert done.code == 0
    assert done.said.count("can't be written: Is a directory") == 1
    assert "done: " in done.said


def test_after_one_that_was_killed_it_goes_on_and_says_so(files: list[Path], tmp_path: Path) -> None:
    """The report of a killed one stands as it was written last."""
    left = {"format": 1, "state": "reading", "started": 1.5, "bytes": 4711}
    (tmp_path / "report.json").write_text(json.dumps(left), encoding="utf-8")
    report = warm(tmp_path, trace(libraries=map(whole, files))).report
    assert (report["state"], report["started"], report["bytes"]) == ("done", 1.5, report["of"])
    assert any("was killed after 4,711 bytes" in line for line in report["skipped"])
    again = warm(tmp_path, trace(libraries=map(whole, files))).report
    assert (again["skipped"], again["started"] > 1.5) == ([], True)


def test_without_memory_for_its_requests_it_ends_with_a_line(files: list[Path], tmp_path: Path) -> None:
    entries, before = trace(libraries=map(whole, files)), ["prlimit", f"--data={32 * MIB}"]
    done = WarmUp(tmp_path, entries, {"CHUNK": 64 * MIB}, before).end()
    assert (done.code, done.report["state"], done.report["bytes"]) == (0, "failed", 0)
    [why] = done.report["skipped"]
    assert "Cannot allocate memory" in why


def test_it_imports_little_and_nothing_that_a_python_of_39_lacks() -> None:
    """Each module is read from a disk on which each block costs a wait."""
    shown = "import sys; sys.path.insert(0, sys.argv[1]); import warm; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-B", "-c", shown, str(LIBRARY)]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {
        "typing",
        "pathlib",
        "inspect",
        "argparse",
        "dataclasses",
        "logging",
        "ctypes",
        "site",
    }
    for file in LIBRARY.glob("*.py"):
        ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 9))
