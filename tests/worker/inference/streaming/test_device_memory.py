"""The ring of host buffers, and where weights lie in files. No GPU is needed: its copies are stood for."""

from __future__ import annotations

import os
import threading
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from flux_worker.inference.streaming.disk import Disk
from flux_worker.inference.streaming.feed import Feed
from flux_worker.inference.streaming.stream import cut

pytestmark = pytest.mark.integration


class StandInCopies:
    """Stands for CUDA's stream and events: a copy happens only when somebody waits for it, or for all.

    So a buffer that is filled again too early, or a copy that nobody waits for, gives wrong bytes.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pending: deque[Copy] = deque()
        self.allocated = 0

    def buffer(self, size: int) -> Any:
        import torch

        self.allocated += size
        return torch.empty(size, dtype=torch.uint8)

    def copy(self, to: Any, source: Any) -> Copy:
        with self.lock:
            self.pending.append(one := Copy(self, to, source))
        return one

    def finish(self) -> None:
        with self.lock:
            while self.pending:
                self.pending.popleft().happen()


class Copy:
    """One copy, which comes after all that were begun before."""

    def __init__(self, copies: StandInCopies, to: Any, source: Any) -> None:
        self._copies, self._to, self._source = copies, to, source

    def happen(self) -> None:
        self._to.copy_(self._source)

    def synchronize(self) -> None:
        with self._copies.lock:
            while self in self._copies.pending:
                self._copies.pending.popleft().happen()


@pytest.mark.parametrize("slots", [5, 9], ids=["scarce", "many"])
def test_buffers_are_filled_again_only_when_their_copy_is_finished(tmp_path: Path, slots: int) -> None:
    import torch

    from flux_worker.inference.streaming.device_memory import DeviceMemory

    ranges, size = 100, 1 << 12
    content = os.urandom(ranges * size - 7)
    file = tmp_path / "weights"
    file.write_bytes(content)
    memory = torch.zeros(len(content), dtype=torch.uint8)
    copies = StandInCopies()
    parts = [part for start in range(ranges) for part in cut_at(file, start * size, size, len(content))]
    there = DeviceMemory({file: memory}, copies, slots=slots, slot_bytes=size)
    with Feed(parts, [Disk([file], threads=4)], there) as feed:
        report = feed.wait()
    assert memory.numpy().tobytes() == content
    assert copies.allocated == slots * size
    assert report.bytes == len(content)


def cut_at(file: Path, start: int, size: int, end: int) -> list[Any]:
    from flux_worker.inference.streaming.ranges import Range

    return [Range(file, start, min(size, end - start))]


def test_a_buffer_that_is_given_back_is_free() -> None:
    import torch

    from flux_worker.inference.streaming.device_memory import DeviceMemory
    from flux_worker.inference.streaming.ranges import Range

    part = Range(Path("weights"), 0, 4)
    memory = torch.zeros(4, dtype=torch.uint8)
    there = DeviceMemory({part.file: memory}, StandInCopies(), slots=1, slot_bytes=4)
    for _ in range(3):
        there.give_back(there.take(part, trusted=True))
    slot = there.take(part, trusted=True)
    slot.view[:] = b"abcd"
    there.land(part, slot)
    there.finish()
    assert memory.numpy().tobytes() == b"abcd"


def test_ranges_begin_at_multiples_of_their_size_and_cover_the_file() -> None:
    from flux_worker.inference.streaming.stream import RANGE_BYTES

    parts = cut(Path("weights"), 2 * RANGE_BYTES + 1)
    assert [(part.offset, part.size) for part in parts] == [
        (0, RANGE_BYTES),
        (RANGE_BYTES, RANGE_BYTES),
        (2 * RANGE_BYTES, 1),
    ]
    assert cut(Path("weights"), 0) == []


def test_a_weight_that_lies_unaligned_is_copied(tmp_path: Path) -> None:
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    from flux_worker.inference.streaming.placement import Placement

    file = tmp_path / "weights.safetensors"
    save_file({"a": torch.arange(3, dtype=torch.uint8), "b": torch.arange(40, dtype=torch.uint8)}, file)
    module = torch.nn.Module()
    with safe_open(file, framework="pt") as content:
        for name in ("a", "b"):
            module.register_buffer(name, content.get_tensor(name))
        module.register_buffer("other", torch.ones(2))
    memory = torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8)
    other = module.other
    placement = Placement({file: memory})
    placement.move([module])
    assert placement.moved == 43
    assert module.other is other
    held = range(memory.data_ptr(), memory.data_ptr() + memory.nbytes)
    inside = [weight.data_ptr() in held for weight in (module.a, module.b)]
    aligned = [(memory.data_ptr() + memory.nbytes - place) % 16 == 0 for place in (43, 40)]
    assert inside == aligned and not all(inside)
    assert module.a.tolist() == [0, 1, 2] and module.b.tolist() == list(range(40))
