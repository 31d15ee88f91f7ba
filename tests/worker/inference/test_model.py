"""Load a tiny FLUX on the CPU, and generate with it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flux_worker.errors import ConfigurationError, InvalidJob
from flux_worker.jobspec.job import Job
from flux_worker.settings import ModelSettings

pytestmark = pytest.mark.integration
REVISION = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"
MakeCache = Callable[[], tuple[Path, Path]]


def job(**parameters: Any) -> Job:
    return Job(**{"id": "a", "prompt": "a cat", "width": 256, "height": 256, "steps": 2} | parameters)


def load(cache: Path, revision: str = REVISION) -> Any:
    from flux_worker.inference import model

    environment = {"FLUX_MODEL_REVISION": revision, "HF_HUB_CACHE": str(cache), "FLUX_BACKEND": "cpu"}
    return model.load(ModelSettings.from_environment(environment))


def networks(model: Any) -> dict[str, Any]:
    parts = model.pipeline.components
    return {name: parts[name] for name in ("transformer", "text_encoder", "text_encoder_2", "vae")}


@pytest.fixture
def pipeline(cache: Path) -> Any:
    """A pipeline of its own, to be spoilt."""
    from flux_worker.inference import backend_torch

    snapshots = cache / "models--black-forest-labs--FLUX.1-dev" / "snapshots"
    return backend_torch._from_files(snapshots / REVISION)


def test_everything_is_bfloat16(model: Any) -> None:
    import torch

    for name, network in networks(model).items():
        assert {weight.dtype for weight in network.parameters()} == {torch.bfloat16}, name


def test_the_libraries_map_weights_from_the_files_and_copy_none(pipeline: Any) -> None:
    """From there the stream knows which bytes a weight is, and none is read twice."""
    ranges = re.findall(r"^(\w+)-(\w+) .*/blobs/\w+$", Path("/proc/self/maps").read_text(), re.M)
    mapped = [(int(start, 16), int(end, 16)) for start, end in ranges]
    for name in ("transformer", "text_encoder_2"):
        weights = list(pipeline.components[name].parameters())
        inside = [w for w in weights if any(start <= w.data_ptr() < end for start, end in mapped)]
        # A tensor that lies unaligned in its file is copied; there are few.
        assert len(inside) > 0.8 * len(weights), name


def test_nothing_is_offloaded(model: Any) -> None:
    for name, network in networks(model).items():
        assert not any(hasattr(module, "_hf_hook") for module in network.modules()), name
        assert network.device.type == model.device, name


def test_attention_is_torchs_own(model: Any) -> None:
    kinds = {type(processor).__name__ for processor in model.pipeline.transformer.attn_processors.values()}
    assert kinds == {"FluxAttnProcessor"}


def test_a_seed_draws_the_same_again(model: Any) -> None:
    first, again, other = (model.generate(job(seed=seed)).images[0].tobytes() for seed in (1, 1, 2))
    assert first == again != other


def test_each_image_of_a_job_has_the_next_seed(model: Any) -> None:
    generated = model.generate(job(seed=1, images=3))
    alone = model.generate(job(seed=3)).images[0]
    assert len(generated.images) == 3
    assert generated.images[2].tobytes() == alone.tobytes() != generated.images[1].tobytes()


def test_every_step_is_told(model: Any) -> None:
    steps: list[int] = []
    model.generate(job(steps=3, images=2), steps.append)
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("steps", "images"), [(4, 1), (4, 2), (1, 1), (1, 3)])
def test_a_step_takes_its_share_of_the_time(model: Any, steps: int, images: int) -> None:
    generated = model.generate(job(steps=steps, images=images))
    assert 0 < generated.step_seconds * (steps - 1 or 1) * images <= generated.seconds


def test_what_on_step_raises_ends_the_drawing(model: Any) -> None:
    class HandedBack(BaseException):
        pass

    told: list[int] = []

    def stop_at_two(done: int) -> None:
        told.append(done)
        if done == 2:
            raise HandedBack

    with pytest.raises(HandedBack):
        model.generate(job(steps=5), stop_at_two)
    assert told == [1, 2]
    assert model.generate(job(seed=1)).images[0].tobytes() == model.generate(job(seed=1)).images[0].tobytes()


def test_a_drawing_tells_where_it_comes_from(model: Any) -> None:
    generated = model.generate(job())
    assert generated.job.seed == job().seeded().seed
    assert generated.origin == model.origin
    assert (generated.origin.revision, generated.origin.precision, generated.origin.device) == (
        REVISION,
        "bf16",
        "cpu",
    )
    assert set(generated.origin.versions) == {"flux_worker", "torch", "diffusers", "transformers", "torchao"}


def test_512_tokens_pass_and_513_are_refused(model: Any) -> None:
    def tokens(words: int) -> int:
        return len(model.pipeline.tokenizer_2("a " * words, verbose=False).input_ids)

    a_word = tokens(101) - tokens(100)
    fitting = 100 + (512 - tokens(100)) // a_word
    assert tokens(fitting) <= 512 < tokens(fitting + 1)
    model.check(job(prompt="a " * fitting))
    with pytest.raises(InvalidJob, match=f"{tokens(fitting + 1)} tokens, at most 512 are allowed"):
        model.check(job(prompt="a " * (fitting + 1)))
    with pytest.raises(InvalidJob, match=f"{tokens(100)} tokens, at most 64 are allowed"):
        model.check(job(prompt="a " * 100, max_sequence_length=64))


def test_another_revision_is_not_found(cache: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=f"{'0' * 40} is missing or incomplete in HF_HUB_CACHE={cache}"
    ):
        load(cache, "0" * 40)


def remove_shard(snapshot: Path) -> None:
    next(snapshot.glob("transformer/*-00002-*.safetensors")).unlink()


def cut_shard_short(snapshot: Path) -> None:
    shard = next(snapshot.glob("text_encoder_2/*.safetensors")).resolve()
    shard.write_bytes(shard.read_bytes()[:-100])


def forget_a_weight(snapshot: Path) -> None:
    from safetensors.torch import load_file, save_file

    shard = next(snapshot.glob("vae/*.safetensors")).resolve()
    weights = load_file(shard)
    weights.pop("decoder.conv_in.weight")
    save_file(weights, shard, metadata={"format": "pt"})


def forget_the_index(snapshot: Path) -> None:
    (snapshot / "model_index.json").unlink()


def forget_a_folder(snapshot: Path) -> None:
    shutil.rmtree(snapshot / "tokenizer_2")


def become_schnell(snapshot: Path) -> None:
    config = snapshot / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"guidance_embeds": true', '"guidance_embeds": false'))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        pytest.param(remove_shard, "cannot be loaded|missing or incomplete", id="shard-missing"),
        pytest.param(cut_shard_short, "damaged|cannot be loaded", id="shard-cut-short"),
        pytest.param(forget_a_weight, "vae lacks the weight decoder.conv_in.weight", id="weight-missing"),
        pytest.param(forget_the_index, "no readable FLUX.1-dev", id="index-missing"),
        pytest.param(forget_a_folder, "tokenizer_2 has no vocabulary", id="tokenizer-missing"),
        pytest.param(become_schnell, "another model than", id="schnell-in-disguise"),
    ],
)
def test_a_harmed_model_is_a_clear_error(
    lay_out: MakeCache, harm: Callable[[Path], None], message: str
) -> None:
    cache, snapshot = lay_out()
    harm(snapshot)
    with pytest.raises(ConfigurationError, match=message):
        load(cache)


def test_duplicates_that_nobody_downloads_are_not_missed(lay_out: MakeCache) -> None:
    """huggingface_hub keeps the repository's whole listing beside the snapshot, and misses what it names."""
    from flux_worker.inference.checkpoint import find

    cache, snapshot = lay_out()
    names = [str(file.relative_to(snapshot)) for file in snapshot.rglob("*") if file.is_file()]
    entry = {"size": 1, "blob_id": "0" * 40}
    listing = {"format_version": 1, "files": dict.fromkeys([*names, "flux1-dev.safetensors"], entry)}
    trees = snapshot.parents[1] / "trees"
    trees.mkdir()
    (trees / f"{REVISION}.json").write_text(json.dumps(listing))
    settings = ModelSettings(FLUX_MODEL_REVISION=REVISION, HF_HUB_CACHE=cache)
    assert find(settings).folder == snapshot
    (snapshot / names[0]).unlink()
    with pytest.raises(ConfigurationError, match=re.escape(names[0])):
        find(settings)


