"""A FLUX with random weights, of any shape, written as the Hub's repository lays it out.

Needs torch, diffusers, transformers and tokenizers alone. Weights are made tensor by tensor on the fastest
device there is and go to disk a shard at a time: the true shape (33.7 GB) needs little host memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

TEXT = ["a photo of a cat on a roof", "an oil painting of the sea at night", "drawn by a worker"]

# Eight pixels a latent, as the real one has: sizes cost what they should even where the weights are tiny.
FOUR_BLOCKS = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}


@dataclass(frozen=True)
class Shape:
    """Constructor arguments of the four networks."""

    transformer: dict[str, Any]
    vae: dict[str, Any]
    clip: dict[str, Any]
    t5: dict[str, Any]
    shard_bytes: int


TINY = Shape(
    transformer={
        "in_channels": 4,
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 32,
        "axes_dims_rope": [4, 4, 8],
    },
    vae={
        "block_out_channels": [4, 4, 4, 4],
        "layers_per_block": 1,
        "latent_channels": 1,
        "norm_num_groups": 1,
        "sample_size": 32,
        "shift_factor": 0.0609,
        "scaling_factor": 1.5035,
    },
    clip={"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}
    | {"projection_dim": 32, "vocab_size": 1000},
    t5={"d_model": 32, "d_ff": 37, "d_kv": 8, "num_heads": 4, "num_layers": 2, "vocab_size": 1000},
    shard_bytes=20_000,
)

# FLUX.1-dev itself: 11.901 B parameters in the transformer, 4.762 B in T5-XXL.
DEV = Shape(
    transformer={
        "in_channels": 64,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "axes_dims_rope": [16, 56, 56],
    },
    vae={
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "latent_channels": 16,
        "sample_size": 1024,
        "shift_factor": 0.1159,
        "scaling_factor": 0.3611,
    },
    clip={"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    | {"projection_dim": 768, "vocab_size": 49408},
    t5={"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24, "vocab_size": 32128},
    shard_bytes=5_000_000_000,
)


def build(folder: Path, shape: Shape = TINY) -> None:
    """Write a whole repository into `folder`."""
    for name, network in _networks(shape).items():
        _write_network(folder / name, network, shape.shard_bytes)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    scheduler.save_pretrained(folder / "scheduler")
    _write_clip_tokenizer(folder / "tokenizer")
    _write_t5_tokenizer(folder / "tokenizer_2")
    parts = {
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    header = {"_class_name": "FluxPipeline", "_diffusers_version": "0.30.0"}
    _write_json(folder / "model_index.json", header | parts)


def _networks(shape: Shape) -> dict[str, Any]:
    """The four networks without memory for their weights."""
    clip = CLIPTextConfig(bos_token_id=0, eos_token_id=2, **shape.clip)
    t5 = T5Config(feed_forward_proj="gated-gelu", **shape.t5)
    with torch.device("meta"):
        return {
            "transformer": FluxTransformer2DModel(patch_size=1, guidance_embeds=True, **shape.transformer),
            "vae": AutoencoderKL(use_quant_conv=False, use_post_quant_conv=False, **FOUR_BLOCKS, **shape.vae),
            "text_encoder": CLIPTextModel(clip),
            "text_encoder_2": T5EncoderModel(t5),
        }


def _write_network(folder: Path, network: Any, shard_bytes: int) -> None:
    folder.mkdir(parents=True)
    stem = _write_config(folder, network)
    shards = list(_shards(network, shard_bytes))
    names = [_shard_name(stem, index, len(shards)) for index in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        tensors = {key: _random(key, size) for key, size in shard.items()}
        save_file(tensors, folder / name, metadata={"format": "pt"})
    if len(shards) > 1:
        places = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        total = sum(2 * size.numel() for shard in shards for size in shard.values())
        index = {"metadata": {"total_size": total}, "weight_map": places}
        _write_json(folder / f"{stem}.safetensors.index.json", index)


def _write_config(folder: Path, network: Any) -> str:
    """Write config.json; gives back how the library names its weight files."""
    if isinstance(network, CLIPTextModel | T5EncoderModel):
        network.config.architectures = [type(network).__name__]
        network.config.save_pretrained(folder)
        return "model"
    network.save_config(folder)
    return "diffusion_pytorch_model"


def _shard_name(stem: str, index: int, count: int) -> str:
    return f"{stem}.safetensors" if count == 1 else f"{stem}-{index + 1:05}-of-{count:05}.safetensors"


def _shards(network: Any, shard_bytes: int) -> Iterator[dict[str, torch.Size]]:
    shard: dict[str, torch.Size] = {}
    size = 0
    for key, parameter in network.named_parameters():  # tied weights come once
        weight = 2 * parameter.numel()
        if shard and size + weight > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[key] = parameter.shape
        size += weight
    yield shard


def _random(key: str, size: torch.Size) -> torch.Tensor:
    """bfloat16 on the CPU: norms are 1, biases 0, everything else small noise, so that nothing overflows."""
    if len(size) == 1:
        return torch.full(size, float(key.endswith("weight")), dtype=torch.bfloat16)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.randn(size, dtype=torch.bfloat16, device=device).mul_(0.02).cpu()


def _write_clip_tokenizer(folder: Path) -> None:
    folder.mkdir()
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    start, _, end = special = [
        "<|startoftext|>",
        "!",
        "<|endoftext|>",
    ]  # the text encoder looks for ids 0 and 2
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    _write_json(folder / "vocab.json", trained["vocab"])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in trained["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{merge}\n" for merge in merges))
    tokens = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
    _write_json(folder / "special_tokens_map.json", tokens)
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    _write_json(folder / "tokenizer_config.json", config | tokens)


def _write_t5_tokenizer(folder: Path) -> None:
    folder.mkdir()
    pad, end, unknown = special = ["<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=[chr(code) for code in range(33, 127)],
        unk_token=unknown,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[(end, 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"pad_token": pad, "eos_token": end, "unk_token": unknown, "extra_ids": 0}
    config = {"tokenizer_class": "T5TokenizerFast", "model_max_length": 512}
    _write_json(folder / "tokenizer_config.json", config | tokens)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
