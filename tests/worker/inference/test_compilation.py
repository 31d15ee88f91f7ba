"""Compiled blocks are cached by GPU and versions, and used for the sizes they were compiled for."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flux_worker.errors import BadImage
from flux_worker.inference.compilation import CompiledBlocks, Shape, compiled_blocks
from flux_worker.inference.compiled_cache import key_of, name_of
from flux_worker.jobspec.job import Job
from tests.worker.inference.blocks import OTHER, SMALL, run, warnings

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("torch_as_it_was")]


def test_what_was_compiled_by_hand_is_used_and_other_sizes_are_drawn_eagerly(
    transformer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a machine has no C++ compiler this shows the other half: everything is eager, said once."""
    made = compiled_blocks(transformer, tmp_path, "bf16", "cpu", fill=True)
    assert made
    has_compiler = bool(shutil.which(os.environ.get("CXX", "g++")))
    assert run(made, transformer, SMALL)[1] == (1 if has_compiler else 0)
    kept = tmp_path / name_of(key_of("bf16", "cpu"))
    if not has_compiler:
        assert not kept.exists()
        assert "cannot be compiled, running eagerly" in warnings(caplog)[0]
        return
    assert json.loads((kept / "compiled.json").read_text())["sizes"] == [[256, 256, 512]]
    before = sorted(kept.rglob("*"))
    assert [file.name for file in before] == ["blocks.tar", "compiled.json"]
    import torch

    torch.compiler.reset()
    del made  # and with it the folder that the blocks were compiled in
    used = compiled_blocks(transformer, tmp_path, "bf16", "cpu", fill=False)
    assert used
    assert run(used, transformer, SMALL)[1] == 1
    from torch._dynamo.utils import counters

    assert counters["inductor"]["fxgraph_cache_hit"] == 1
    assert [run(used, transformer, OTHER)[1] for _ in range(2)] == [0, 0]
    assert sorted(kept.rglob("*")) == before
    assert warnings(caplog) == [
        "320x256 with 512 tokens is not compiled, only 256x256 with 512 tokens: running eagerly"
    ]


def test_without_a_cache_serving_is_eager_and_says_how_to_make_one(
    transformer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert compiled_blocks(transformer, tmp_path, "bf16", "cpu", fill=False) is None
    assert compiled_blocks(transformer, None, "bf16", "cpu", fill=False) is None
    assert str(tmp_path / name_of(key_of("bf16", "cpu"))) in warnings(caplog)[0]
    assert "`flux-worker draw` on this machine compiles it" in warnings(caplog)[0]
    assert "FLUX_COMPILE_CACHE, which is not set" in warnings(caplog)[1]
    assert not any(block._compiled_call_impl for block in transformer.blocks)


def test_a_failing_compiler_is_survived_and_said_once(
    transformer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import torch._inductor.config

    blocks = compiled_blocks(transformer, tmp_path, "bf16", "cpu", fill=True)
    assert blocks
    # Its own way: monkeypatch would leave the setting undone for good.
    with torch._inductor.config.patch({"cpp.cxx": ("/nonexistent/g++",)}):
        assert [run(blocks, transformer, job)[1] >= 0 for job in (SMALL, SMALL, OTHER)] == [True] * 3
    assert len(warnings(caplog)) == 1
    assert "cannot be compiled, running eagerly" in warnings(caplog)[0]
    assert not list(tmp_path.rglob("compiled.json"))


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

    def generate() -> str:
        if failures:
            raise failures.pop()
        return "drawn"

    assert [blocks.run(SMALL, generate) for _ in range(2)] == ["drawn", "drawn"]
    assert len(warnings(caplog)) == 1
    assert "cannot be compiled, running eagerly" in warnings(caplog)[0]
    assert not list(tmp_path.rglob("compiled.json"))


@pytest.mark.parametrize("kind", [MemoryError, BadImage, RuntimeError])
def test_what_the_drawing_raises_is_not_taken_for_the_compilers(
    transformer: Any, tmp_path: Path, kind: type[Exception]
) -> None:
    blocks = compiled_blocks(transformer, tmp_path, "bf16", "cpu", fill=True)
    assert blocks

    def fail() -> None:
        raise kind("of the drawing")

    with pytest.raises(kind, match="of the drawing"):
        blocks.run(SMALL, fail)


def _in_inductor(error: Exception) -> Callable[[], None]:
    """Raises the error as a function of torch's compiler does, when it reads or writes its files."""
    space: dict[str, Any] = {"__name__": "torch._inductor.codecache", "error": error}
    exec("def load(): raise error", space)
    return space["load"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("error", "survived"),
    [
        (OSError(28, "No space left on device"), True),
        (EOFError("Ran out of input"), True),
        (MemoryError(), False),
        (RuntimeError("CUDA out of memory"), False),
    ],
)
def test_whatever_the_compilers_files_raise_is_survived_but_not_a_lack_of_memory(
    transformer: Any, tmp_path: Path, error: Exception, survived: bool
) -> None:
    blocks = compiled_blocks(transformer, tmp_path, "bf16", "cpu", fill=True)
    assert blocks
    tries: list[Callable[[], object]] = [lambda: "drawn", _in_inductor(error)]

    def generate() -> object:
        return tries.pop()()

    if survived:
        assert blocks.run(SMALL, generate) == "drawn"
    else:
        with pytest.raises(type(error)):
            blocks.run(SMALL, generate)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda kept: kept.chmod(0o777), "others may write to it", id="open-to-others"),
        pytest.param(lambda kept: kept.parent.chmod(0o777), "others may write to it", id="parent-open"),
        pytest.param(lambda kept: (kept / "compiled.json").write_text("["), "cannot be read", id="not-json"),
        pytest.param(
            lambda kept: (kept / "compiled.json").write_text("[7]"), "cannot be read", id="no-facts"
        ),
        pytest.param(lambda kept: (kept / "compiled.json").write_text("{}"), "cannot be read", id="no-sizes"),
    ],
)
def test_a_cache_that_cannot_be_trusted_is_not_run(
    transformer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Any, message: str
) -> None:
    kept = tmp_path / name_of(key_of("bf16", "cpu"))
    kept.mkdir(mode=0o755)
    (kept / "compiled.json").touch()
    spoil(kept)
    assert compiled_blocks(transformer, tmp_path, "bf16", "cpu", fill=False) is None
    assert message in warnings(caplog)[0]


def test_the_caches_name_tells_hardware_versions_and_precision() -> None:
    import torch

    name = name_of(key_of("bf16", "cpu"))
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
        def run(self, job: Job, generate: Any) -> Any:
            seen.append(job)
            return generate()

    job = SMALL.model_copy(update={"steps": 2, "seed": 1})
    loaded = TorchModel(model.pipeline, "cpu", Blocks())  # type: ignore[arg-type]
    with_blocks = FluxModel(loaded, TorchBackend("cpu"), model.origin)
    assert with_blocks.generate(job).images[0].tobytes() == model.generate(job).images[0].tobytes()
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
        blocks = CompiledBlocks(transformer, entry=None, target=None, fill=True)
        assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).parent == cache
        del blocks
    finally:
        subprocess.run(["umount", temporary], check=True)
    CompiledBlocks(transformer, entry=None, target=None, fill=True)
    assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).parent == temporary
