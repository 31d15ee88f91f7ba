"""The first page of each tensor is read early, and many at once."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flux_worker.inference.streaming.first_pages import read_first_pages, tensor_starts
from tests.worker.conftest import until

PAGE = mmap.PAGESIZE


def model(folder: Path) -> Path:
    """Tensors of several pages, so that most pages begin none."""
    file = folder / "model.safetensors"
    save_file({name: torch.ones(40, PAGE, dtype=torch.uint8) for name in "abc"}, file, {"format": "pt"})
    with file.open("rb") as content:
        os.fsync(content.fileno())  # dirty pages would stay in memory
        os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return file


def resident(file: Path) -> set[int]:
    """Numbers of the pages that are in memory (mincore(2))."""
    size = file.stat().st_size
    with file.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        found = (ctypes.c_ubyte * (-(-size // PAGE)))()
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), found) == 0
    return {number for number, state in enumerate(found) if state & 1}


def test_the_page_of_each_tensor_is_read_and_not_the_weights(tmp_path: Path) -> None:
    file = model(tmp_path)
    starts = {start // PAGE for start in tensor_starts(file)}
    assert len(starts) == 3 and not starts <= resident(file)
    read_first_pages([file])
    until(lambda: starts <= resident(file), 10, "the tensors' first pages")
    assert len(resident(file)) < 20, "what lies between was read as well"


def test_mapping_the_tensors_touches_nothing_else(tmp_path: Path) -> None:
    """What these pages are read for: another release of safetensors might touch more, or nothing."""
    file = model(tmp_path)
    read_first_pages([file])
    starts = {start // PAGE for start in tensor_starts(file)}
    until(lambda: starts <= resident(file), 10, "the tensors' first pages")
    load_file(file)
    assert len(resident(file)) < 20, "pages were missing, and came with what the kernel reads ahead"


@pytest.mark.parametrize(
    "content", [b"", b"\x05", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0{}", b"\x02\0\0\0\0\0\0\0[]", b"\x01" * 64]
)
def test_what_is_no_safetensors_is_left_to_the_libraries(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd").write_bytes(content)
    assert tensor_starts(tmp_path / "odd") == []
    assert tensor_starts(tmp_path / "missing") == []
