"""The SHA-256 of each block of a snapshot in a file, so that it can be said which blocks differ.

A line of JSON, then 36 bytes for each block that is not zeros, by index: the index, 4 bytes big-endian, and
its SHA-256. Hashes do not compress. Nobody has to trust the file: it must have the digest that is attested.
"""

from __future__ import annotations

import json
import struct

from bake.attest.merkle import ZERO, Content

FORMAT = "bake-blocks/1"
_RECORD = struct.Struct(">I32s")


def name(snapshot: str) -> str:
    """The file's name in the run directory."""
    return f"attestation-{snapshot}.blocks"


def write(snapshot: str, content: Content) -> bytes:
    """The file of a snapshot."""
    head = {"format": FORMAT, "snapshot": snapshot, "volume_gib": content.gib, "digest": content.digest()}
    kept = sorted((index, digest) for index, digest in content.blocks.items() if digest != ZERO)
    return json.dumps(head).encode() + b"\n" + b"".join(_RECORD.pack(*one) for one in kept)


def read(data: bytes) -> Content:
    """The blocks in a file; raises ValueError for what is none."""
    head, _, records = data.partition(b"\n")
    told = json.loads(head)
    if not isinstance(told, dict) or told.get("format") != FORMAT or len(records) % _RECORD.size:
        raise ValueError(f"it is not of the format {FORMAT}")
    return Content(int(told["volume_gib"]), dict(_RECORD.iter_unpack(records)))