def test_xformers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flux_worker.inference.backend_torch import TorchBackend

    check_packages = TorchBackend("cpu").check_packages

    (tmp_path / "xformers").mkdir()
    (tmp_path / "xformers" / "__init__.py").touch()
    check_packages()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match="xformers is installed"):
        check_packages()


def become_float16(pipeline: Any) -> None:
    pipeline.transformer.half()


def stay_float32(pipeline: Any) -> None:
    pipeline.vae.float()


def offload(pipeline: Any) -> None:
    from accelerate.hooks import ModelHook, add_hook_to_module

    add_hook_to_module(pipeline.text_encoder_2.encoder.block[0], ModelHook())


def offload_in_groups(pipeline: Any) -> None:
    pipeline.transformer.enable_group_offload(onload_device="cpu", offload_type="leaf_level")


def attend_by_another(pipeline: Any) -> None:
    class XFormersAttnProcessor:
        pass

    next(iter(pipeline.transformer.single_transformer_blocks)).attn.processor = XFormersAttnProcessor()


def be_quantized(pipeline: Any) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(pipeline.transformer, Int8WeightOnlyConfig(version=2))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(become_float16, r"transformer\..* is torch.float16, not bfloat16", id="float16"),
        pytest.param(stay_float32, r"vae\..* is torch.float32, not bfloat16", id="float32"),
        pytest.param(offload, r"text_encoder_2.encoder.block.0 would be moved", id="sequential-offload"),
        pytest.param(offload_in_groups, r"transformer\.\S+ would be moved", id="group-offload"),
        pytest.param(attend_by_another, "uses XFormersAttnProcessor for attention", id="xformers"),
        pytest.param(be_quantized, "transformer is in int8, expected bf16", id="precision"),
    ],
)
def test_a_pipeline_that_is_not_as_promised_is_never_used(
    pipeline: Any, spoil: Callable[[Any], None], message: str
) -> None:
    from flux_worker.inference.validation import assert_valid

    assert_valid(pipeline, "bf16")
    spoil(pipeline)
    with pytest.raises(ConfigurationError, match=message):
        assert_valid(pipeline, "bf16")


