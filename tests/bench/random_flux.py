"""FLUX.1-dev's true shape, or a part of it, with random weights, laid out as the Hub's repository is.

Needs torch, diffusers, transformers and tokenizers alone. Weights are made tensor by tensor on the fastest
device there is and go to disk a shard at a time: the true shape (33.7 GB) needs little host memory.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from bake.localcloud.hub import tiny_flux

SHARD_BYTES = 5_000_000_000


def build(folder: Path, *, double_blocks: int = 19, single_blocks: int = 38, t5_blocks: int = 24) -> None:
    """Write a whole repository into `folder`; the defaults are FLUX.1-dev's."""
    tiny_flux.build(folder)  # tokenizers, scheduler and index are good as they are
    for name, network in _networks(double_blocks, single_blocks, t5_blocks).items():
        shutil.rmtree(folder / name)
        _write(folder / name, network)


def _networks(double_blocks: int, single_blocks: int, t5_blocks: int) -> dict[str, Any]:
    """The four networks, without memory for their weights."""
    with torch.device("meta"):
        return {
            "transformer": FluxTransformer2DModel(
                in_channels=64,
                num_layers=double_blocks,
                num_single_layers=single_blocks,
                attention_head_dim=128,
                num_attention_heads=24,
                joint_attention_dim=4096,
                pooled_projection_dim=768,
                axes_dims_rope=(16, 56, 56),
                guidance_embeds=True,
            ),
            "vae": AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
                latent_channels=16,
                sample_size=1024,
                use_quant_conv=False,
                use_post_quant_conv=False,
                shift_factor=0.1159,
                scaling_factor=0.3611,
            ),
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=49408,
                    hidden_size=768,
                    intermediate_size=3072,
                    num_attention_heads=12,
                    num_hidden_layers=12,
                    projection_dim=768,
                    bos_token_id=0,
                    eos_token_id=2,
                )
            ),
            "text_encoder_2": T5EncoderModel(
                T5Config(
                    d_model=4096,
                    d_ff=10240,
                    d_kv=64,
                    num_heads=64,
                    num_layers=t5_blocks,
                    vocab_size=32128,
                    feed_forward_proj="gated-gelu",
                )
            ),
        }


def _write(folder: Path, network: Any) -> None:
    folder.mkdir()
    stem = _write_config(folder, network)
    shards = list(_shards(network))
    names = [f"{stem}-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = [f"{stem}.safetensors"]
    for name, shard in zip(names, shards, strict=True):
        tensors = {key: _random(key, size) for key, size in shard.items()}
        save_file(tensors, folder / name, metadata={"format": "pt"})
    if len(shards) > 1:
        places = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        index = {"metadata": {}, "weight_map": places}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


def _write_config(folder: Path, network: Any) -> str:
    """Write config.json; gives back how the library names its weight files."""
    if isinstance(network, CLIPTextModel | T5EncoderModel):
        network.config.architectures = [type(network).__name__]
        network.config.save_pretrained(folder)
        return "model"
    network.save_config(folder)
    return "diffusion_pytorch_model"


def _shards(network: Any) -> Iterator[dict[str, torch.Size]]:
    shard: dict[str, torch.Size] = {}
    size = 0
    for key, parameter in network.named_parameters():  # tied weights come once
        weight = 2 * parameter.numel()
        if shard and size + weight > SHARD_BYTES:
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
