"""Compiled blocks: made by hand, kept by GPU and versions, used for the sizes they were made for."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flux_worker.inference.compilation import CompiledBlocks, Shape, cache_name, compiled_blocks
from flux_worker.jobs.job import Job

SMALL = Job(id="a", prompt="a cat", width=256, height=256)
OTHER = Job(id="b", prompt="a cat", width=320, height=256)


@pytest.fixture(autouse=True)
def _torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The compiler's folders are the process's; so is what it remembers."""
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "/nonexistent")
    yield
    import torch

    torch.compiler.reset()


@pytest.fixture
def transformer() -> Any:
    """Two equal blocks that are quick to compile, in a model of diffusers'."""
    import torch
    from diffusers import ModelMixin

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(8))

        def forward(self, pixels: Any) -> Any:
            return (pixels * self.scale).sin() + 1

    class Blocks(ModelMixin):  # type: ignore[misc,unused-ignore]
        _repeated_blocks = ("Block",)

        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList([Block(), Block()])

        def forward(self, pixels: Any) -> Any:
            for block in self.blocks:
                pixels = block(pixels)
            return pixels

    return Blocks().eval()


def run(blocks: CompiledBlocks, transformer: Any, job: Job) -> tuple[Any, int]:
    """What the transformer makes of the job's size, and how many graphs were compiled or fetched for it."""
    import torch
    from torch._dynamo.utils import counters

    counters.clear()
    pixels = torch.linspace(0, 1, job.width * 8).reshape(-1, 8)
    with torch.no_grad():
        made = blocks.draw(job, lambda: transformer(pixels))
        expected = (pixels.sin() + 1).sin() + 1
    assert torch.allclose(made, expected, atol=1e-5)
    return made, counters["stats"]["unique_graphs"]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == CompiledBlocks.__module__]