def test_every_weight_lies_on_the_device_that_draws(pipeline: Any) -> None:
    from flux_worker.inference.validation import assert_on_device

    assert_on_device(pipeline, "cpu")
    pipeline.text_encoder.to("meta")
    with pytest.raises(ConfigurationError, match=r"text_encoder\..* stayed on meta, not on cpu"):
        assert_on_device(pipeline, "cpu")


def test_tiles_change_the_memory_and_not_the_size(pipeline: Any) -> None:
    import torch
    from diffusers.image_processor import VaeImageProcessor

    from flux_worker.inference.backend_torch import _decode_in_tiles

    latents = torch.randn(1, 1, 48, 32, generator=torch.Generator().manual_seed(1)).bfloat16()
    _decode_in_tiles(pipeline.vae, None)
    assert not pipeline.vae.use_tiling
    _decode_in_tiles(pipeline.vae, 128)
    sizes: list[Any] = []
    pipeline.vae.decoder.register_forward_hook(lambda _m, _i, output: sizes.append(output.shape[-2:]))
    with torch.no_grad():
        checking_decoded = pipeline.vae.decode(latents).sample
    image = VaeImageProcessor().postprocess(checking_decoded)[0]
    assert image.size == (256, 384)
    assert len(sizes) > 1
    assert max(max(size) for size in sizes) == 128
