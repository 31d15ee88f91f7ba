"""Turn the PNGs of a run into small WebP images that stand inside report.html."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bake.report.model import Picture

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 150_000
"""Bytes that the WebP of one picture takes at most."""
THUMBNAIL = 160
"""Pixels of a thumbnail's longer side."""
QUALITIES = (90, 80, 70, 60, 45, 30)
SIDE = 1024


@dataclass(frozen=True)
class Shown:
    """A picture as the page shows it, or why it shows none."""

    picture: Picture
    uri: str | None = None
    thumbnail: str | None = None
    problem: str = ""
    """Why there is no picture, or that it is another than the one of the report."""


def shown(picture: Picture, files: Mapping[str, bytes]) -> Shown:
    """Prepare a picture from the PNG that `files` has for it, and hold that against its hash."""
    png = files.get(picture.file)
    if png is None:
        return Shown(picture, problem=f"{picture.file} was not there when this report was written")
    digest = hashlib.sha256(png).hexdigest()
    problem = "" if digest == picture.sha256 else f"the file has another hash than the report: {digest}"
    try:
        return Shown(picture, data_uri(webp(png)), data_uri(webp(png, THUMBNAIL)), problem)
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all three for broken files
        return Shown(picture, problem=f"{picture.file} is no readable PNG: {type(error).__name__}")


def data_uri(image: bytes) -> str:
    """A WebP as the source of an <img>."""
    return f"data:image/webp;base64,{base64.b64encode(image).decode('ascii')}"


def webp(png: bytes, side: int = SIDE, most: int = MOST) -> bytes:
    """Encode a PNG as WebP of at most `most` bytes, whose longer side has at most `side` pixels.

    Raises OSError, ValueError or SyntaxError for what is no PNG, or a larger one than Pillow agrees to open.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as opened:
            image: Image.Image = opened.convert("RGBA" if "A" in opened.getbands() else "RGB")
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    while True:
        image.thumbnail((side, side))
        for quality in QUALITIES:
            if len(found := _encoded(image, quality)) <= most:
                return found
        side = max(max(image.size) * 3 // 4, 1)


def _encoded(image: Image, quality: int) -> bytes:
    target = io.BytesIO()
    image.save(target, "WEBP", quality=quality, method=4)
    return target.getvalue()
