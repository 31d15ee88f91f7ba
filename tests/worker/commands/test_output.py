"""Outputs that are not writable are refused before generating; no generated image is lost."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import flux_worker.inference.model
from flux_worker.cli import main
from flux_worker.commands import output
from tests.worker.conftest import until

pytestmark = pytest.mark.integration
COMMAND = str(Path(sys.executable).parent / "flux-worker")
SMALL = ["--prompt", "a cat", "--width", "256", "--height", "256", "--steps", "1", "--seed", "7"]

Draw = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may look into, too; here and as TMPDIR of nobody."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def draw(
    model: Any, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: Any, folder: Path
) -> Draw:
    """The command in this process, with the tiny FLUX that is loaded already: exit code, stdout, stderr."""
    for name in ("FLUX_MODEL_REVISION", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, environment[name])
    monkeypatch.setattr(flux_worker.inference.model, "load", lambda *_, **__: model)
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["draw", *SMALL, *arguments])
        shown = capfd.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return run


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flux_worker.inference.model, "load", lambda *_, **__: pytest.fail("it was loaded"))


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """root may write everywhere."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        pytest.param("x" * 252 + ".png", "File name too long", id="name-of-256"),
        pytest.param("/proc/cat.png", "is not writable", id="file-system-without-files"),
        pytest.param("taken", r"--images 2: \S+taken can hold one image", id="pipe-for-two"),
        pytest.param("file/cat.png", "an existing folder", id="file-as-folder"),
        pytest.param("loop.png", "symbolic links", id="link-to-itself"),
        pytest.param("nowhere.png", "No such file or directory", id="link-into-no-folder"),
        pytest.param("both.png", "both-2.png is not writable: Is a directory", id="second-is-a-folder"),
        pytest.param("-", "--images 2: standard output can hold one image", id="two-on-stdout"),
    ],
)
@pytest.mark.usefixtures("no_model")
def test_what_cannot_be_written_is_refused_before_the_model_loads(
    draw: Draw, folder: Path, out: str, reason: str
) -> None:
    os.mkfifo(folder / "taken")
    (folder / "file").touch()
    (folder / "loop-1.png").symlink_to("loop-1.png")
    (folder / "nowhere-2.png").symlink_to("no/such.png")
    (folder / "both-2.png").mkdir()
    before = names(folder)
    code, _, err = draw("--images", "2", "--out", out if out == "-" else str(folder / out))
    assert code == 2
    assert "Loaded" not in err
    assert re.search(reason, " ".join(err.split()))
    assert names(folder) == before


@pytest.mark.usefixtures("no_model")
def test_what_may_not_be_written_is_refused_before_the_model_loads(draw: Draw, folder: Path) -> None:
    (folder / "locked.png").write_bytes(b"old")
    (folder / "locked.png").chmod(0o444)
    folder.chmod(0o555)
    try:
        with nobody():
            for out in ("cat.png", "locked.png"):
                code, _, err = draw("--out", out)
                assert (code, f"{out} is not writable: Permission denied" in " ".join(err.split())) == (
                    2,
                    True,
                )
    finally:
        folder.chmod(0o755)
    assert names(folder) == ["locked.png"]
    assert (folder / "locked.png").read_bytes() == b"old"


@pytest.mark.usefixtures("no_model")
def test_a_full_disk_is_found_out_before_the_model_loads(draw: Draw, folder: Path) -> None:
    """A limit of the process stands for the disk's end; the kernel refuses either in the same place."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        code, _, err = draw("--out", str(folder / "cat.png"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (code, "cat.png is not writable: File too large" in " ".join(err.split())) == (2, True)
    assert names(folder) == []


def test_a_name_may_be_as_long_as_names_can_be(draw: Draw, folder: Path) -> None:
    name = "x" * 251 + ".png"
    code, out, err = draw("--out", name)
    assert (code, f"Wrote {name}" in out) == (0, True), err
    assert names(folder) == [name]
    assert Image.open(folder / name).size == (256, 256)


def test_a_file_is_replaced_whole_and_keeps_its_permissions(draw: Draw, folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "real/cat.png").write_bytes(b"old" * 1_000_000)
    (folder / "real/cat.png").chmod(0o640)
    (folder / "cat.png").symlink_to("real/cat.png")
    code, _, err = draw("--out", "cat.png")
    assert code == 0, err
    assert (folder / "cat.png").is_symlink()
    assert names(folder / "real") == ["cat.png"]
    assert (folder / "real/cat.png").stat().st_mode & 0o777 == 0o640
    assert Image.open(folder / "real/cat.png").size == (256, 256)
    assert (folder / "real/cat.png").stat().st_size < 500_000


def test_a_link_to_nothing_yet_makes_what_it_names(draw: Draw, folder: Path) -> None:
    (folder / "cat.png").symlink_to("other.png")
    assert draw("--out", "cat.png")[0] == 0
    assert (folder / "other.png").is_file()
    assert not (folder / "other.png").is_symlink()


@pytest.mark.parametrize("out", ["-", "/dev/stdout"])
def test_standard_output_takes_the_image_and_nothing_else(
    draw: Draw, model: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    """As `> cat.webp` has it: the shell's own file is written to, and none is put in its place."""
    check = type(model).check
    monkeypatch.setattr(
        type(model), "check", lambda *given: (os.write(1, b"a library speaks"), check(*given))
    )
    with (folder / "cat.webp").open("w+b") as file:
        kept = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            code, _, err = draw("--out", out, "--format", "webp")
        finally:
            os.dup2(kept, 1)
            os.close(kept)
        assert code == 0, err
        file.seek(0)
        with Image.open(io.BytesIO(file.read())) as image:
            assert (image.format, image.size) == ("WEBP", (256, 256))
    assert "Wrote standard output (256x256, 1 steps, seed 7)" in err
    assert names(folder) == ["cat.webp"]


