"""Whether what the model drew is a picture, judged before rounding makes black of what is no number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import BadImage

REMEDY = (
    "`flux-worker check --verify` tells whether the model's files are as they were; if they are, the device"
    " is at fault: `nvidia-smi -q -d ECC` counts the errors of a GPU's memory"
)
"""What to do about bad pictures."""


def assert_image(values: torch.Tensor, over: tuple[int, ...], what: str) -> None:
    """Raise BadPicture where a value is not finite, or no channel varies over the dimensions `over`.

    How little it varies does not matter: a white wall is a picture, too. It waits for the device, and takes
    no memory: the least and the greatest value of a channel are not finite where one of its values is not.
    """
    least, greatest = values.amin(over), values.amax(over)
    if not bool((least.isfinite() & greatest.isfinite()).all()):
        raise BadImage(f"{what} are not finite numbers")
    if not bool((least != greatest).any()):
        raise BadImage(f"{what} are the same all over")


@contextmanager
def checking_decoded(pipeline: Any, look: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Have `look` called with what the pipeline's VAE decodes, before it is clamped and rounded."""
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
