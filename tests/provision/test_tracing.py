"""What a start reads is recorded: on real files, of real processes that read them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "provision"))
from tracing import order, read_ahead
from tracing.ranges import GAP, Range, Stage, closed, rest, whole
from tracing.residency import PAGE, Residency, below, written

PROVISION = Path(__file__).parents[2] / "provision"
LARGE = 8 << 20


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder on a disk: /tmp may be in memory, and nothing puts a file out of that."""
    with tempfile.TemporaryDirectory(prefix="bake-tracing-", dir="/var/tmp") as folder:
        yield Path(folder)


def put(file: Path, size: int = 100) -> Path:
    """A file with content, on the disk."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        opened.write(os.urandom(size))
        opened.flush()
        os.fsync(opened.fileno())
    return file


@pytest.fixture
def watched(disk: Path) -> Iterator[Callable[..., Residency]]:
    made: list[Residency] = []

    def watch(*paths: Path) -> Residency:
        made.append(Residency(map(str, paths)))
        return made[-1]

    yield watch
    for one in made:
        one.close()


def read(file: Path, offset: int = 0, length: int = PAGE) -> None:
    with file.open("rb", buffering=0) as opened:
        opened.seek(offset)
        opened.read(length)


def names(ranges: list[Range]) -> list[str]:
    return [Path(one.path).name for one in ranges]


def test_files_are_seen_in_the_order_in_which_they_are_read(
    disk: Path, watched: Callable[..., Residency]
) -> None:
    files = [put(disk / name) for name in "abcd"]
    residency = watched(*files)
    assert (residency.stayed, residency.look()) == (0, [])
    seen = []
    for name in "cad":
        read(disk / name)
        seen += residency.look()
    assert names(seen) == ["c", "a", "d"]
    assert [one.bytes for one in seen] == [100] * 3
    assert residency.look() == []


def test_of_a_large_file_the_parts_are_seen_and_each_once(
    disk: Path, watched: Callable[..., Residency]
) -> None:
    file = put(disk / "library.so", LARGE)
    residency = watched(file)
    seen = []
    for offset in (LARGE - PAGE, 0):
        read(file, offset)
        seen.append(residency.look())
    (last,), (first,) = seen
    assert last.offset + last.length == LARGE
    assert first.offset == 0
    assert first.length + last.length < LARGE
    read(file, 0, LARGE)
    everything = [first, last, *residency.look()]
    assert sum(one.length for one in everything) == LARGE
    assert sorted(everything, key=lambda one: one.offset)[1].offset >= first.length


def test_what_is_no_file_is_not_watched(disk: Path, watched: Callable[..., Residency]) -> None:
    (disk / "empty").touch()
    (disk / "link").symlink_to(put(disk / "file"))
    residency = watched(disk / "empty", disk / "link", disk / "gone", disk / "file")
    assert [Path(one.path).name for one in residency.files] == ["file"]


def test_runs_that_a_snapshots_block_joins_are_one() -> None:
    assert list(closed([(0, 1), (1 + GAP - 1, GAP + 5), (3 * GAP, 3 * GAP + 1)])) == [
        (0, GAP + 5),
        (3 * GAP, 3 * GAP + 1),
    ]
    assert list(closed([])) == []


def test_the_rest_of_a_file_is_what_no_range_has(disk: Path) -> None:
    file = whole(put(disk / "x", 100))
    assert file is not None
    known = [Range(file.path, offset, 10, 100, file.mtime) for offset in (10, 50, 55)]
    assert [(one.offset, one.length) for one in rest(file.path, known)] == [(0, 10), (20, 30), (65, 35)]
    assert rest(file.path, [file]) == ()
    assert rest(str(disk / "gone"), []) == ()


@dataclass(frozen=True)
class Worker:
    """A made-up environment and model, and the recorder as the bake runs it."""

    folder: Path

    @property
    def packages(self) -> Path:
        return self.folder / "venv/lib/python3.11/site-packages"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    def command(self, *words: str, program: str | None = None) -> list[str]:
        places = {"venv": self.folder / "venv", "out": self.folder / "image/trace.json", "model": self.model}
        given = [f"--{name}={place}" for name, place in places.items()]
        given += ["--image=run-1", f"--scratch={self.folder / 'scratch'}", *words]
        start = ["--", sys.executable, "-I", "-c", program, str(self.packages)] if program else []
        return [sys.executable, "-m", "tracing", *given, *start]

    def record(self, *words: str, program: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The facts that the recorder prints, and the trace."""
        command = self.command(*words, program=program)
        done = subprocess.run(command, cwd=PROVISION, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        trace = json.loads((self.folder / "image/trace.json").read_text())
        return json.loads(done.stdout.splitlines()[-1]), trace


@pytest.fixture
def worker(disk: Path) -> Worker:
    found = Worker(disk)
    put(disk / "base/lib/python3.11/os.py")
    put(disk / "base/lib/python3.11/__pycache__/os.cpython-311.pyc")
    (disk / "venv").mkdir()
    (disk / "venv/pyvenv.cfg").write_text(f"home = {disk}/base/bin\nversion_info = 3.11.2\n")
    put(found.packages / "torch/__pycache__/__init__.cpython-311.pyc")
    put(found.packages / "torch/include/torch.h")
    for name in ("libtorch_cpu.so", "libtorch_cuda.so", "libc10.so"):
        put(found.packages / "torch/lib" / name, LARGE)
    put(found.packages / "nvidia/cublas/lib/libcublas.so.12", LARGE)
    put(found.packages / "nvidia/cufft/lib/libcufft.so.11", LARGE)
    for part in ("vae", "transformer", "text_encoder_2", "text_encoder"):
        put(found.model / part / "config.json")
        for number in (2, 1):
            blob = put(disk / "blobs" / f"{part}{number}", 1000)
            (found.model / part / f"model-0000{number}.safetensors").symlink_to(blob)
    put(found.model / "model_index.json")
    put(found.model / "tokenizer/merges.txt")
    put(found.model / "flux1-dev.safetensors")
    return found


# Reads the ends of torch's library, a module of the standard library and bytecode; argument: the packages.
READS = """
import os, pathlib, sys
packages = pathlib.Path(sys.argv[1])
library = packages / "torch/lib/libtorch_cpu.so"
with library.open("rb", buffering=0) as file:
    file.read(4096)
(packages / "torch/__pycache__/__init__.cpython-311.pyc").read_bytes()
print("noise")
"""


def paths(trace: dict[str, Any], stage: str) -> list[str]:
    return [
        Path(one[0]).name for found in trace["stages"] if found["name"] == stage for one in found["ranges"]
    ]


def test_a_start_is_recorded_and_the_weights_follow_in_the_order_in_which_they_are_loaded(
    worker: Worker,
) -> None:
    facts, trace = worker.record("--recorded=start on cpu", program=READS)
    assert (trace["format"], trace["image"], trace["recorded"]) == (1, "run-1", "start on cpu")
    assert (facts["recorded"], facts["why"]) == ("start on cpu", "")
    assert [one["name"] for one in trace["stages"]] == ["libraries", "text_encoders", "transformer", "vae"]
    read_ = set(paths(trace, "libraries"))
    assert {"libtorch_cpu.so", "__init__.cpython-311.pyc"} <= read_
    assert not {"libtorch_cuda.so", "libc10.so", "os.cpython-311.pyc"} & read_
    assert paths(trace, "text_encoders")[-4:] == [
        *("text_encoder1", "text_encoder2", "text_encoder_21", "text_encoder_22"),
    ]
    assert "merges.txt" in paths(trace, "text_encoders")
    assert paths(trace, "transformer") == ["transformer1", "transformer2"]
    assert "flux1-dev.safetensors" not in str(trace)
    assert facts["opened_libraries"] == [str(worker.packages / "torch/lib/libtorch_cpu.so")]


def test_each_range_lies_in_its_file_as_that_is(worker: Worker) -> None:
    _, trace = worker.record(program=READS)
    ranges = [one for stage in trace["stages"] for one in stage["ranges"]]
    assert ranges
    for path, offset, length, size, mtime in ranges:
        found = Path(path).lstat()
        assert (found.st_size, found.st_mtime_ns) == (size, mtime)
        assert Path(path).resolve() == Path(path)
        assert offset + (length or size) <= size


def test_nothing_of_a_start_is_left(worker: Worker) -> None:
    leaves = "import pathlib, os; pathlib.Path(os.environ['XDG_CACHE_HOME'], 'left').touch()"
    before = set(below([str(worker.folder)]))
    facts, _ = worker.record("--set", "FLUX_BACKEND=cpu", program=leaves)
    assert facts["why"] == ""
    assert set(below([str(worker.folder)])) - before == {str(worker.folder / "image/trace.json")}


@pytest.mark.parametrize(
    ("program", "words", "why"),
    [
        pytest.param("raise SystemExit('no model')", (), "exit code 1: no model", id="fails"),
        pytest.param("import os; os.kill(os.getpid(), 9)", (), "exit code -9", id="killed"),
        pytest.param(
            "import signal; signal.pause()", ("--limit=0.5",), "took more than 0 s", id="never-ends"
        ),
        pytest.param("pass", ("--user=nobody-of-this-name",), "LookupError", id="a-bug"),
    ],
)
def test_a_start_that_goes_wrong_leaves_what_is_known(
    worker: Worker, program: str, words: tuple[str, ...], why: str
) -> None:
    facts, trace = worker.record("--recorded=start on cpu", *words, program=program)
    assert why in facts["why"]
    assert facts["recorded"] == trace["recorded"] == "static"
    assert facts["opened_libraries"] == []
    libraries = paths(trace, "libraries")
    assert {"libtorch_cpu.so", "libc10.so", "os.cpython-311.pyc", "__init__.cpython-311.pyc"} <= set(
        libraries
    )
    assert "torch.h" not in libraries
    assert paths(trace, "vae") == ["vae1", "vae2"]


def test_a_start_that_takes_too_long_is_ended(worker: Worker) -> None:
    file = worker.folder / "pid"
    waits = f"import os, signal; open({str(file)!r}, 'w').write(str(os.getpid())); signal.pause()"
    worker.record("--limit=1", program=waits)
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


def test_what_a_gpu_needs_comes_last_where_no_start_was_recorded_on_one(worker: Worker) -> None:
    facts, trace = worker.record("--gpu=elsewhere", "--recorded=start on cpu", program=READS)
    assert facts["recorded"] == "start on cpu"
    assert [one["name"] for one in trace["stages"]][-2:] == ["vae", "device"]
    assert paths(trace, "device") == ["libtorch_cuda.so", "libcublas.so.12"]
    _, trace = worker.record("--gpu=here", "--recorded=start on cuda", program=READS)
    assert [one["name"] for one in trace["stages"]][-1] == "vae"
    _, trace = worker.record("--gpu=here", "--why=the recorder was killed")
    assert paths(trace, "device") == ["libtorch_cuda.so", "libcublas.so.12"]
    assert "libtorch_cuda.so" not in paths(trace, "libraries")


def test_an_image_for_neuron_names_what_was_compiled(worker: Worker) -> None:
    put(worker.folder / "neuron/1024x1024/transformer/model.neuron", 500)
    facts, trace = worker.record(f"--compiled={worker.folder / 'neuron'}", "--why=not started")
    assert (facts["recorded"], facts["why"]) == ("static", "not started")
    assert [one["name"] for one in trace["stages"]] == ["libraries", "transformer"]
    assert paths(trace, "transformer") == ["model.neuron"]


def test_read_ahead_is_lowered_while_it_is_recorded(tmp_path: Path) -> None:
    file, kept = tmp_path / "read_ahead_kb", tmp_path / "kept"
    file.write_text("2560\n")
    with read_ahead.lowered(file, kept) as kib:
        assert (kib, int(file.read_text())) == (read_ahead.KIB, read_ahead.KIB)
    assert (int(file.read_text()), kept.exists()) == (2560, False)


def test_a_killed_recorder_leaves_the_read_ahead_to_the_next(worker: Worker) -> None:
    file, kept = worker.folder / "read_ahead_kb", worker.folder / "scratch/read-ahead"
    file.write_text("32")
    kept.parent.mkdir()
    kept.write_text(f"{file}\n2560\n")
    worker.record("--why=the recorder was killed")
    assert (file.read_text(), kept.exists()) == ("2560", False)


def test_read_ahead_that_cannot_be_changed_is_told(tmp_path: Path) -> None:
    file, kept = tmp_path / "read_ahead_kb", tmp_path / "gone/kept"
    file.write_text("128\n")
    with read_ahead.lowered(file, kept) as kib:
        assert kib == 128
    with read_ahead.lowered(None, kept) as kib:
        assert kib is None
    assert file.read_text() == "128\n"


@pytest.mark.parametrize("partition", [False, True])
def test_the_read_ahead_is_the_whole_disks(tmp_path: Path, partition: bool) -> None:
    number = tmp_path.stat().st_dev
    device = tmp_path / "devices/nvme0n1"
    (device / "queue").mkdir(parents=True)
    (device / "queue/read_ahead_kb").write_text("128\n")
    (device / "nvme0n1p1").mkdir()
    (tmp_path / "sys").mkdir()
    link = tmp_path / f"sys/{os.major(number)}:{os.minor(number)}"
    link.symlink_to(device / "nvme0n1p1" if partition else device)
    found = read_ahead.of_disk(str(tmp_path), tmp_path / "sys")
    assert found is not None and found.read_text() == "128\n"
    assert read_ahead.of_disk(str(tmp_path), tmp_path / "nothing") is None


def test_dirty_files_are_written_out_before(disk: Path, watched: Callable[..., Residency]) -> None:
    (disk / "dirty").write_bytes(b"x" * PAGE)
    written(str(disk))
    assert watched(disk / "dirty").stayed == 0


def test_stages_are_summed_up() -> None:
    part, all_ = Range("/a", 4096, 100, 9000, 1), Range("/b", 0, 0, 50, 1)
    assert Stage("vae", (part, all_)).facts() == {"name": "vae", "bytes": 150, "files": 2, "ranges": 2}


def test_the_standard_library_is_that_of_the_environments_python(worker: Worker) -> None:
    found = order.standard_library(worker.folder / "venv")
    assert found == [str(worker.folder / "base/lib/python3.11")]
