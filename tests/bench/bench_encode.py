"""Figures of encoding an image: CPU seconds and bytes, by format and PNG's compression level.

    .venv/bin/python tests/bench/bench_encode.py
    .venv/bin/python tests/bench/bench_encode.py picture.png    # of an image of yours

Without a picture it takes two made of noise in octaves, as photos have it: `soft` as a blurred background,
and `detailed` with fine texture and grain. The worker's own choices are in worker/flux_worker/encode.py.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_MOST_SECONDS = 1.0  # PNG's level 9 takes seconds each time
WAYS: dict[str, dict[str, Any]] = {
    **{f"png, level {level}": {"format": "PNG", "compress_level": level} for level in (1, 2, 3, 6, 9)},
    "webp, quality 90": {"format": "WEBP", "quality": 90},
    "jpg, quality 90": {"format": "JPEG", "quality": 90},
}


def photo_like(size: int, *, decay: float, grain: float, seed: int = 7) -> Image.Image:
    """An RGB image: octaves of noise, each weaker by `decay` than the one before, mostly grey; and grain."""
    random = np.random.default_rng(seed)
    total = np.zeros((size, size, 3), np.float32)
    cells, weight = 4, 1.0
    while cells <= size:
        octave = _enlarged(random.standard_normal((cells, cells, 3)).astype(np.float32), size)
        total += weight * (0.3 * octave + 0.7 * octave.mean(-1, keepdims=True))
        cells, weight = cells * 2, weight * decay
    total = (total - total.min()) / (total.max() - total.min()) * 255
    total += grain * random.standard_normal((size, size, 1)).astype(np.float32)
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


def _enlarged(cells: Any, size: int) -> Any:
    channels = [Image.fromarray(cells[:, :, channel]) for channel in range(3)]
    return np.stack([np.asarray(one.resize((size, size), Image.Resampling.BICUBIC)) for one in channels], -1)


def measure(image: Image.Image, options: dict[str, Any], times: int) -> tuple[float, int]:
    """CPU seconds of the quickest of some tries, since others use the same cores; and the bytes."""
    seconds: list[float] = []
    while len(seconds) < times and sum(seconds) < _MOST_SECONDS:
        data = io.BytesIO()
        began = time.thread_time()
        image.save(data, **options)
        seconds.append(time.thread_time() - began)
    return min(seconds), len(data.getvalue())


def main() -> None:
    """Encode each image each way, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path, nargs="*")
    parser.add_argument("--size", type=int, default=1024, help="of the images made of noise, in pixels")
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    images = {picture.name: Image.open(picture).convert("RGB") for picture in options.pictures} or {
        "soft": photo_like(options.size, decay=0.5, grain=0),
        "detailed": photo_like(options.size, decay=0.62, grain=2),
    }
    print("| image | way | CPU ms | bytes | of level 6 |\n|---|---|---|---|---|")
    for name, image in images.items():
        found = {way: measure(image, how, options.times) for way, how in WAYS.items()}
        usual = found["png, level 6"][1]
        for way, (seconds, size) in found.items():
            print(f"| {name} | {way} | {seconds * 1000:.0f} | {size:,} | {size / usual - 1:+.0%} |")


if __name__ == "__main__":
    main()
