"""Read the model's weight files into the device's memory while the libraries build the model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ...errors import ConfigurationError, WorkerError
from .device_memory import CudaCopies, DeviceMemory
from .disk import Disk, FileEnds
from .feed import Destination, Feed, Source
from .first_pages import read_first_pages
from .host_memory import HostMemory
from .placement import Placement
from .ranges import Range
from .report import StreamReport

log = logging.getLogger(__name__)

RANGE_BYTES = 4 << 20
"""Ranges begin at multiples of this, so that no block of the disk is waited for twice."""

# In the order in which the warm-up reads them: the worker comes behind it, not in front.
_COMPONENTS = ("text_encoder", "text_encoder_2", "transformer", "vae")
# Buffers beyond those that threads read into: their copies to the device are under way.
_COPYING = 16
_DATA_ALIGNMENT = 256


def weight_files(folder: Path) -> list[Path]:
    """The real paths of the model's weight files, in the order in which they are read."""
    return [file.resolve() for name in _COMPONENTS for file in sorted((folder / name).glob("*.safetensors"))]


def cut(file: Path, size: int) -> list[Range]:
    """A file's ranges; only the last may be shorter."""
    return [Range(file, start, min(RANGE_BYTES, size - start)) for start in range(0, size, RANGE_BYTES)]


class Stream:
    """The weights on their way to `device` (cuda or cpu), from `with` on.

    `others` are sources beside the disk. `hashed` may replace a file's ranges by others that cover it as well
    and have hashes. `on_read` is called, by other threads, with the bytes that have arrived so far.
    Raises ConfigurationError for a file that cannot be read, RuntimeError or MemoryError without memory.
    """

    def __init__(
        self,
        folder: Path,
        device: str,
        *,
        others: Sequence[Source] = (),
        hashed: Callable[[list[Range]], list[Range]] = lambda ranges: ranges,
        on_read: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._folder = folder
        try:
            sizes = {file: file.stat().st_size for file in weight_files(folder)}
            disk = Disk(sizes)
            self._files = {file: _memory(size, _data_start(file), device) for file, size in sizes.items()}
        except OSError as error:
            raise ConfigurationError(f"The model in {folder} cannot be read: {error}") from error
        ranges = hashed([part for file, size in sizes.items() for part in cut(file, size)])
        sources: list[Source] = [disk, *others]
        destination = _destination(self._files, ranges, sources, device)
        self._feed = Feed(ranges, sources, destination, on_read)

    def __enter__(self) -> Stream:
        self._feed.start()
        read_first_pages(self._files)
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.close()

    def wait(self) -> StreamReport:
        """Wait until all bytes are on the device.

        Raises ConfigurationError if a file is shorter than it was, WorkerError if the disk fails.
        """
        try:
            return self._feed.wait()
        except FileEnds as error:
            raise ConfigurationError(f"The model in {self._folder} is damaged: {error}") from error
        except OSError as error:
            raise WorkerError(f"The model in {self._folder} cannot be read: {error}") from error

    def fill(self, pipeline: Any) -> StreamReport:
        """Wait, and move the pipeline's networks, which are mapped from the files, to the bytes read."""
        report = self.wait()
        for name, why in report.dropped.items():
            log.warning("the rest of the weights came from the disk, since %s was dropped: %s", name, why)
        placement = Placement(self._files)
        placement.move(part for part in pipeline.components.values() if isinstance(part, torch.nn.Module))
        if placement.moved < report.bytes * 0.9:
            log.warning(
                "%.1f of %.1f GB of the weights were read twice: the libraries did not map them",
                (report.bytes - placement.moved) / 1e9,
                report.bytes / 1e9,
            )
        return report


def _data_start(file: Path) -> int:
    """Where tensors begin: behind 8 bytes with the header's size, and the header."""
    with file.open("rb") as content:
        return 8 + int.from_bytes(content.read(8), "little")


def _memory(size: int, data_start: int, device: str) -> torch.Tensor:
    """Memory for a whole file, in which the tensors' data is aligned as the file has it."""
    before = -data_start % _DATA_ALIGNMENT
    return torch.empty(before + size, dtype=torch.uint8, device=device)[before:]


def _destination(
    files: dict[Path, torch.Tensor], ranges: list[Range], sources: list[Source], device: str
) -> Destination:
    if device != "cuda":
        return HostMemory({file: memory.numpy().data for file, memory in files.items()})
    slots = sum(source.threads for source in sources) + _COPYING
    largest = max((part.size for part in ranges), default=1)
    return DeviceMemory(files, CudaCopies(), slots=min(slots, 2 * len(ranges) + 1), slot_bytes=largest)
