"""The content digest: what it depends on, and what it does not."""

from __future__ import annotations

import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bake.attest.merkle import BLOCK, GIB, ZERO, Content, image_digest, tree_hash


def sha(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def by_the_book(leaves: list[bytes]) -> bytes:
    """MTH as RFC 6962 writes it, over the blocks' hashes."""
    if len(leaves) == 1:
        return sha(b"\x00" + leaves[0])
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return sha(b"\x01" + by_the_book(leaves[:k]) + by_the_book(leaves[k:]))


digests = st.binary(min_size=32, max_size=32)
trees = st.integers(1, 70).flatmap(
    lambda count: st.tuples(st.just(count), st.dictionaries(st.integers(0, count - 1), digests))
)


@given(trees)
def test_the_tree_is_the_one_of_rfc_6962(tree: tuple[int, dict[int, bytes]]) -> None:
    count, blocks = tree
    assert tree_hash(count, blocks) == by_the_book([blocks.get(index, ZERO) for index in range(count)])


@given(trees, st.data())
def test_a_block_of_zeros_is_as_an_absent_one(
    tree: tuple[int, dict[int, bytes]], data: st.DataObject
) -> None:
    count, blocks = tree
    stored = data.draw(st.sets(st.integers(0, count - 1)))
    assert tree_hash(count, {**dict.fromkeys(stored, ZERO), **blocks}) == tree_hash(count, blocks)


@given(st.integers(0, 2047), st.integers(0, BLOCK - 1), st.integers(1, 255))
def test_any_flipped_byte_changes_the_digest(index: int, offset: int, change: int) -> None:
    content = bytearray(BLOCK)
    content[offset] ^= change
    assert Content(1, {index: sha(content)}).digest() != Content(1).digest()


@given(st.integers(1, 64), st.integers(1, 64), digests)
def test_the_size_of_the_volume_matters(one: int, other: int, digest: bytes) -> None:
    assert (Content(one, {5: digest}).digest() == Content(other, {5: digest}).digest()) == (one == other)


@given(st.dictionaries(st.integers(0, 2047), digests, min_size=1), st.data())
def test_the_place_of_a_block_matters(blocks: dict[int, bytes], data: st.DataObject) -> None:
    index = data.draw(st.sampled_from(sorted(blocks)))
    moved = {(one + 1 if one == index else one): digest for one, digest in blocks.items()}
    same = all(blocks.get(one, ZERO) == moved.get(one, ZERO) for one in blocks.keys() | moved.keys())
    if max(moved) < 2048:
        assert (Content(1, moved).digest() == Content(1, blocks).digest()) == same


@pytest.mark.parametrize(
    ("gib", "blocks", "expected"),
    [
        pytest.param(
            1, {}, "a1f4bb98cb1327991f6bc00ddbdc95292560535ba14ea446caa469d4ebf7f64c", id="an empty volume"
        ),
        pytest.param(
            80,
            {},
            "dd60f9262ff0ccd72cfb29d811ca95924a52433271f065c9fa32a7a68c1450dd",
            id="an empty volume of 80 GiB",
        ),
        pytest.param(
            1,
            {0: b"a" * BLOCK, 2047: b"z" * BLOCK},
            "23f0cc55436fb516aac14c1991b5065655bddcdde2aa1969993cadeb503ba228",
            id="both ends",
        ),
        pytest.param(
            3,
            {1: b"\x01" + bytes(BLOCK - 1), 4097: b"b" * BLOCK},
            "c3e95939fe890a8c862989eb02acc75532bc0f5165d3b8768b3ae3f85ab4ef3b",
            id="an uneven tree",
        ),
    ],
)
def test_the_golden_digests_stay(gib: int, blocks: dict[int, bytes], expected: str) -> None:
    """Computed by tests/bake/attest/golden.pl, which shares nothing with bake."""
    content = Content(gib, {index: sha(block) for index, block in blocks.items()})
    assert content.digest() == expected


def test_a_block_beyond_the_volume_is_refused() -> None:
    for index in (-1, 2048):
        with pytest.raises(ValueError, match="beyond"):
            Content(1, {index: ZERO}).digest()


def test_the_tree_of_a_large_volume_takes_little_time() -> None:
    """80 GiB of data, and 16 TiB with hardly any: what is zeros alone costs nothing."""
    began = time.process_time()
    Content(80, {index: sha(index.to_bytes(4, "big")) for index in range(80 * GIB // BLOCK)}).digest()
    Content(16384, {33_000_000: sha(b"one")}).digest()
    assert time.process_time() - began < 20


def test_ranges_of_blocks_that_differ_are_told_together() -> None:
    before = Content(1, {1: sha(b"1"), 2: sha(b"2"), 3: sha(b"3"), 9: sha(b"9")})
    after = Content(1, {1: sha(b"1"), 2: sha(b"x"), 3: sha(b"y"), 8: ZERO, 9: ZERO, 11: sha(b"n")})
    assert list(before.differences(after)) == [(2, 3), (9, 9), (11, 11)]
    assert list(before.differences(before)) == []


def test_an_amis_digest_is_its_snapshots_where_it_has_one() -> None:
    assert image_digest({"/dev/sda1": "aa"}) == "aa"
    both = image_digest({"/dev/sdb": "bb", "/dev/sda1": "aa"})
    assert both == sha(b"bake-image/1\n/dev/sda1 aa\n/dev/sdb bb\n").hex()
