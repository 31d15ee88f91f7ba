"""The rehearsed image says what a start of its worker reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from .bakes import Outcome

pytestmark = pytest.mark.root


def test_the_image_has_the_trace_of_a_start_with_torch_first_and_the_weights_as_they_are_loaded(
    baked: Outcome,
) -> None:
    report = baked.report
    facts = baked.kept("facts/trace.json")
    assert (facts["recorded"], facts["why"]) == ("start on cpu", "")
    sizes = {one["name"]: one["bytes"] for one in facts["stages"]}
    assert list(sizes) == ["libraries", "text_encoders", "transformer", "vae"]
    opened = {Path(one).name for one in facts["opened_libraries"]}
    assert {"libtorch_cpu.so", "libtorch_python.so", "_safetensors_rust.abi3.so"} <= opened
    files = {one["path"]: one["bytes"] for one in report["weights"]["files"]}
    large = {path: size for path, size in files.items() if path.endswith(".safetensors")}
    for stage, parts in {"transformer": ("transformer/",), "vae": ("vae/",)}.items():
        assert sizes[stage] == sum(size for path, size in large.items() if path.startswith(parts))
    assert report["trace"]["sha256"] == facts["sha256"]
    own = [one for one in report["checks"] if one["about"]["id"].startswith("performance.trace")]
    assert {(one["about"]["id"], one["moment"], one["outcome"]) for one in own} == {
        ("performance.trace_recorded", "sealed", "passed"),
        ("performance.trace", "sealed", "passed"),
        ("performance.trace", "booted", "passed"),
    }
