"""Images are encoded in the format that the job asks for."""

from __future__ import annotations

import functools
import io
import json
from typing import Any

import pytest
from PIL import Image, JpegImagePlugin

from flux_worker import __version__
from flux_worker.encode import encode
from flux_worker.inference.images import GeneratedImages, Origin
from flux_worker.jobspec.job import Job

ORIGIN = Origin("black-forest-labs/FLUX.1-dev", "f" * 40, "int8", "cuda", {})


def generated(**fields: Any) -> GeneratedImages:
    job = Job(id="cat", width=256, height=272, **{"prompt": "a cat — 猫\x07"} | fields)
    images = tuple(noise(number) for number in range(job.images))
    return GeneratedImages(job.seeded(), images, ORIGIN, 2.0, 0.1)


@functools.cache
def noise(number: int) -> Image.Image:
    return Image.effect_noise((256, 272), 80 + number).convert("RGB")


@pytest.mark.parametrize(
    ("format", "kind", "content_type"),
    [("png", "PNG", "image/png"), ("jpg", "JPEG", "image/jpeg"), ("webp", "WEBP", "image/webp")],
)
def test_each_format_is_what_it_says(format: str, kind: str, content_type: str) -> None:
    [file] = encode(generated(format=format))
    image = Image.open(io.BytesIO(file.data))
    image.load()
    assert (image.format, image.size) == (kind, (256, 272))
    assert (file.suffix, file.content_type) == (f".{format}", content_type)


@pytest.mark.parametrize("format", ["jpg", "webp"])
def test_quality_counts_and_is_90_where_it_is_absent(format: str) -> None:
    sizes = [len(encode(generated(format=format, quality=quality))[0].data) for quality in (10, 90, 100)]
    assert sizes == sorted(set(sizes))
    assert len(encode(generated(format=format))[0].data) == sizes[1]


@pytest.mark.parametrize(("quality", "sampling"), [(None, 2), (94, 2), (95, 0), (100, 0)])
def test_a_fine_jpeg_keeps_each_pixels_colour(quality: int | None, sampling: int) -> None:
    """Pillow's numbers: 0 is 4:4:4, 2 is 4:2:0."""
    [file] = encode(generated(format="jpg", quality=quality))
    assert JpegImagePlugin.get_sampling(Image.open(io.BytesIO(file.data))) == sampling  # type: ignore[no-untyped-call]


def test_png_is_compressed_at_the_quickest_level() -> None:
    """The stream's header says so: https://www.rfc-editor.org/rfc/rfc1950#page-6 (FLEVEL 0)."""
    [file] = encode(generated(format="png"))
    assert file.data.partition(b"IDAT")[2][:2] == b"\x78\x01"


def test_png_loses_nothing_and_tells_how_it_was_made() -> None:
    drawn = generated(images=3, seed=7, metadata={"a": 1})
    files = encode(drawn)
    assert [file.suffix for file in files] == ["=1.png", "=2.png", "=3.png"]
    for number, (file, original) in enumerate(zip(files, drawn.images, strict=True)):
        image: Any = Image.open(io.BytesIO(file.data))
        assert image.tobytes() == original.tobytes()
        assert image.text["Software"] == f"flux-worker {__version__}"
        assert image.text["Description"] == "a cat — 猫\x07"
        assert json.loads(image.text["parameters"]) == drawn.job.parameters() | {
            "id": "cat",
            "image": number + 1,
            "seed": 7 + number,
            "model": "black-forest-labs/FLUX.1-dev",
            "model_revision": "f" * 40,
            "precision": "int8",
        }
