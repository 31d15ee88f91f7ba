"""Import what the worker imports until its first image, without a weight; argument: the model's folder.

Run by the worker's Python, as the worker's user. It imports the service and draws once, as the worker does,
with the model's own tokenizers and classes and with networks that are made up in memory: libraries import
much only when it is first used. Where the builder lacks the device, and the model is tens of GB, this is what
can be recorded of a start in seconds. A test holds its imports against those of `flux-worker draw`.
"""

from __future__ import annotations

import importlib
import json
import logging
import pkgutil
import sys
from pathlib import Path
from typing import Any

HEADS = {"attention_head_dim": 16, "num_attention_heads": 2, "axes_dims_rope": [4, 4, 8]}
BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
PLAIN = {"use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": 0.1, "scaling_factor": 0.4}
CLIENTS = ("s3", "sqs", "events", "autoscaling")
BY_ANOTHER = ("neuron", "quantize", "shards")  # parts of the worker that this start has no use for


def service() -> None:
    """Import the command, the service, and what that loads and draws with."""
    import flux_worker.cli
    import flux_worker.inference
    import flux_worker.serve  # imported to be recorded

    for module in pkgutil.walk_packages(flux_worker.inference.__path__, "flux_worker.inference."):
        if not any(part in module.name for part in BY_ANOTHER):
            importlib.import_module(module.name)


def clients() -> None:
    """Make the clients that the service makes: botocore reads what it knows of each. AWS is asked nothing."""
    import boto3

    session = boto3.Session("none", "none", region_name="us-east-1")
    made = {name: session.client(name) for name in CLIENTS}
    made["s3"].generate_presigned_url("get_object", Params={"Bucket": "none", "Key": "none"})


def networks(folder: Path) -> dict[str, Any]:
    """Component -> a network of a few kB, of the class that the model's own is of."""
    from transformers import CLIPTextConfig, T5Config

    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))

    def kind(name: str) -> Any:
        library, called = index[name]
        return getattr(importlib.import_module(library), called)

    clip = CLIPTextConfig(
        vocab_size=50_000, hidden_size=8, intermediate_size=8, num_attention_heads=2, num_hidden_layers=1
    )
    t5 = T5Config(vocab_size=33_000, d_model=8, d_ff=8, d_kv=4, num_heads=2, num_layers=1)
    layers = {"num_layers": 1, "num_single_layers": 1, "joint_attention_dim": 8, "pooled_projection_dim": 8}
    return {
        "text_encoder": kind("text_encoder")(clip),
        "text_encoder_2": kind("text_encoder_2")(t5),
        "transformer": kind("transformer")(in_channels=64, guidance_embeds=True, **layers, **HEADS),
        "vae": kind("vae")(
            block_out_channels=(2, 2, 4, 4), latent_channels=16, norm_num_groups=1, **BLOCKS, **PLAIN
        ),
    }


def draw(folder: Path) -> None:
    """Draw one image of 64 x 64 pixels, and encode it."""
    import diffusers
    import torch

    if "quantization_config" in (folder / "transformer" / "config.json").read_text(encoding="utf-8"):
        import torchao.quantization  # noqa: F401  # what int8 weights are read with
    pipeline = diffusers.FluxPipeline.from_pretrained(
        folder, local_files_only=True, dtype=torch.bfloat16, **networks(folder)
    ).to(torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(prompt="a warm-up", width=64, height=64, num_inference_steps=1, max_sequence_length=16)
    with Path("/dev/null").open("wb") as nowhere:
        drawn.images[0].save(nowhere, format="png")


def main() -> None:
    """What the libraries log is nobody's business here."""
    logging.disable(logging.ERROR)
    service()
    clients()
    draw(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
