"""Blocks that compile quickly, and a compiler without state from other tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The compiler's folders are the process's; so is what it remembers."""
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "/nonexistent")
    yield
    import torch

    torch.compiler.reset()


@pytest.fixture
def transformer() -> Any:
    """Two equal blocks that are quick to compile, in a model of diffusers'."""
    import torch
    from diffusers import ModelMixin

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(8))

        def forward(self, pixels: Any) -> Any:
            return (pixels * self.scale).sin() + 1

    class Blocks(ModelMixin):  # type: ignore[misc,unused-ignore]
        _repeated_blocks = ("Block",)

        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList([Block(), Block()])

        def forward(self, pixels: Any) -> Any:
            for block in self.blocks:
                pixels = block(pixels)
            return pixels

    return Blocks().eval()
