"""Images as files: PNG with its parameters in text chunks, JPEG or WebP."""

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

    from .inference.images import Drawing

CONTENT_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
_PILLOWS_NAMES = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
_FULL_COLOUR_QUALITY = 95  # from here on, halved colours are the most that a JPEG loses


@dataclass(frozen=True)
class Encoded:
    """One image as a file; `suffix` is what follows the job's id in its name, as `.png`."""

    suffix: str
    content_type: str
    data: bytes


def encode(drawing: Drawing) -> list[Encoded]:
    """Each image of a drawing in the format that its job asks for, in their order."""
    content_type = CONTENT_TYPES[drawing.job.format]
    return [
        Encoded(suffix, content_type, _encode(drawing, number, image))
        for number, (suffix, image) in enumerate(
            zip(image_suffixes(drawing.job), drawing.images, strict=True), start=1
        )
    ]


def _encode(drawing: Drawing, number: int, image: Image) -> bytes:
    job = drawing.job
    data = io.BytesIO()
    if job.format == "png":
        image.save(data, format="PNG", pnginfo=_text_chunks(drawing, number))
    else:
        quality = job.quality or DEFAULT_QUALITY
        full = {"subsampling": "4:4:4"} if job.format == "jpg" and quality >= _FULL_COLOUR_QUALITY else {}
        image.save(data, format=_PILLOWS_NAMES[job.format], quality=quality, **full)
    return data.getvalue()


def _text_chunks(drawing: Drawing, number: int) -> PngInfo:
    """The parameters, with the seed of this very image."""
    from PIL.PngImagePlugin import PngInfo

    job, origin = drawing.job.seeded(), drawing.origin
    assert job.seed is not None
    own = {"id": job.id, "image": number, "seed": job.seed + number - 1}
    model = {"model": origin.repo, "model_revision": origin.revision, "precision": origin.precision}
    chunks = PngInfo()
    chunks.add_text("Software", f"flux-worker {__version__}")
    chunks.add_itxt("Description", job.prompt)
    chunks.add_text("parameters", json.dumps(job.parameters() | own | model))  # ASCII: json escapes the rest
    return chunks
