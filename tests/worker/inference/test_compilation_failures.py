"""A broken cache, copy or disk never stops a worker; it is logged once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flux_worker.inference.compilation import compiled_blocks
from flux_worker.inference.compiled_cache import key_of, name_of
from flux_worker.jobspec.job import Job
from tests.worker.inference.blocks import OTHER, SMALL, run, warnings

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("torch_as_it_was")]


def has_compiler() -> bool:
    return bool(shutil.which(os.environ.get("CXX", "g++")))


@pytest.fixture
def kept(transformer: Any, tmp_path: Path) -> Iterator[Path]:
    """A cache with the small size in it, as `flux-worker draw` leaves it."""
    if not has_compiler():
        pytest.skip("no C++ compiler")
    import torch

    cache = tmp_path / "cache"
    made = compiled_blocks(transformer, cache, "bf16", "cpu", fill=True)
    assert made
    run(made, transformer, SMALL)
    torch.compiler.reset()
    kept = cache / name_of(key_of("bf16", "cpu"))
    assert (kept / "compiled.json").is_file()
    yield kept


def drawn_eagerly(transformer: Any, cache: Path, jobs: tuple[Job, ...] = (SMALL, SMALL)) -> None:
    """The pictures are right, and no compiler had a part in them."""
    blocks = compiled_blocks(transformer, cache, "bf16", "cpu", fill=False)
    assert [run(blocks, transformer, job)[1] for job in jobs if blocks] in ([], [0] * len(jobs))


def damage(kept: Path) -> None:
    """As a disk does it: what lies there has its size, and other bytes."""
    with (kept / "blocks.tar").open("r+b") as file:
        file.seek(-20_000, os.SEEK_END)
        file.write(bytes(1000))


def cut(kept: Path) -> None:
    os.truncate(kept / "blocks.tar", 5000)


def lose(kept: Path) -> None:
    (kept / "blocks.tar").unlink()


def replace_by_a_folder(kept: Path) -> None:
    """Reading it fails, as reading from a broken disk does."""
    lose(kept)
    (kept / "blocks.tar").mkdir()


def nest(kept: Path) -> None:
    (kept / "compiled.json").write_text("[" * 100_000)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(damage, "is damaged and not used: remove it", id="damaged"),
        pytest.param(cut, "is damaged and not used: remove it", id="cut"),
        pytest.param(lose, "is damaged and not used: remove it", id="half-lost"),
        pytest.param(replace_by_a_folder, "no folder to compile in, .*Is a directory", id="not-read"),
        pytest.param(nest, "cannot be read", id="nested"),
    ],
)
def test_a_spoilt_cache_is_said_once_and_drawn_without(
    kept: Path,
    transformer: Any,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
    message: str,
) -> None:
    spoil(kept)
    before = set(Path(tempfile.gettempdir()).glob("flux-worker-compiled-*"))
    drawn_eagerly(transformer, kept.parent)
    assert set(Path(tempfile.gettempdir()).glob("flux-worker-compiled-*")) <= before
    [said] = warnings(caplog)
    assert re.search(message, said)


def test_a_damaged_cache_is_made_anew_by_hand(kept: Path, transformer: Any) -> None:
    damage(kept)
    made = compiled_blocks(transformer, kept.parent, "bf16", "cpu", fill=True)
    assert made
    assert run(made, transformer, SMALL)[1] == 1
    import torch

    torch.compiler.reset()
    used = compiled_blocks(transformer, kept.parent, "bf16", "cpu", fill=False)
    assert used
    assert run(used, transformer, SMALL)[1] == 1


def test_a_working_copy_that_is_removed_is_survived(
    kept: Path, transformer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """As by a cleaner of temporary files: nothing is compiled again while a job waits."""
    blocks = compiled_blocks(transformer, kept.parent, "bf16", "cpu", fill=False)
    assert blocks
    shutil.rmtree(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    shutil.rmtree(kept)
    assert [run(blocks, transformer, SMALL)[1] for _ in range(2)] == [0, 0]
    [said] = warnings(caplog)
    assert "was removed" in said


def test_what_was_drawn_before_a_cleaner_came_is_drawn_as_before(
    kept: Path, transformer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    blocks = compiled_blocks(transformer, kept.parent, "bf16", "cpu", fill=False)
    assert blocks
    assert run(blocks, transformer, SMALL)[1] == 1
    shutil.rmtree(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    run(blocks, transformer, SMALL)
    assert warnings(caplog) == []


@pytest.mark.parametrize("place", ["a file", "a file/below"])
def test_without_a_temporary_folder_drawing_is_eager(
    kept: Path,
    transformer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / place))
    drawn_eagerly(transformer, kept.parent)
    [said] = warnings(caplog)
    assert "no folder to compile in, running eagerly" in said


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 64 KiB for temporary files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], check=True)
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.root
def test_a_full_disk_for_temporary_files_is_survived(
    kept: Path, transformer: Any, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drawn_eagerly(transformer, kept.parent)
    [said] = warnings(caplog)
    assert "no folder to compile in, running eagerly: [Errno 28] No space left" in said
    assert list(small_disk.iterdir()) == []  # half a copy would keep the disk full


@pytest.mark.root
def test_a_disk_that_fills_while_blocks_are_compiled_is_survived(
    transformer: Any, small_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocks = compiled_blocks(transformer, tmp_path / "cache", "bf16", "cpu", fill=True)
    assert blocks
    (small_disk / "other").write_bytes(bytes(60 << 10))
    assert [run(blocks, transformer, job)[1] for job in (SMALL, SMALL, OTHER)][1:] == [0, 0]
    [said] = warnings(caplog)
    assert "cannot be compiled, running eagerly" in said
