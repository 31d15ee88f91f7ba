"""FLUX.1-dev's file sizes and measured memory peaks, from model.json, which `bake` reads as well.

`revision` and `files`: the commit that ten public sources name, and the bytes of its large files, on each of
which two public sources agree. The files left out (configurations, indexes, merges.txt) hold less than 1 MB
together.

`int8_bytes`: what `flux-worker quantize` makes of those components: half, and a scale for each row, and the
layers outside the blocks, which stay in bfloat16.

`peak_vram_gib`: peak reserved VRAM of one 1024 x 1024 image, 50 steps, on an H100; int8 is torchao's
weight-only quantization of the transformer and T5. https://huggingface.co/blog/diffusers-quantization

`loading_share`: anonymous host memory while loading, as a share of the weights: libraries and the buffers
through which weights are read, but not the weights themselves, which may stay mapped on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30


@dataclass(frozen=True)
class ModelFacts:
    """The content of model.json; sizes in bytes unless the name says otherwise."""

    repo: str
    revision: str
    files: Mapping[str, int]
    int8_bytes: Mapping[str, int]
    peak_vram_gib: Mapping[str, float]
    loading_share: float

    def weights(self, precision: str) -> dict[str, int]:
        """Bytes of each component's weights in this precision, `bf16` or `int8`."""
        sizes: dict[str, int] = {}
        for path, size in self.files.items():
            if path.endswith(".safetensors"):
                component = path.split("/", 1)[0]
                sizes[component] = sizes.get(component, 0) + size
        return sizes | dict(self.int8_bytes) if precision == "int8" else sizes

    def working_bytes(self, precision: str) -> int:
        """Activations, VAE and allocator slack at 1024 x 1024: the measured peak minus the weights."""
        return round(self.peak_vram_gib[precision] * GIB) - sum(self.weights(precision).values())


FACTS = ModelFacts(**json.loads(Path(__file__).with_name("model.json").read_bytes()))
