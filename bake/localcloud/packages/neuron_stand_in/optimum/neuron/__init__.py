"""Stands for NeuronFluxPipeline: it draws its own fixed size, whatever size it is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline


class NeuronFluxPipeline(FluxPipeline):  # type: ignore[misc]
    """diffusers' pipeline on the CPU, with the fixed shapes of its folder."""

    @classmethod
    def from_pretrained(cls, folder: Path, *, local_files_only: bool) -> Any:
        """As optimum-neuron's, which takes a folder that its exporter wrote."""
        config = json.loads((Path(folder) / "transformer" / "config.json").read_text())
        if "neuron" not in config:
            raise ValueError(f"{folder} holds nothing that was compiled")
        pipeline: Any = super().from_pretrained(
            folder, dtype=torch.bfloat16, local_files_only=local_files_only
        )
        pipeline.transformer.register_to_config(neuron=config["neuron"])
        return pipeline

    def __call__(self, **asked: Any) -> Any:
        """Another width and height are ignored in silence, as by optimum-neuron; another length fails."""
        fixed = self.transformer.config.neuron
        if asked["max_sequence_length"] != fixed["static_sequence_length"]:
            raise RuntimeError("the input's shape is not the one that was compiled")
        width, height = (fixed[f"static_{side}"] * self.vae_scale_factor for side in ("width", "height"))
        return super().__call__(**asked | {"width": width, "height": height})
