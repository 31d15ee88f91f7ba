"""Make an int8 checkpoint of FLUX.1-dev, once, on any CPU host.

It uses torchao's Int8WeightOnlyConfig, with a scale per row, for the linear layers of the transformer's
blocks and of T5; all other weights stay in bfloat16. Weights are mapped, quantized one by one and written
shard by shard, so that only a shard and the largest weight are in memory at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import ConfigurationError, WorkerError
from . import library_logging
from .checkpoint import (
    PROVENANCE,
    QUANTIZED_COMPONENTS,
    File,
    Provenance,
    assert_dev,
    assert_vocabularies,
    commit_of,
)
from .integrity import LOADED_FILES
from .shards import Shard, Weight, plan

if TYPE_CHECKING:
    import torch

OnProgress = Callable[[int, int], None]
"""Called with the bytes of the source that are done, and the total."""

SHARD_BYTES = 1_000_000_000
METHOD = "torchao Int8WeightOnlyConfig(version=2), PerRow"
_MARK = ".flux-worker-quantize"
_SPARE_BYTES = 64 << 20  # configurations, vocabularies and the file system's overhead


def quantize(
    source: Path,
    target: Path,
    on_progress: OnProgress = lambda _done, _all: None,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> Provenance:
    """Write an int8 checkpoint of the snapshot `source` into the new folder `target`, atomically.

    `source` is FLUX.1-dev in a Hub cache (`…/snapshots/<commit>`). An unfinished earlier run is redone.
    Raises ConfigurationError for another source or an existing target, WorkerError for a full disk.
    """
    library_logging.reduce_logging()
    revision = commit_of(source)
    assert_dev(source)
    assert_vocabularies(source)
    if target.exists():
        raise ConfigurationError(f"{target} exists: the int8 checkpoint needs a new folder")
    if not target.absolute().parent.is_dir():
        raise ConfigurationError(f"{target.absolute().parent} is not a folder")
    shards = {name: plan(source / name, shard_bytes) for name in QUANTIZED_COMPONENTS}
    copied = _copied(source)
    _assert_room(target, shards, copied)
    tally = _Tally(copied, shards, on_progress)
    with _temporary_folder(target) as temporary:
        for file in copied:
            _copy(file, temporary / file.relative_to(source))
            tally.add(file.stat().st_size)
        for name, component in shards.items():
            _write_component(source / name, temporary / name, component, tally)
        provenance = _provenance(source, revision, temporary)
        _write(temporary / PROVENANCE, provenance.model_dump_json(indent=2) + "\n")
    return provenance


def psnr(first: Any, second: Any) -> float:
    """Peak signal-to-noise ratio of two 8-bit PIL images of equal size, in dB; infinite if they are equal."""
    import numpy as np

    if first.size != second.size:
        raise ValueError(f"images of {first.size} and {second.size} pixels cannot be compared")
    difference = np.asarray(first.convert("RGB"), float) - np.asarray(second.convert("RGB"), float)
    error = float(np.square(difference).mean())
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def _copied(source: Path) -> list[Path]:
    """Files that are copied unchanged; with the licence, if it was downloaded."""
    names = {file for pattern in [*LOADED_FILES, "LICENSE*"] for file in source.glob(pattern)}
    replaced = ("*.safetensors", "*.safetensors.index.json", "config.json")
    return sorted(
        file
        for file in names
        if not (file.parent.name in QUANTIZED_COMPONENTS and any(file.match(pattern) for pattern in replaced))
    )


def _assert_room(target: Path, shards: dict[str, list[Shard]], copied: list[Path]) -> None:
    needed = sum(shard.bytes for component in shards.values() for shard in component)
    needed += sum(file.stat().st_size for file in copied) + _SPARE_BYTES
    free = shutil.disk_usage(target.absolute().parent).free
    if needed > free:
        raise WorkerError(
            f"the int8 checkpoint takes {needed / 1e9:.2f} GB, and {target.absolute().parent} has "
            f"{free / 1e9:.2f} GB free"
        )


class _Tally:
    """Counts the bytes of the source that are done."""

    def __init__(self, copied: list[Path], shards: dict[str, list[Shard]], on_progress: OnProgress) -> None:
        self.all = sum(file.stat().st_size for file in copied)
        self.all += sum(
            weight.source_bytes for component in shards.values() for s in component for weight in s.weights
        )
        self.done = 0
        self._tell = on_progress

    def add(self, size: int) -> None:
        """Count `size` more bytes."""
        self.done += size
        self._tell(self.done, self.all)


@contextmanager
def _temporary_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target that is renamed to it when all is written."""
    temporary = target.absolute().with_name(f"{target.name}.partial")
    if temporary.exists() and not (temporary / _MARK).exists():
        raise ConfigurationError(f"{temporary} is in the way and not from flux-worker: move it away")
    temporary.mkdir(exist_ok=True)
    with (temporary / _MARK).open("a") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkerError(f"another `flux-worker quantize` is writing {temporary}") from error
        _clear(temporary)
        try:
            yield temporary
        except OSError as error:
            _clear(temporary)
            shutil.rmtree(temporary)
            raise WorkerError(f"cannot write {temporary}: {error.strerror or error}") from error
        (temporary / _MARK).unlink()
        _sync(temporary)
        temporary.rename(target)
        _sync(target.absolute().parent)


