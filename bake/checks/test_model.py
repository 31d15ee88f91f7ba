"""The model loads as the worker loads it: from the cache, without a network or a token."""

from __future__ import annotations

from typing import Any

import pytest
from testinfra.host import Host

from bake.checks.expectations import Expectations

# In int8; the VAE and CLIP are small and stay as they are.
QUANTIZED = ["text_encoder_2", "transformer"]


@pytest.fixture
def loaded(model: dict[str, Any]) -> dict[str, Any]:
    """What was seen of the loaded pipeline."""
    if model["loaded"] is None:
        pytest.fail(f"the model does not load:\n{model['error']}", pytrace=False)
    facts: dict[str, Any] = model["loaded"]
    return facts


def test_loads_offline(
    host: Host, model: dict[str, Any], loaded: dict[str, Any], expect: Expectations
) -> None:
    """The model loads from the disk as the worker's user, cut off from every network (R-CACHE)."""
    assert model["interfaces"] == ["lo"]
    assert model["user"] == host.user(expect.user).uid
    assert all(count > 0 for count in loaded["parameters"].values())


def test_is_flux_dev(loaded: dict[str, Any]) -> None:
    """The model is FLUX.1-dev: a FluxPipeline whose transformer takes a guidance (R-MODEL)."""
    assert loaded["class"] == "FluxPipeline"
    assert loaded["guidance"], "a transformer without guidance is FLUX.1-schnell"
    assert {"transformer", "text_encoder", "text_encoder_2", "vae"} <= set(loaded["parameters"])


def test_precision(loaded: dict[str, Any], expect: Expectations) -> None:
    """Every component computes in bfloat16; in int8 are the profile's choice and nothing else (R-DTYPE)."""
    wanted = ["torch.bfloat16"]
    assert {name: kinds for name, kinds in loaded["dtypes"].items() if kinds != wanted} == {}
    assert loaded["precision"] == expect.precision
    assert loaded["quantized"] == (QUANTIZED if expect.precision == "int8" else [])


def test_no_offload(loaded: dict[str, Any]) -> None:
    """No part of the model is set up to move between CPU and GPU (R-OFFLOAD)."""
    assert loaded["hooked"] == []


def test_no_token_for_worker(model: dict[str, Any]) -> None:
    """The worker finds no Hugging Face token: it needs none."""
    assert not model["token_visible"]


def test_no_xformers(model: dict[str, Any]) -> None:
    """xformers is not installed: it breaks FLUX in diffusers >= 0.31 (R-XFORMERS)."""
    assert model["packages"]["xformers"] is None


def test_accelerate(model: dict[str, Any]) -> None:
    """accelerate is installed: diffusers quietly drops low_cpu_mem_usage without it (R-DTYPE, R-OOM)."""
    assert model["packages"]["accelerate"] is not None


def test_python(model: dict[str, Any], expect: Expectations) -> None:
    """The worker's environment runs the profile's version of Python."""
    assert model["python"] == expect.python
