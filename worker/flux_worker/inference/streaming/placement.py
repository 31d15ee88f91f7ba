"""Move a model's weights from the files that they are mapped from to where the files' bytes were read to.

The libraries build the model, from mapped files: whatever they do with names, dtypes, ties and torchao's
parts, each weight ends at some bytes of some file, and its address tells which. Nothing of it has been read
by then. So the model is the libraries' own in every respect, and only the bytes come another way.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# As kernels may expect of what PyTorch's allocators give.
ALIGNMENT = 16
_MAPS = Path("/proc/self/maps")
_LINE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \S+ +(/.*)$", re.M)


@dataclass(frozen=True)
class _Mapping:
    """Addresses `start` to `end` show the file from `offset` on."""

    start: int
    end: int
    offset: int
    file: Path


class Placement:
    """Where each file's bytes are: `files` has one tensor of bytes per whole file, all on one device."""

    def __init__(self, files: Mapping[Path, torch.Tensor]) -> None:
        self._files = files
        self._mappings = sorted(_mappings(files), key=lambda one: one.start)
        self._starts = [one.start for one in self._mappings]
        self.moved = 0
        """Bytes of weights that were moved."""

    def move(self, modules: Iterable[torch.nn.Module]) -> None:
        """Move the weights and buffers of these modules, as `Module.to` does; others stay where they are."""
        for module in modules:
            module._apply(self._moved)  # type: ignore[no-untyped-call]

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        if hasattr(tensor, "__tensor_flatten__"):
            return self._moved_parts(tensor)
        found = self._find(tensor)
        if found is None:
            return tensor
        file, offset = found
        self.moved += tensor.nbytes
        flat = self._files[file][offset : offset + tensor.nbytes]
        if flat.data_ptr() % ALIGNMENT:
            flat = flat.clone()
        return flat.view(tensor.dtype).view(tensor.shape)

    def _moved_parts(self, tensor: Any) -> torch.Tensor:
        """A tensor that consists of others, such as torchao's."""
        names, context = tensor.__tensor_flatten__()
        parts = {name: self._moved(getattr(tensor, name)) for name in names}
        whole: torch.Tensor = type(tensor).__tensor_unflatten__(
            parts, context, tensor.size(), tensor.stride()
        )
        return whole

    def _find(self, tensor: torch.Tensor) -> tuple[Path, int] | None:
        """The file and the offset that a tensor is mapped from."""
        if tensor.device.type != "cpu" or not tensor.nbytes or not tensor.is_contiguous():
            return None
        address = tensor.data_ptr()
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0 or address + tensor.nbytes > self._mappings[index].end:
            return None
        mapping = self._mappings[index]
        return mapping.file, mapping.offset + address - mapping.start


def _mappings(files: Iterable[Path]) -> list[_Mapping]:
    """This process's mappings of these files (proc_pid_maps(5)), which are named by their real paths."""
    known = {str(file) for file in files}
    return [
        _Mapping(int(start, 16), int(end, 16), int(offset, 16), Path(name))
        for start, end, offset, name in _LINE.findall(_MAPS.read_text())
        if name in known
    ]
