"""How fast the model's weights come into host memory from a disk that fills while it is read, path by path.

    sudo python3 tests/bench/bench_load.py                  # 2.5 GB of random weights, as EBS fills
    sudo python3 tests/bench/bench_load.py --latency 60 --ceiling 200 --paths feed runai

Each path runs in a process of its own, on the same disk mounted anew with nothing of it in memory, and ends
when every tensor is in memory that is its own. fastsafetensors and runai-model-streamer are no dependencies
of the worker: install them beside it to compare; a path whose library is missing is left out by name.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "worker")]

from flux_worker.inference.streaming.disk import THREADS  # noqa: E402
from flux_worker.inference.streaming.stream import Stream, weight_files  # noqa: E402

RULE = "etc/udev/rules.d/60-bake-read-ahead.rules"


def mapped(folder: Path, backend: str = "mmap") -> Any:
    """Tensor by tensor from safetensors, as `.to("cuda")` copies from its mapping."""
    from safetensors import safe_open

    held = []
    for file in weight_files(folder):
        with safe_open(file, framework="pt", backend=backend) as content:
            held += [content.get_tensor(name).clone() for name in content.offset_keys()]
    return held


def safetensors_pread(folder: Path) -> Any:
    """safetensors' own parallel reads, a file at a time."""
    from safetensors import safe_open

    held = []
    for file in weight_files(folder):
        with safe_open(file, framework="pt", backend="pread") as content:
            held.append(content.get_tensors())
    return held


def fastsafetensors(folder: Path) -> Any:
    """All files at once, at as many threads as the feed."""
    from fastsafetensors import SafeTensorsFileLoader

    loader = SafeTensorsFileLoader(None, "cpu", nogds=True, max_threads=THREADS)
    loader.add_filenames({0: [str(file) for file in weight_files(folder)]})
    buffers = loader.copy_files_to_device(max_copy_block_size=16 << 20)
    return loader, buffers, [buffers.get_tensor(name) for name in buffers.key_to_rank_lidx]


def runai(folder: Path) -> Any:
    """All files at once, at as many reads as the feed."""
    os.environ["RUNAI_STREAMER_CONCURRENCY"] = str(THREADS)
    from runai_model_streamer import SafetensorsStreamer

    with SafetensorsStreamer() as streamer:
        streamer.stream_files([str(file) for file in weight_files(folder)])
        return [tensor for _, tensor in streamer.get_tensors()]


def feed(folder: Path) -> Any:
    """The worker's own."""
    with Stream(folder, "cpu") as stream:
        return stream, stream.wait()


PATHS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "mapped": (mapped, "safetensors"),
    "safetensors-pread": (safetensors_pread, "safetensors"),
    "fastsafetensors": (fastsafetensors, "fastsafetensors"),
    "runai": (runai, "runai_model_streamer"),
    "feed": (feed, "torch"),
}


def load(path: str, folder: Path) -> dict[str, float]:
    """Run one path here; seconds, and bytes of host memory beyond the weights."""
    import torch

    assert torch.ones(1).sum() == 1  # imported, and its threads started
    if importlib.util.find_spec(PATHS[path][1]):
        importlib.import_module(PATHS[path][1])
    size = sum(file.stat().st_size for file in weight_files(folder))
    before, cpu, started = _peak(), time.process_time(), time.monotonic()
    held = PATHS[path][0](folder)
    seconds = time.monotonic() - started
    assert held
    return {
        "bytes": size,
        "seconds": seconds,
        "cpu": time.process_time() - cpu,
        "more": _peak() - before - size,
    }


def _peak() -> int:
    """The largest resident size so far, in bytes; getrusage(2) would count the parent's, too."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    assert found
    return int(found[1]) * 1024


def make(disk: Path, model: Path | None) -> None:
    """A disk with the model's repository, and the image's read-ahead rule."""
    from bake.localcloud import host
    from bake.localcloud.machines import disks
    from tests.bench import random_flux

    with tempfile.TemporaryDirectory(dir=disk.parent) as folder:
        if model is None:
            random_flux.build(model := Path(folder) / "model", double_blocks=1, single_blocks=1, t5_blocks=2)
        size = sum(file.stat().st_size for file in model.glob("*/*.safetensors"))
        with disk.open("wb") as file:
            file.truncate(size * 11 // 10 + (512 << 20))
        host.run("mkfs.ext4", "-q", disk)
        disks.mount(disk, where := disk.with_name("making"))
        shutil.copytree(model, where / "model")
        (where / RULE).parent.mkdir(parents=True)
        shutil.copyfile(ROOT / "provision/rootfs" / RULE, where / RULE)
        disks.unmount(where)


def measure(path: str, disk: Path, filling: Any) -> str:
    """One line of the table."""
    from bake.localcloud.machines import disks
    from bake.localcloud.machines.lazy import LazyDisk

    lazy = LazyDisk(disk, filling)
    lazy.mount(where := disk.with_name("root"))
    try:
        command = [sys.executable, __file__, "--load", path, "--folder", str(where / "model")]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    finally:
        disks.unmount(where)
        lazy.unmount()
        lazy.forget()
    found = json.loads(re.findall(r"^\{.*\}$", done.stdout, re.M)[-1])
    rate = found["bytes"] / found["seconds"] / 1e6
    return f"{path:<18}{found['seconds']:8.1f}{rate:8.0f}{found['more'] / 1e6:14.0f}{found['cpu']:8.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--latency", type=float, default=30.0, help="ms for a block's first read")
    parser.add_argument("--ceiling", type=float, default=100.0, help="MB/s")
    parser.add_argument("--model", type=Path, help="a repository's folder instead of random weights")
    parser.add_argument("--paths", nargs="+", default=list(PATHS), choices=list(PATHS))
    parser.add_argument("--load", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.load:
        print(json.dumps(load(asked.load, asked.folder)))
        return
    from bake.localcloud.machines.filling import Filling

    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        make(disk := Path(folder) / "disk.img", asked.model)
        print(f"{'path':<18}{'seconds':>8}{'MB/s':>8}{'MB more RAM':>14}{'CPU s':>8}", flush=True)
        for path in asked.paths:
            if importlib.util.find_spec(PATHS[path][1]):
                print(measure(path, disk, Filling(asked.latency, asked.ceiling)), flush=True)
            else:
                print(f"{path:<18}not measured: {PATHS[path][1]} is not installed", flush=True)


if __name__ == "__main__":
    main()
