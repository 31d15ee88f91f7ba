"""Compiled blocks and unused libraries, for the sample of a good bake."""

from __future__ import annotations

from bake.report.readied import CompiledBlocks, CompiledSize, Library, UnusedLibraries

COMPILED = CompiledBlocks(
    asked=("1024x1024", "768x1344"),
    compiled=tuple(
        CompiledSize(
            size=size,
            seconds=41.5,
            key={"GPU": "NVIDIA L40S sm89", "driver": "580.95.05", "torch": "2.13.0"},
            bytes=31_000_000,
        )
        for size in ("1024x1024", "768x1344")
    ),
    why_not="",
)
UNUSED = UnusedLibraries(
    recorded="start on cuda",
    libraries=(Library(path="nvidia/cu13/lib/libcusolverMg.so.12", bytes=163_000_000),),
    bytes=163_000_000,
    removed=False,
    why_not="worker.remove_unused_libraries is not set",
)
