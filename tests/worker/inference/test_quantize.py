"""int8 checkpoints: their content and provenance, written atomically."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from flux_worker.errors import ConfigurationError, WorkerError
from flux_worker.inference.checkpoint import Provenance
from flux_worker.inference.quantize import psnr, quantize
from flux_worker.jobspec.job import Job
from flux_worker.settings import ModelSettings

pytestmark = pytest.mark.integration
REVISION = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"
MakeCache = Callable[[], tuple[Path, Path]]


def load(folder: Path, revision: str = REVISION) -> Any:
    from flux_worker.inference import model

    return model.load(ModelSettings(FLUX_MODEL_REVISION=revision, FLUX_MODEL_DIR=folder, FLUX_BACKEND="cpu"))


@pytest.fixture(scope="module")
def quantized(int8: Path) -> Any:
    """The int8 model, loaded as the worker loads it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "0")
        return load(int8)


def weights(model: Any, component: str, *, int8: bool) -> dict[str, Any]:
    return {
        name: weight
        for name, weight in model.pipeline.components[component].named_parameters()
        if (type(weight).__name__ == "Int8Tensor") == int8
    }


def test_every_matrix_of_the_blocks_is_int8_and_nothing_else_is(quantized: Any) -> None:
    for component in ("transformer", "text_encoder_2"):
        inside = set(weights(quantized, component, int8=True))
        left = weights(quantized, component, int8=False)
        assert all("blocks." in name or ".block." in name for name in inside)
        matrices = {name for name, weight in left.items() if weight.ndim == 2 and "block" in name}
        assert matrices <= {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"}
        assert inside
    assert not weights(quantized, "text_encoder", int8=True) | weights(quantized, "vae", int8=True)


def test_the_weights_are_those_of_the_source_but_for_rounding(model: Any, quantized: Any) -> None:
    for component in ("transformer", "text_encoder_2"):
        source = dict(model.pipeline.components[component].named_parameters())
        for name, weight in weights(quantized, component, int8=True).items():
            difference = (weight.dequantize() - source[name]).abs().float()
            # Half a step of the row's scale, and bfloat16's own rounding of the product.
            assert (difference <= weight.scale * 0.5 + source[name].abs().float() * 2**-8).all(), name
        for name, weight in weights(quantized, component, int8=False).items():
            assert weight.equal(source[name]), name


def test_it_draws_nearly_the_same_picture(model: Any, quantized: Any) -> None:
    job = Job(id="a", prompt="a cat", width=256, height=256, steps=4, seed=7)
    first, second = (each.generate(job).images[0] for each in (model, quantized))
    assert 30 < psnr(first, second) < float("inf")
    assert quantized.origin.precision == "int8"
    assert quantized.origin.revision == REVISION


def test_the_libraries_map_int8_weights_from_the_files_and_copy_none(int8: Path) -> None:
    from flux_worker.inference.backend_torch import _from_files

    loaded = SimpleNamespace(pipeline=_from_files(int8))
    ranges = re.findall(rf"^(\w+)-(\w+) .* {int8}/.*$", Path("/proc/self/maps").read_text(), re.M)
    mapped = [(int(start, 16), int(end, 16)) for start, end in ranges]
    for component in ("transformer", "text_encoder_2"):
        held = weights(loaded, component, int8=True).values()
        assert all(any(a <= weight.qdata.data_ptr() < b for a, b in mapped) for weight in held), component


def test_the_provenance_names_every_file_with_its_sum(int8: Path, lay_out: MakeCache) -> None:
    provenance = Provenance.read(int8)
    snapshot = lay_out()[1]
    for folder, files in ((snapshot, provenance.inputs), (int8, provenance.outputs)):
        for name, file in files.items():
            content = (folder / name).read_bytes()
            assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest()), name
    held = {str(file.relative_to(int8)) for file in int8.rglob("*") if file.is_file()}
    assert held == {*provenance.outputs, "quantization.json"}
    assert (provenance.repo, provenance.revision) == ("black-forest-labs/FLUX.1-dev", REVISION)
    assert set(provenance.versions) == {"flux_worker", "torch", "torchao", "safetensors"}


def test_shards_stay_small_and_can_be_read_by_everybody(int8: Path) -> None:
    shards = sorted((int8 / "transformer").glob("*.safetensors"))
    assert len(shards) > 3
    assert shards[0].name == f"diffusion_pytorch_model-00001-of-{len(shards):05}.safetensors"
    assert {file.stat().st_mode & 0o777 for file in int8.rglob("*.safetensors")} == {0o644}


