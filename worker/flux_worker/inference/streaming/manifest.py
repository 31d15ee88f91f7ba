"""The hashes of the ranges of the model's weights, which the bake leaves on the image."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .ranges import Range

RANGE_BYTES = 8 << 20
"""Of a new manifest: large enough for S3's latency, and a buffer for each read under way stays small."""

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ManifestUnusable(Exception):
    """There is no manifest, or it is of other files; says why."""


class FileRanges(BaseModel):
    """A weights file: its bytes, its sha256, by which a bucket names it, and the sha256 of each range."""

    model_config = ConfigDict(frozen=True)

    bytes: Annotated[int, Field(ge=0)]
    sha256: _Digest
    ranges: tuple[_Digest, ...]


class Manifest(BaseModel):
    """The weights files by path in the model's folder; each range but a file's last has `range_bytes`."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    range_bytes: Annotated[int, Field(ge=4096)]
    files: Mapping[str, FileRanges]

    @classmethod
    def read(cls, file: Path) -> Manifest:
        """Raises ManifestUnusable where there is none, or it is not readable."""
        try:
            return cls.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            raise ManifestUnusable(f"the image has no {file}") from None
        except OSError as error:
            raise ManifestUnusable(f"{file} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise ManifestUnusable(f"{file} is no manifest: {first['msg']}") from error

    @classmethod
    def of(cls, folder: Path, digests: Mapping[str, str], range_bytes: int = RANGE_BYTES) -> Manifest:
        """Hash the ranges of a folder's files, whose own sha256 are `digests`."""
        files = {
            name: FileRanges(
                bytes=(folder / name).stat().st_size,
                sha256=digest,
                ranges=tuple(_hash_ranges(folder / name, range_bytes)),
            )
            for name, digest in sorted(digests.items())
        }
        return cls(range_bytes=range_bytes, files=files)

    def write(self, file: Path) -> None:
        """Write it for every user to read, and never half of it; makes the folder."""
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f"{file.name}.new")
        new.write_text(self.model_dump_json() + "\n")
        new.chmod(0o644)
        new.rename(file)

    def ranges(self, folder: Path, name: str) -> list[Range]:
        """A file's ranges, with its real path. Raises ManifestUnusable if this is another file."""
        known = self.files.get(name)
        if known is None:
            raise ManifestUnusable(f"the manifest does not know {name}")
        if len(known.ranges) != -(-known.bytes // self.range_bytes):
            raise ManifestUnusable(f"the manifest has {len(known.ranges)} hashes for {name}")
        _assert_same(folder / name, name, known)
        step, real = self.range_bytes, (folder / name).resolve()
        return [
            Range(real, offset, min(step, known.bytes - offset), digest)
            for offset, digest in zip(range(0, known.bytes, step), known.ranges, strict=True)
        ]


def _assert_same(file: Path, name: str, known: FileRanges) -> None:
    """By its size, and by the hash that a Hub cache names its content by."""
    size = file.stat().st_size
    if size != known.bytes:
        raise ManifestUnusable(f"{name} has {size:,} bytes, in the manifest {known.bytes:,}")
    blob = file.readlink().name if file.is_symlink() else ""
    if len(blob) == len(known.sha256) and blob != known.sha256:
        raise ManifestUnusable(f"{name} is another file than in the manifest")


def _hash_ranges(file: Path, range_bytes: int) -> list[str]:
    block = memoryview(bytearray(range_bytes))
    digests = []
    with file.open("rb", buffering=0) as content:
        while size := _fill(content.fileno(), block):
            digests.append(hashlib.sha256(block[:size]).hexdigest())
    return digests


def _fill(number: int, block: memoryview) -> int:
    """Read until the block is full or the file ends; the bytes."""
    done = 0
    while done < len(block) and (read := os.readv(number, [block[done:]])):
        done += read
    return done
