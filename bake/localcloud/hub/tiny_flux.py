"""A FLUX.1-dev of 1 MB for rehearsals: the real architecture and file layout, random weights.

Run as a process of its own (`python -m bake.localcloud.hub.tiny_flux DIRECTORY`), since it needs torch and
diffusers, which nothing else in the local cloud does.
"""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path
from typing import Any

VERSION = 4  # part of the cache key: raise it when the files change

# The tokenizers know the words of this text; any English will do.
_CORPUS = [
    "a photograph of a cat that sits on a red chair beside the window",
    "an oil painting of a lighthouse in a storm, dramatic light, high detail",
    "a robot reading a book in a library, soft morning light",
    "the quick brown fox jumps over the lazy dog, 0123456789",
]


def build(target: Path) -> None:
    """Write the repository's files below `target`, reproducibly, since a lock pins them."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    torch.manual_seed(0)
    text_encoder, text_encoder_2 = _text_encoders()
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=_vae(),
        text_encoder=text_encoder,
        tokenizer=_clip_tokenizer(),
        text_encoder_2=text_encoder_2,
        tokenizer_2=_t5_tokenizer(),
        transformer=_transformer(),
    ).to(torch.bfloat16)
    pipeline.save_pretrained(target)
    # In shards with an index, like the big parts of the real repository.
    pipeline.transformer.save_pretrained(target / "transformer", max_shard_size="60KB")
    pipeline.text_encoder_2.save_pretrained(target / "text_encoder_2", max_shard_size="60KB")
    for single in (
        "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder_2/model.safetensors",
    ):
        (target / single).unlink(missing_ok=True)
    _vocabulary(target / "tokenizer")
    _duplicates(target)


def _transformer() -> Any:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8],
        guidance_embeds=True,
    )


def _vae() -> Any:
    """Four blocks like the real one, so that a latent is an eighth of the image; few channels, for speed."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(2, 2, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=1,
        norm_num_groups=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.0609,
        scaling_factor=1.5035,
    )


def _text_encoders() -> tuple[Any, Any]:
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    clip = CLIPTextConfig(
        vocab_size=1000,
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        projection_dim=32,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )
    t5 = T5Config(vocab_size=1000, d_model=32, d_ff=37, d_kv=8, num_heads=4, num_layers=2)
    return CLIPTextModel(clip).eval(), T5EncoderModel(t5).eval()


def _vocabulary(tokenizer: Path) -> None:
    """The real repository also holds the CLIP vocabulary in its older form."""
    model = json.loads((tokenizer / "tokenizer.json").read_text())["model"]
    (tokenizer / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (tokenizer / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")


def _words() -> list[str]:
    return sorted({word for line in _CORPUS for word in re.findall(r"\w+|[^\w\s]", line)})


def _clip_tokenizer() -> Any:
    """Make each word of the corpus a token by merging letters. A trainer's ids would differ between runs."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    merges: dict[tuple[str, str], None] = {}
    for word in _words():
        left, *rest = [*word[:-1], f"{word[-1]}</w>"]
        for right in rest:
            merges[left, right] = None
            left += right
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|startoftext|>", "<|pad|>", "<|endoftext|>"]
    ends = [f"{letter}</w>" for letter in letters]
    tokens = dict.fromkeys([*special, *letters, *ends, *("".join(pair) for pair in merges)])
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=list(merges),
        bos_token="<|startoftext|>",  # noqa: S106
        eos_token="<|endoftext|>",  # noqa: S106
        unk_token="<|endoftext|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        model_max_length=77,
    )


def _t5_tokenizer() -> Any:
    """Score words above letters, in whole numbers: a trainer's last digits would differ between runs."""
    from transformers import T5TokenizerFast

    words = [f"▁{word}" for word in _words()]
    letters = sorted({letter for word in words for letter in word} - set(words))
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [*((word, -4.0) for word in words), *((letter, -8.0) for letter in letters)]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=512)


def _duplicates(target: Path) -> None:
    """Write the files of the real repository that diffusers never loads."""
    noise = random.Random(0)  # noqa: S311
    (target / "flux1-dev.safetensors").write_bytes(noise.randbytes(3 << 20))
    (target / "ae.safetensors").write_bytes(noise.randbytes(1 << 20))
    (target / "dev_grid.jpg").write_bytes(b"\xff\xd8\xff\xe0" + noise.randbytes(64 << 10))
    (target / "README.md").write_text("# A stand-in for FLUX.1-dev\n\nRandom weights, for rehearsals.\n")
    (target / "LICENSE.md").write_text("Made for rehearsals; nothing of the real model is in it.\n")
    (target / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
