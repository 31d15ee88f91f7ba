"""The whole way of compiled blocks: `draw` fills, another user's `serve` reads, any other key is refused."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from flux_worker.inference import compiled_cache, nvidia_driver
from flux_worker.inference.compilation import compiled_blocks
from flux_worker.inference.compiled_cache import Entry, Unusable
from tests.worker.inference.blocks import SMALL, run, warnings

pytestmark = pytest.mark.integration

KEY = {
    "GPU": "NVIDIA L40S sm89",
    "driver": "580.95.05",
    "torch": "2.13.0",
    "triton": "3.7.1",
    "diffusers": "0.42.1",
    "torchao": "0.18.0",
    "precision": "bf16",
}
SIZE = (1024, 1024, 512)


def filled(work: Path, cache: Path, key: dict[str, str] | None = None) -> Path:
    """A folder of the cache, with what a compiler might have left in `work`."""
    (work / "fxgraph").mkdir(parents=True, exist_ok=True)
    (work / "fxgraph" / "graph").write_bytes(b"graph")
    (work / "kernel.lock").touch()
    folder = cache / compiled_cache.name_of(key or KEY)
    compiled_cache.store(work, folder, key or KEY, {SIZE})
    return folder


def entry_of(folder: Path) -> Entry:
    found = compiled_cache.read(folder)
    assert found
    return found


def test_what_is_stored_comes_back_with_its_key_and_without_locks(tmp_path: Path) -> None:
    entry = entry_of(filled(tmp_path / "work", tmp_path / "cache"))
    assert (entry.key, entry.sizes) == (KEY, {SIZE})
    back = tmp_path / "back"
    back.mkdir()
    compiled_cache.unpack(entry, back)
    assert [file.relative_to(back) for file in back.rglob("*") if file.is_file()] == [Path("fxgraph/graph")]


def test_root_fills_what_any_user_may_read_and_none_may_change(tmp_path: Path) -> None:
    """The bake fills the cache as root; the worker's user reads it."""
    work = tmp_path / "work"
    work.mkdir(mode=0o700)
    before = os.umask(0o022)
    try:
        folder = filled(work, tmp_path / "cache")
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (folder, *folder.iterdir())}
    assert modes == {folder.name: 0o755, "blocks.tar": 0o644, "compiled.json": 0o644}


def test_the_same_blocks_make_the_same_file_whatever_the_time(tmp_path: Path) -> None:
    first = filled(tmp_path / "work", tmp_path / "first")
    os.utime(tmp_path / "work" / "fxgraph" / "graph", (0, 0))
    second = filled(tmp_path / "work", tmp_path / "second")
    assert (first / "blocks.tar").read_bytes() == (second / "blocks.tar").read_bytes()


def test_tritons_lists_name_the_files_of_the_folder_that_is_used(tmp_path: Path) -> None:
    """Triton lists a kernel's files by absolute paths, and compiles it again where they are gone."""
    work, back = tmp_path / "work", tmp_path / "back"
    kernel = work / "triton" / "ABC"
    kernel.mkdir(parents=True)
    back.mkdir()
    (kernel / "add.cubin").write_bytes(b"code")
    children = {"add.cubin": str(kernel / "add.cubin")}
    (kernel / "__grp__add.json").write_text(json.dumps({"child_paths": children}))
    entry = entry_of(filled(work, tmp_path / "cache"))
    shutil.rmtree(work)
    compiled_cache.unpack(entry, back)
    told = json.loads((back / "triton" / "ABC" / "__grp__add.json").read_text())
    assert [Path(path).read_bytes() for path in told["child_paths"].values()] == [b"code"]
    assert told["child_paths"]["add.cubin"].startswith(str(back))


def test_a_file_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    import hashlib
    import io
    import tarfile

    folder = filled(tmp_path / "work", tmp_path / "cache")
    with tarfile.open(folder / "blocks.tar", "w") as tar:
        entry = tarfile.TarInfo("../outside")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"bad"))
    told = json.loads((folder / "compiled.json").read_text())
    told["sha256"] = hashlib.sha256((folder / "blocks.tar").read_bytes()).hexdigest()
    (folder / "compiled.json").write_text(json.dumps(told))
    back = tmp_path / "back"
    back.mkdir()
    with pytest.raises(Unusable, match="damaged"):
        compiled_cache.unpack(entry_of(folder), back)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("GPU", "NVIDIA A10G sm86"),
        ("driver", "580.126.09"),
        ("torch", "2.14.0"),
        ("triton", "3.8.0"),
        ("diffusers", "0.43.0"),
        ("torchao", "0.19.0"),
        ("precision", "int8"),
    ],
)
def test_each_part_of_the_key_has_a_folder_of_its_own_and_is_named(
    tmp_path: Path, part: str, other: str
) -> None:
    folder = filled(tmp_path / "work", tmp_path / "cache")
    here = KEY | {part: other}
    assert compiled_cache.read(folder.parent / compiled_cache.name_of(here)) is None
    assert compiled_cache.differences(folder.parent, here) == f"{part} {KEY[part]}, not {other}"


def test_of_several_folders_the_most_similar_is_compared(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    filled(tmp_path / "work", cache, KEY | {"GPU": "NVIDIA A10G sm86", "torch": "2.12.0"})
    filled(tmp_path / "work", cache, KEY | {"driver": "1.2.3"})
    (cache / "broken").mkdir()
    (cache / "broken" / "compiled.json").write_text('{"key": 7}')
    assert compiled_cache.differences(cache, KEY) == "driver 1.2.3, not 580.95.05"
    assert compiled_cache.differences(tmp_path / "nothing", KEY) is None


def test_on_a_gpu_the_key_has_its_name_and_the_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The outermost edge of CUDA is faked: what torch says of the device, and the kernel of the driver."""
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA L40S")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 9))
    file = tmp_path / "version"
    file.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n")
    monkeypatch.setattr(nvidia_driver, "_FILE", file)
    key = compiled_cache.key_of("bf16", "cuda")
    assert list(key) == list(KEY)
    assert (key["GPU"], key["driver"]) == (KEY["GPU"], KEY["driver"])
    assert compiled_cache.name_of(key).startswith("NVIDIA-L40S-sm89_driver-580.95.05_torch-")


@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler")
@pytest.mark.usefixtures("torch_as_it_was")
def test_another_machines_blocks_are_not_run_and_what_differs_is_said(
    transformer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What `draw` compiled here is as if another driver had been loaded: `serve` is eager."""
    made = compiled_blocks(transformer, tmp_path, "bf16", "cpu", fill=True)
    assert run(made, transformer, SMALL)[1] == 1  # type: ignore[arg-type]
    import torch

    torch.compiler.reset()
    [folder] = tmp_path.iterdir()
    key = compiled_cache.key_of("bf16", "cpu")
    told = json.loads((folder / "compiled.json").read_text())
    (folder / "compiled.json").write_text(json.dumps(told | {"key": key | {"torch": "1.0"}}))
    folder.rename(tmp_path / "another")
    assert compiled_blocks(transformer, tmp_path, "bf16", "cpu", fill=False) is None
    expected = (
        f"the compiled blocks in {tmp_path} are for torch 1.0, not {torch.__version__}: running eagerly"
    )
    assert warnings(caplog)[-1] == expected
