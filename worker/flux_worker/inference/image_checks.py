"""Check that the model's output is an image, before rounding turns NaN into black."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import BadImage

REMEDY = (
    "`flux-worker check --verify` tells whether the model's files are intact; if they are, the device is at"
    " fault: `nvidia-smi -q -d ECC` counts a GPU's memory errors"
)
"""Advice about invalid images."""


def assert_image(values: torch.Tensor, over: tuple[int, ...], what: str) -> None:
    """Raise BadImage if a value is not finite, or no channel varies over the dimensions `over`.

    Any variation is enough: a white wall is an image, too. It waits for the device but needs no memory: the
    minimum and maximum of a channel are not finite if one of its values is not.
    """
    least, greatest = values.amin(over), values.amax(over)
    if not bool((least.isfinite() & greatest.isfinite()).all()):
        raise BadImage(f"{what} are not finite numbers")
    if not bool((least != greatest).any()):
        raise BadImage(f"{what} are constant")


@contextmanager
def checking_decoded(pipeline: Any, look: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Call `look` with what the pipeline's VAE decodes, before it is clamped and rounded."""
    processor = pipeline.image_processor
    finish = processor.postprocess

    def look_and_finish(image: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        look(image)
        return finish(image, *arguments, **options)

    processor.postprocess = look_and_finish
    try:
        yield
    finally:
        del processor.postprocess
