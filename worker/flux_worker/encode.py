"""Encode images as PNG (with the parameters in text chunks), JPEG or WebP."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import __version__
from .jobspec.job import DEFAULT_QUALITY
from .jobspec.keys import image_suffixes

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo

    from .inference.images import GeneratedImages

CONTENT_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
_PILLOW_FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
# A fifth to a seventh of the CPU seconds of zlib's default, 6, for a tenth to a quarter more bytes, by
# tests/bench/bench_encode.py.
_PNG_LEVEL = 1
_FULL_COLOUR_QUALITY = 95  # from here on, chroma subsampling is most of what a JPEG loses


@dataclass(frozen=True)
class EncodedImage:
    """One encoded image; `suffix` follows the job's id in its key, such as `.png`."""

    suffix: str
    content_type: str
    data: bytes


def encode(generated: GeneratedImages) -> list[EncodedImage]:
    """Encode each image, in order, in the format that the job asks for."""
    content_type = CONTENT_TYPES[generated.job.format]
    return [
        EncodedImage(suffix, content_type, _encode(generated, number, image))
        for number, (suffix, image) in enumerate(
            zip(image_suffixes(generated.job), generated.images, strict=True), start=1
        )
    ]


def _encode(generated: GeneratedImages, number: int, image: Image) -> bytes:
    job = generated.job
    data = io.BytesIO()
    if job.format == "png":
        chunks = _text_chunks(generated, number)
        image.save(data, format="PNG", compress_level=_PNG_LEVEL, pnginfo=chunks)
    else:
        quality = job.quality or DEFAULT_QUALITY
        full = {"subsampling": "4:4:4"} if job.format == "jpg" and quality >= _FULL_COLOUR_QUALITY else {}
        image.save(data, format=_PILLOW_FORMATS[job.format], quality=quality, **full)
    return data.getvalue()


def _text_chunks(generated: GeneratedImages, number: int) -> PngInfo:
    """The job's parameters, with this image's own seed."""
    from PIL.PngImagePlugin import PngInfo

    job, origin = generated.job.seeded(), generated.origin
    assert job.seed is not None
    own = {"id": job.id, "image": number, "seed": job.seed + number - 1}
    model = {"model": origin.repo, "model_revision": origin.revision, "precision": origin.precision}
    chunks = PngInfo()
    chunks.add_text("Software", f"flux-worker {__version__}")
    chunks.add_itxt("Description", job.prompt)
    chunks.add_text("parameters", json.dumps(job.parameters() | own | model))  # ASCII: json escapes the rest
    return chunks
