"""Loads the model as the worker would, and says what came of it.

Runs under the worker's Python, as the worker's user, in the worker's environment, without a network and
without a GPU: loading for the CPU maps the files and takes seconds. No input.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import socket
import sys
import traceback
from typing import Any


def packages() -> dict[str, str | None]:
    """Versions of what drawing needs, and of what must not be there."""
    names = ("torch", "diffusers", "transformers", "accelerate", "torchao", "xformers", "flux-worker")
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    if importlib.util.find_spec("xformers") is not None:
        found["xformers"] = found["xformers"] or "importable"
    return found


def load() -> dict[str, Any]:
    """Load the pipeline by the worker's own code, and look at every component."""
    import torch

    worker, settings = (
        importlib.import_module(f"flux_worker.{name}") for name in ("inference.model", "settings")
    )
    model = worker.load(settings.ModelSettings.from_environment(os.environ))
    pipe = model.pipeline
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {
        "class": type(pipe).__name__,
        "guidance": bool(pipe.transformer.config.guidance_embeds),
        "precision": model.origin.precision,
        "dtypes": {name: sorted({str(p.dtype) for p in part.parameters()}) for name, part in parts.items()},
        # Such weights name bfloat16, in which they compute, as their dtype.
        "quantized": sorted(name for name, part in parts.items() if int8(part)),
        "hooked": sorted(name for name, part in parts.items() if offloaded(part)),
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
    }


def int8(part: Any) -> bool:
    """Whether some of its weights are torchao's quantized tensors."""
    return any(type(parameter).__name__ == "Int8Tensor" for parameter in part.parameters())


def offloaded(part: Any) -> bool:
    """Whether accelerate or diffusers would move this part, or a part of it, between devices."""
    return any(hasattr(module, "_hf_hook") or hasattr(module, "_diffusers_hook") for module in part.modules())


def main() -> None:
    """Print the facts; a model that does not load is a fact, too."""
    import huggingface_hub

    facts: dict[str, Any] = {
        "packages": packages(),
        "user": os.getuid(),
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
        "token_visible": huggingface_hub.get_token() is not None,
        "python": "{}.{}".format(*sys.version_info),
        "loaded": None,
        "error": "",
    }
    try:
        facts["loaded"] = load()
    except Exception:
        facts["error"] = traceback.format_exc(limit=-3)
    print(json.dumps(facts))


main()
