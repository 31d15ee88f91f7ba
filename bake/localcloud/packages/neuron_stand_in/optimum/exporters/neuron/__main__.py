"""The options are the exporter's own, by its parser; what it writes is the model with its fixed shapes."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

COMPILER_FAILS = "STAND_IN_COMPILER_FAILS"


def main() -> None:
    """Refuses what the exporter would refuse, or do otherwise than the worker relies on."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--task", required=True, choices=["text-to-image"])
    parser.add_argument("--instance_type", required=True, choices=["trn1", "inf2", "trn1n", "trn2"])
    parser.add_argument("--tensor_parallel_size", type=int, default=1)
    parser.add_argument("--torch_dtype", required=True, choices=["bfloat16"])
    parser.add_argument("--auto_cast", choices=["none", "matmul", "all"])
    parser.add_argument("--compiler_workdir", type=Path)
    parser.add_argument("--disable_neuron_cache", action="store_true", required=True)
    parser.add_argument("--disable-validation", action="store_true", required=True)
    for name in ("batch_size", "num_images_per_prompt", "width", "height", "sequence_length"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    assert (options.batch_size, options.num_images_per_prompt) == (1, 1)
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    leave_scratch(options.compiler_workdir)
    shutil.copytree(options.model, options.output)
    if os.environ.get(COMPILER_FAILS):
        sys.exit("neuronx-cc: error: out of memory")
    fix_shapes(options)


def leave_scratch(workdir: Path) -> None:
    """As the compiler, which keeps its parts and what it made before, here and there."""
    kept = os.environ.get("NEURON_COMPILE_CACHE_URL", "/var/tmp/neuron-compile-cache")  # noqa: S108 - its own
    for folder in (workdir, Path(kept), Path.home(), Path(tempfile.gettempdir())):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "neuron-scratch.hlo").write_text("what the compiler leaves behind\n")


def fix_shapes(options: argparse.Namespace) -> None:
    """Write them into the transformer's configuration, where optimum-neuron has them."""
    vae = json.loads((options.output / "vae" / "config.json").read_text())
    pixels = 2 ** (len(vae["block_out_channels"]) - 1)
    file = options.output / "transformer" / "config.json"
    config = json.loads(file.read_text())
    config["neuron"] = {
        "static_width": options.width // pixels,
        "static_height": options.height // pixels,
        "static_sequence_length": options.sequence_length,
        "tensor_parallel_size": options.tensor_parallel_size,
    }
    file.write_text(json.dumps(config))


if __name__ == "__main__":
    main()