@pytest.mark.parametrize(
    "arguments", [["draw", *SMALL, "--json"], ["send", "a cat", "--json"]], ids=["draw", "send"]
)
def test_image_and_facts_never_share_standard_output(arguments: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--out", "-"])
    assert ended.value.code == 2
    assert "both write to standard output" in capsys.readouterr().err


def test_a_terminal_is_no_place_for_an_image(environment: dict[str, str], folder: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [COMMAND, "draw", *SMALL, "--out", "-"],
            env=environment,
            stdout=theirs,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=folder,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 2
    assert "standard output is not writable: it is a terminal" in " ".join(done.stderr.split())


def test_a_pipe_is_written_to_and_stays(draw: Draw, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((folder / "pipe").read_bytes()))
    reader.start()
    code, out, err = draw("--out", "pipe", "--format", "jpg")
    reader.join()
    assert (code, "Wrote pipe" in out) == (0, True), err
    assert Image.open(io.BytesIO(read[0])).format == "JPEG"
    assert (folder / "pipe").is_fifo()
    assert draw("--out", "/dev/null")[0] == 0
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("json_", [[], ["--json"]], ids=["text", "json"])
def test_what_a_device_does_not_take_is_kept_elsewhere(
    draw: Draw, folder: Path, monkeypatch: pytest.MonkeyPatch, json_: list[str]
) -> None:
    (folder / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "tmp"))
    code, out, err = draw("--out", "/dev/full", *json_)
    (kept,) = (folder / "tmp").iterdir()
    assert code == 1
    assert f"cannot write /dev/full: No space left on device; the image is saved as {kept}" in err
    assert Image.open(kept).size == (256, 256)
    assert (json.loads(out)["files"] == [str(kept)]) if json_ else f"Wrote {kept}" in out


def test_one_that_cannot_get_its_name_is_kept_and_the_others_are_written(
    draw: Draw, folder: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody makes a folder of that name while it is drawn."""
    check = type(model).check

    def checked(self: Any, job: Any) -> None:
        (folder / "cat-2.png").mkdir()
        check(self, job)

    monkeypatch.setattr(type(model), "check", checked)
    code, out, err = draw("--out", "cat.png", "--images", "3")
    assert code == 1
    (kept,) = [name for name in names(folder) if name.startswith("flux-")]
    assert names(folder) == sorted(["cat-1.png", "cat-2.png", "cat-3.png", kept])
    assert f"cannot write cat-2.png: Is a directory; the image is saved as {folder / kept}" in err
    assert re.findall(r"Wrote (\S+) .*, seed (\d+)\)", out) == [
        ("cat-1.png", "7"),
        (str(folder / kept), "8"),
        ("cat-3.png", "9"),
    ]
    assert Image.open(folder / kept).size == (256, 256)


def test_whoever_reads_and_leaves_does_not_lose_the_image(environment: dict[str, str], folder: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [COMMAND, "draw", *SMALL, "--out", "-"],
        env=environment | {"TMPDIR": str(folder)},
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(theirs)
    (kept,) = folder.glob("flux-*")
    assert done.returncode == 1
    assert f"cannot write standard output: Broken pipe; the image is saved as {kept}" in done.stderr
    assert Image.open(kept).size == (256, 256)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_an_interrupt_leaves_no_temporary_files(
    environment: dict[str, str], folder: Path, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [COMMAND, "draw", *SMALL, "--images", "4", "--out", "cat.png"],
        env=environment,
        cwd=folder,
        stderr=subprocess.DEVNULL,
    ) as process:
        until(lambda: len(names(folder)) == 4, 30, "the files to be opened")
        assert all(name.startswith(".flux-") for name in names(folder))
        process.send_signal(number)
        assert process.wait(120) == (1 if number == signal.SIGINT else 128 + number)
    assert names(folder) == []


def test_a_file_system_that_reserves_nothing_is_written_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as NFS 3, where the C library's way around it may be refused, too."""

    def refuse(*_: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with output.opened([folder / "cat.png"], 1_000) as (place,):
        place.write(b"new")
    assert (folder / "cat.png").read_bytes() == b"new"


def test_what_is_not_written_leaves_the_old_file(folder: Path) -> None:
    (folder / "cat.png").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), output.opened([folder / "cat.png"], 1_000):
        raise ZeroDivisionError
    assert (folder / "cat.png").read_bytes() == b"old"
    assert names(folder) == ["cat.png"]