def test_what_was_compiled_by_hand_is_used_and_other_sizes_are_drawn_eagerly(
    transformer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a machine has no C++ compiler this shows the other half: everything is eager, said once."""
    made = compiled_blocks(transformer, tmp_path, "bf16", "cpu", fill=True)
    assert made
    has_compiler = bool(shutil.which(os.environ.get("CXX", "g++")))
    assert run(made, transformer, SMALL)[1] == (1 if has_compiler else 0)
    kept = tmp_path / cache_name("bf16", "cpu")
    if not has_compiler:
        assert not kept.exists()
        assert "cannot be compiled, everything is drawn eagerly" in warnings(caplog)[0]
        return
    assert json.loads((kept / "shapes.json").read_text()) == [[256, 256, 512]]
    before = sorted(kept.rglob("*"))
    import torch

    torch.compiler.reset()
    used = compiled_blocks(transformer, tmp_path, "bf16", "cpu", fill=False)
    assert used
    assert run(used, transformer, SMALL)[1] == 1
    from torch._dynamo.utils import counters

    assert counters["inductor"]["fxgraph_cache_hit"] == 1
    assert [run(used, transformer, OTHER)[1] for _ in range(2)] == [0, 0]
    assert sorted(kept.rglob("*")) == before
    assert warnings(caplog) == [
        "nothing is compiled for 320x256 with 512 tokens, as for other sizes than 256x256 with 512 tokens: "
        "drawn eagerly"
    ]


def test_without_a_cache_serving_is_eager_and_says_how_to_make_one(
    transformer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert compiled_blocks(transformer, tmp_path, "bf16", "cpu", fill=False) is None
    assert compiled_blocks(transformer, None, "bf16", "cpu", fill=False) is None
    assert str(tmp_path / cache_name("bf16", "cpu")) in warnings(caplog)[0]
    assert "`flux-worker draw` on this machine makes it" in warnings(caplog)[0]
    assert "FLUX_COMPILE_CACHE, which is not set" in warnings(caplog)[1]
    assert not any(block._compiled_call_impl for block in transformer.blocks)


def test_a_failing_compiler_is_survived_and_said_once(
    transformer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import torch._inductor.config

    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/nonexistent/g++",))
    blocks = compiled_blocks(transformer, tmp_path, "bf16", "cpu", fill=True)
    assert blocks
    assert [run(blocks, transformer, job)[1] >= 0 for job in (SMALL, SMALL, OTHER)] == [True] * 3
    assert len(warnings(caplog)) == 1
    assert "cannot be compiled, everything is drawn eagerly" in warnings(caplog)[0]
    assert not list(tmp_path.rglob("shapes.json"))


def _tritons() -> Exception:
    """As Triton raises where a kernel wants more than the GPU has; there is no Triton without a GPU."""
    kind = type("OutOfResources", (Exception,), {"__module__": "triton.runtime.errors"})
    return kind("out of resource: shared memory")  # type: ignore[no-any-return]


def _inductors() -> Exception:
    from torch._inductor.runtime.triton_heuristics import NoTritonConfigsError

    return NoTritonConfigsError("No valid triton configs.")


@pytest.mark.parametrize("failure", [_tritons, _inductors], ids=["triton", "inductor"])
def test_a_kernel_that_fails_at_its_first_launch_is_survived(
    transformer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, failure: Callable[[], Exception]
) -> None:
    blocks = compiled_blocks(transformer, tmp_path, "bf16", "cpu", fill=True)
    assert blocks
    failures = [failure()]

    def drawing() -> str:
        if failures:
            raise failures.pop()
        return "drawn"

    assert [blocks.draw(SMALL, drawing) for _ in range(2)] == ["drawn", "drawn"]
    assert len(warnings(caplog)) == 1
    assert "cannot be compiled, everything is drawn eagerly" in warnings(caplog)[0]
    assert not list(tmp_path.rglob("shapes.json"))


def test_what_the_drawing_raises_is_not_taken_for_the_compilers(transformer: Any, tmp_path: Path) -> None:
    blocks = compiled_blocks(transformer, tmp_path, "bf16", "cpu", fill=True)
    assert blocks

    def fail() -> None:
        raise MemoryError("of the drawing")

    with pytest.raises(MemoryError, match="of the drawing"):
        blocks.draw(SMALL, fail)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda kept: kept.chmod(0o777), "others may write to it", id="open-to-others"),
        pytest.param(lambda kept: kept.parent.chmod(0o777), "others may write to it", id="parent-open"),
        pytest.param(lambda kept: (kept / "shapes.json").write_text("["), "cannot be read", id="not-json"),
        pytest.param(lambda kept: (kept / "shapes.json").write_text("[7]"), "cannot be read", id="no-shapes"),
    ],
)
def test_a_cache_that_cannot_be_trusted_is_not_run(
    transformer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Any, message: str
) -> None:
    kept = tmp_path / cache_name("bf16", "cpu")
    kept.mkdir(mode=0o755)
    (kept / "shapes.json").write_text("[[256, 256, 512]]")
    spoil(kept)
    assert compiled_blocks(transformer, tmp_path, "bf16", "cpu", fill=False) is None
    assert message in warnings(caplog)[0]


def test_the_caches_name_tells_hardware_versions_and_precision() -> None:
    import torch

    name = cache_name("bf16", "cpu")
    assert f"torch-{torch.__version__}" in name
    assert "triton-" in name
    assert name.endswith("_bf16")
    assert "/" not in name
    assert (
        Shape.of(SMALL) != Shape.of(OTHER) != Shape.of(OTHER.model_copy(update={"max_sequence_length": 64}))
    )


def test_int8_is_not_compiled_on_the_cpu(
    transformer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """torch 2.13's compiler ends the process there: nothing could fall back."""
    assert compiled_blocks(transformer, tmp_path, "int8", "cpu", fill=True) is None
    assert "crashes on int8" in warnings(caplog)[0]


def test_a_drawing_passes_through_its_blocks(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The model hands each job to the blocks; none is compiled here, and the picture is the same."""
    from flux_worker.inference.backend_torch import TorchBackend, TorchModel
    from flux_worker.inference.model import FluxModel

    caplog.set_level(logging.INFO)
    seen: list[Job] = []

    class Blocks:
        def draw(self, job: Job, drawing: Any) -> Any:
            seen.append(job)
            return drawing()

    job = SMALL.model_copy(update={"steps": 2, "seed": 1})
    loaded = TorchModel(model.pipeline, "cpu", Blocks())  # type: ignore[arg-type]
    with_blocks = FluxModel(loaded, TorchBackend("cpu"), model.origin)
    assert with_blocks.draw(job).images[0].tobytes() == model.draw(job).images[0].tobytes()
    assert seen == [job]


@pytest.mark.root
def test_where_nothing_temporary_can_be_executed_the_cache_is_worked_in(
    tmp_path: Path, transformer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled code is a library; a hardened image mounts /tmp noexec, and everything would be eager."""
    temporary, cache = tmp_path / "tmp", tmp_path / "cache"
    temporary.mkdir()
    cache.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "none", temporary], check=True)
    try:
        blocks = CompiledBlocks(transformer, kept=None, shapes=set(), fill=True)
        assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).parent == cache
        del blocks
    finally:
        subprocess.run(["umount", temporary], check=True)
    CompiledBlocks(transformer, kept=None, shapes=set(), fill=True)
    assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).parent == temporary