def _clear(temporary: Path) -> None:
    for entry in temporary.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != _MARK:
            entry.unlink()


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir(exist_ok=True)
    shutil.copyfile(file, to)
    _sync(to)


def _write(file: Path, text: str) -> None:
    file.write_text(text)
    _sync(file)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_component(source: Path, target: Path, shards: list[Shard], tally: _Tally) -> None:
    target.mkdir(exist_ok=True)
    metadata = _metadata(shards)
    places: dict[str, str] = {}
    for shard in shards:
        tensors: dict[str, torch.Tensor] = {}
        for weight in shard.weights:
            tensors |= _flat(weight, _quantized(weight.read()) if weight.quantized else weight.read())[0]
            tally.add(weight.source_bytes)
        _save(tensors, target / shard.name, metadata)
        places |= dict.fromkeys(tensors, shard.name)
    index = {"metadata": {"total_size": sum(shard.bytes for shard in shards)}, "weight_map": places}
    _write(target / f"{shards[0].stem}.safetensors.index.json", json.dumps(index, indent=2, sort_keys=True))
    config = json.loads((source / "config.json").read_text()) | {"quantization_config": _config()}
    _write(target / "config.json", json.dumps(config, indent=2, sort_keys=True))


def _metadata(shards: list[Shard]) -> dict[str, str]:
    """torchao's description of every tensor; readers need all of it in each shard."""
    import torch

    metadata: dict[str, str] = {"format": "pt"}
    names = []
    for weight in (weight for shard in shards for weight in shard.weights):
        empty = torch.empty(weight.shape, dtype=torch.bfloat16, device="meta")
        metadata |= _flat(weight, _quantized(empty) if weight.quantized else empty)[1]
        names.append(weight.name)
    return metadata | {"tensor_names": json.dumps(names)}


def _quantized(tensor: torch.Tensor) -> torch.Tensor:
    """A linear layer's weight as torchao's Int8Tensor."""
    import torch
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    rows, columns = tensor.shape
    layer = torch.nn.Linear(columns, rows, bias=False, device="meta", dtype=torch.bfloat16)
    layer.weight = torch.nn.Parameter(tensor, requires_grad=False)
    # Without the option torchao would change how this process compiles.
    quantize_(layer, Int8WeightOnlyConfig(version=2, set_inductor_config=False))
    return layer.weight


def _flat(weight: Weight, tensor: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Plain tensors, by torchao's names, and its description of how they make up the weight."""
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    tensors, metadata = flatten_tensor_state_dict({weight.name: tensor})
    return tensors, metadata


def _config() -> dict[str, Any]:
    """The quantization config that diffusers and transformers read from config.json."""
    from torchao.core.config import config_to_dict
    from torchao.quantization import Int8WeightOnlyConfig

    config = config_to_dict(Int8WeightOnlyConfig(version=2, set_inductor_config=False))
    return {"quant_method": "torchao", "quant_type": {"default": config}, "modules_to_not_convert": None}


def _save(tensors: dict[str, torch.Tensor], file: Path, metadata: dict[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, file, metadata=metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    file.chmod(0o644)  # safetensors makes it readable for its owner only, and the worker is another user
    _sync(file)


def _provenance(source: Path, revision: str, temporary: Path) -> Provenance:
    libraries = ("torch", "torchao", "safetensors")
    inputs = [file for pattern in LOADED_FILES for file in source.glob(pattern)]
    outputs = [file for file in temporary.rglob("*") if file.is_file() and file.name != _MARK]
    return Provenance(
        revision=revision,
        method=METHOD,
        versions={"flux_worker": __version__}
        | {name: importlib.metadata.version(name) for name in libraries},
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        inputs={str(file.relative_to(source)): _digest(file) for file in sorted(inputs)},
        outputs={str(file.relative_to(temporary)): _digest(file) for file in sorted(outputs)},
    )


def _digest(file: Path) -> File:
    with file.open("rb") as content:
        return File(bytes=file.stat().st_size, sha256=hashlib.file_digest(content, "sha256").hexdigest())
