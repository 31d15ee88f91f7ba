"""The content digest of a snapshot: one SHA-256 over all of its bytes, whichever of its blocks are stored.

Its definition, `bake-content/1`; `||` joins bytes, numbers are big-endian:

    block i  the bytes from i * 524288 up to (i + 1) * 524288 of the volume; n = volume size / 524288
    b(i)     SHA-256(block i); of a block that the snapshot does not have, SHA-256(524288 zero bytes)
    leaf(i)  SHA-256(0x00 || b(i))
    MTH      the Merkle tree hash of RFC 6962, section 2.1, over leaf(0) … leaf(n - 1):
             of one leaf, the leaf; of n > 1 leaves, SHA-256(0x01 || MTH(first k) || MTH(the others)), where k
             is the largest power of two below n
    digest   SHA-256("bake-content/1" || 0x0a || volume size in bytes, 8 bytes || MTH)

A leaf, an inner node and the digest begin differently, so none can stand for another. Sizes are whole GiB,
so every block is whole. A block of zeros and an absent one are the same: EBS stores either, and a copy in
another region may have others. The digest of an AMI with one snapshot is the snapshot's. Of several it is

    SHA-256("bake-image/1" || 0x0a || for each device in order: device || 0x20 || digest in hex || 0x0a)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

BLOCK = 524288
"""Bytes of a block, as in the EBS direct APIs."""
GIB = 1 << 30
SHA256_BYTES = 32
ZERO = hashlib.sha256(bytes(BLOCK)).digest()
"""The SHA-256 of a block of zeros."""
CONTENT, IMAGE = b"bake-content/1\n", b"bake-image/1\n"


@dataclass(frozen=True)
class Content:
    """What a volume of `gib` GiB holds: the SHA-256 of each block by its index; those missing are zeros."""

    gib: int
    blocks: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The number of blocks, stored or not."""
        return self.gib * GIB // BLOCK

    def digest(self) -> str:
        """The content digest, in hexadecimal digits. Raises ValueError for a block beyond the volume."""
        size = (self.gib * GIB).to_bytes(8, "big")
        return hashlib.sha256(CONTENT + size + tree_hash(self.count, self.blocks)).hexdigest()

    def differences(self, other: Content) -> Iterator[tuple[int, int]]:
        """Ranges of blocks (first, last) that differ from those of another content; both included."""
        first = last = None
        for index in sorted(self.blocks.keys() | other.blocks.keys()):
            if self.blocks.get(index, ZERO) == other.blocks.get(index, ZERO):
                continue
            if first is not None and last is not None and index == last + 1:
                last = index
                continue
            if first is not None and last is not None:
                yield first, last
            first = last = index
        if first is not None and last is not None:
            yield first, last


def tree_hash(count: int, blocks: Mapping[int, bytes]) -> bytes:
    """MTH over `count` blocks of which `blocks` are not zeros.

    It works level by level from the leaves up, on the nodes above something that is not zeros alone: a node
    at the end of a level that has no neighbour goes up as it is, which makes the tree of RFC 6962.
    """
    if count < 1 or any(not 0 <= index < count for index in blocks):
        raise ValueError(f"blocks beyond the {count} of the volume")
    zeros = leaf(ZERO)  # of this level, above zeros alone
    level = {index: leaf(digest) for index, digest in blocks.items() if digest != ZERO}
    while count > 1:
        above = {}
        for index in {index // 2 for index in level}:
            left = level.get(2 * index, zeros)
            alone = 2 * index + 1 == count
            above[index] = left if alone else inner(left, level.get(2 * index + 1, zeros))
        if count % 2:  # the last one is not above as much as the others are
            above.setdefault(count // 2, zeros)
        level, zeros, count = above, inner(zeros, zeros), (count + 1) // 2
    return level.get(0, zeros)


def leaf(digest: bytes) -> bytes:
    """The tree's leaf for a block with this SHA-256."""
    return hashlib.sha256(b"\x00" + digest).digest()


def inner(left: bytes, right: bytes) -> bytes:
    """The tree's node above two others."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def image_digest(digests: Mapping[str, str]) -> str:
    """The digest of an AMI, of the content digests of its snapshots by device."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{device} {digest}\n" for device, digest in sorted(digests.items()))
    return hashlib.sha256(IMAGE + lines.encode()).hexdigest()