def test_progress_ends_at_the_sources_size(lay_out: MakeCache, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    quantize(lay_out()[1], tmp_path / "int8", lambda done, all_bytes: told.append((done, all_bytes)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1]


KILLED = """
import os, signal, sys
from pathlib import Path
from flux_worker.inference.quantize import quantize
def half(done, all_bytes):
    if done > all_bytes / 2:
        os.kill(os.getpid(), signal.SIGKILL)
quantize(Path(sys.argv[1]), Path(sys.argv[2]), half, shard_bytes=20_000)
"""


def test_a_killed_run_leaves_no_checkpoint_and_is_done_anew(lay_out: MakeCache, tmp_path: Path) -> None:
    source, target = lay_out()[1], tmp_path / "int8"
    done = subprocess.run([sys.executable, "-c", KILLED, source, target], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    draft = tmp_path / "int8.partial"
    assert not target.exists()
    assert list(draft.glob("transformer/*.safetensors"))
    quantize(source, target)
    assert not draft.exists()
    assert load(target).origin.precision == "int8"


CRAMPED = """
import resource, sys
from pathlib import Path
from flux_worker.errors import WorkerError
from flux_worker.inference.quantize import quantize
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    quantize(Path(sys.argv[1]), Path(sys.argv[2]))
except WorkerError as error:
    print(error)
"""


def test_what_cannot_be_written_leaves_nothing(lay_out: MakeCache, tmp_path: Path) -> None:
    """A limit on a file's size fails a write in the middle, as a full disk does."""
    command = [sys.executable, "-c", CRAMPED, lay_out()[1], tmp_path / "int8"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert f"cannot write {tmp_path / 'int8.partial'}: " in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_two_runs_do_not_write_the_same_checkpoint(lay_out: MakeCache, tmp_path: Path) -> None:
    draft = tmp_path / "int8.partial"
    draft.mkdir()
    with (draft / ".flux-worker-quantize").open("w") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        with pytest.raises(WorkerError, match=rf"another .* is writing {draft}"):
            quantize(lay_out()[1], tmp_path / "int8")


def claim_a_terabyte(snapshot: Path) -> None:
    """A header that names a weight of 2 TiB, with a hole for its content."""
    name, side = "transformer_blocks.0.huge.weight", 1 << 20
    header = json.dumps(
        {name: {"dtype": "BF16", "shape": [side, side], "data_offsets": [0, 2 * side**2]}}
    ).encode()
    header += b" " * (-len(header) % 8)
    with (snapshot / "transformer" / "huge.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2 * side**2)
    index = next((snapshot / "transformer").glob("*.index.json"))
    content = json.loads(index.read_text())
    content["weight_map"][name] = "huge.safetensors"
    index.unlink()
    index.write_text(json.dumps(content))


def hold_float32(snapshot: Path) -> None:
    from safetensors.torch import load_file, save_file

    shard = next(snapshot.glob("text_encoder_2/*.safetensors")).resolve()
    save_file({name: weight.float() for name, weight in load_file(shard).items()}, shard)


def remove_shard(snapshot: Path) -> None:
    next(snapshot.glob("transformer/*-00002-*.safetensors")).unlink()


def cut_shard_short(snapshot: Path) -> None:
    shard = next(snapshot.glob("text_encoder_2/*.safetensors")).resolve()
    shard.write_bytes(shard.read_bytes()[:-100])


def become_schnell(snapshot: Path) -> None:
    config = snapshot / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"guidance_embeds": true', '"guidance_embeds": false'))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        pytest.param(
            claim_a_terabyte, r"takes \d+\.\d\d GB, and .* has \d+\.\d\d GB free", id="disk-too-small"
        ),
        pytest.param(hold_float32, "as F32: FLUX.1-dev's weights are BF16", id="float32"),
        pytest.param(remove_shard, "lacks diffusion_pytorch_model-00002", id="shard-missing"),
        pytest.param(cut_shard_short, "is damaged", id="shard-cut-short"),
        pytest.param(become_schnell, "another model than", id="schnell-in-disguise"),
    ],
)
def test_a_source_that_will_not_do_is_refused_before_anything_is_written(
    lay_out: MakeCache, tmp_path: Path, harm: Callable[[Path], None], message: str
) -> None:
    snapshot = lay_out()[1]
    harm(snapshot)
    with pytest.raises(WorkerError, match=message):
        quantize(snapshot, tmp_path / "int8")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_tell_its_commit_is_refused(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"not a snapshot of black-forest-labs/FLUX.1-dev"):
        quantize(repository, tmp_path / "int8")


@pytest.mark.parametrize(
    ("there", "message"),
    [
        pytest.param("int8", "exists", id="target"),
        pytest.param("int8.partial", "not from flux-worker", id="draft"),
    ],
)
def test_what_is_there_is_never_overwritten(
    lay_out: MakeCache, tmp_path: Path, there: str, message: str
) -> None:
    (tmp_path / there).mkdir()
    (tmp_path / there / "precious").touch()
    with pytest.raises(ConfigurationError, match=message):
        quantize(lay_out()[1], tmp_path / "int8")
    assert [file.name for file in tmp_path.rglob("*")] == [there, "precious"]


def test_a_model_dir_of_another_commit_is_refused(int8: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"made from commit {REVISION}, .* is {'0' * 40}"):
        load(int8, "0" * 40)


def test_a_model_dir_without_provenance_is_refused(repository: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"not an int8 checkpoint: .*`flux-worker quantize` makes one"
    ):
        load(repository)


def test_an_incomplete_checkpoint_is_refused(lay_out: MakeCache, tmp_path: Path) -> None:
    target = tmp_path / "int8"
    quantize(lay_out()[1], target)
    shard = next(target.glob("transformer/*.safetensors"))
    os.truncate(shard, 100)
    with pytest.raises(ConfigurationError, match=rf"{shard} has 100 bytes, not .* make it again"):
        load(target)


def test_psnr_is_that_of_the_textbook() -> None:
    grey, lighter = (Image.new("RGB", (8, 8), (level, level, level)) for level in (100, 110))
    assert psnr(grey, grey) == float("inf")
    assert psnr(grey, lighter) == pytest.approx(28.1308, abs=1e-3)  # 20 log10(255 / 10)
    with pytest.raises(ValueError, match="cannot be compared"):
        psnr(grey, Image.new("RGB", (8, 9)))
