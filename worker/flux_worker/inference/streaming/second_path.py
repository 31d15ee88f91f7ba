"""Whether the weights come from S3 too (FLUX_STREAM), and why not where they don't."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...settings import ModelSettings
from .bucket import Place
from .feed import Source
from .manifest import Manifest, ManifestUnusable
from .ranges import Range
from .s3 import S3

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SecondPath:
    """Sources beside the disk, of which there may be none, and the ranges with hashes that they need."""

    sources: tuple[Source, ...] = ()
    _ranges: Mapping[Path, Sequence[Range]] = field(default_factory=dict)

    def hashed(self, ranges: list[Range]) -> list[Range]:
        """The same files in the same order, each in ranges that have hashes, if they are known."""
        if not self._ranges:
            return ranges
        return [part for file in dict.fromkeys(one.file for one in ranges) for part in self._ranges[file]]


def second_path(settings: ModelSettings, folder: Path) -> SecondPath:
    """The second path for all weight files of the model in `folder`; never raises.

    Where it can't be used, a warning says why, and the disk alone is read.
    """
    if settings.stream is None:
        return SecondPath()
    if settings.workers > 1:
        # What one of them reads from the volume is in memory for the others; S3 would be read by each.
        why = f"the {settings.workers} workers of this instance share what one reads from the volume"
    else:
        try:
            return _opened(settings, folder, settings.stream)
        except (ManifestUnusable, OSError) as error:
            why = str(error)
    log.warning("the weights come from the volume alone, not also from %s: %s", settings.stream, why)
    return SecondPath()


def _opened(settings: ModelSettings, folder: Path, uri: str) -> SecondPath:
    manifest = Manifest.read(settings.stream_ranges)
    ranges: dict[Path, Sequence[Range]] = {}
    hashes: dict[Path, str] = {}
    for file in sorted(folder.glob("*/*.safetensors")):
        name = str(file.relative_to(folder))
        ranges[file.resolve()] = manifest.ranges(folder, name)
        hashes[file.resolve()] = manifest.files[name].sha256
    return SecondPath((S3(Place.of(uri), hashes, settings.instance_region),), ranges)
