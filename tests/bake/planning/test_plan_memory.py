"""Does the model fit? By what EC2 says of each type, and what was measured of the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bake.account.instance_types import device_of
from bake.errors import UsageError
from bake.planning import memory as memory_of
from bake.planning.render import as_text
from bake.planning.sources import Sources
from bake.weights import flux
from bake.weights.flux import MIB, WeightFile

from .conftest import Account

KNOWN = {path: WeightFile(size) for path, size in flux.SIZES.items()}


def refusal(account: Account, name: str, **changes: Any) -> list[str]:
    with pytest.raises(UsageError) as caught:
        account.plan(name, **changes)
    text = caught.value.message
    assert not re.search(r"offload|schnell|SDXL|another model|smaller model", text, re.IGNORECASE)
    return text.splitlines()


def test_the_weights_are_those_that_are_known() -> None:
    """11.901 B and 4.762 B parameters in two bytes each, or what is left of them, and the two small ones."""
    assert round(flux.resident_bytes(KNOWN, "bf16") / 1e9, 2) == 33.74
    assert round(flux.resident_bytes(KNOWN, "int8") / 1e9, 2) == 17.30


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_weights_and_work_are_the_measured_peak(precision: str) -> None:
    peak = flux.resident_bytes(KNOWN, precision) + flux.working_bytes(precision)
    assert peak == round(flux.PEAK_GIB[precision] * 1024 * MIB)


def test_bf16_fits_an_l40s(account: Account) -> None:
    memory = account.plan("g6e-ubuntu").verify.memory[0]
    assert memory_of.arithmetic(memory) == [
        " 32,178 MiB  weights      33.7 GB in bf16",
        "  4,890 MiB  working      activations, VAE at 1024 x 1024; measured on a GPU",
        " 37,068 MiB  of 45,776 MiB (L40S); 8,708 MiB to spare",
        "  3,072 MiB  of 32,768 MiB host RAM (32 GiB) to load; 29,696 MiB to spare",
        "             weights pass through small buffers into the GPU",
    ]
    assert memory.verdict == "fits"


@pytest.mark.parametrize(("name", "gpu"), [("g5-ubuntu", "A10G"), ("g6-ubuntu", "L4")])
def test_bf16_does_not_fit_24_gb_and_the_setting_that_does_is_named(
    account: Account, name: str, gpu: str
) -> None:
    lines = refusal(account, name, weights={"precision": "bf16"})
    kind = f"{name.removesuffix('-ubuntu')}.xlarge"
    assert lines[0] == f"weights.precision: FLUX.1-dev in bf16 does not fit {kind}"
    assert f"of 22,888 MiB ({gpu}); 14,180 MiB missing" in lines[3]
    assert lines[6].strip() == (
        "with weights.precision: int8 it needs 22,015 MiB, which is tight but fits, with VAE tiling"
    )
    assert lines[-1].strip() == "choose in the profile: weights.precision"


def test_int8_is_tight_on_24_gb_and_says_what_it_needs(account: Account) -> None:
    plan = account.plan("g5-ubuntu")
    assert plan.verify.memory[0].verdict == "tight"
    assert "! g5.xlarge in int8: tight" in as_text(plan)
    assert "the worker needs VAE tiling and slicing for this" in as_text(plan)


def test_inf2_xlarge_is_refused_with_the_arithmetic(account: Account) -> None:
    assert refusal(account, "inf2-ubuntu") == [
        "builder.instance_type: FLUX.1-dev in bf16 does not fit inf2.xlarge",
        "     32,178 MiB  weights      33.7 GB in bf16",
        "      4,890 MiB  working      activations, VAE at 1024 x 1024; measured on a GPU",
        "     37,068 MiB  of 32,768 MiB (Inferentia2); 4,300 MiB missing",
        "     25,772 MiB  of 16,384 MiB host RAM (16 GiB) to load; 9,388 MiB missing",
        "                 its transformer of 23.8 GB passes through it",
        "    types of its family with enough memory for bf16:",
        "        inf2.24xlarge   6 x Inferentia2 with 32,768 MiB; 393,216 MiB RAM",
        "        inf2.48xlarge   12 x Inferentia2 with 32,768 MiB; 786,432 MiB RAM",
        "    choose in the profile: builder.instance_type",
    ]


def test_more_host_memory_alone_is_not_enough(account: Account) -> None:
    lines = refusal(account, "inf2-ubuntu", builder={"instance_type": "inf2.8xlarge"})
    assert "4,300 MiB missing" in lines[3]
    assert "to spare" in lines[4]


def test_a_neuron_type_with_enough_fits(account: Account) -> None:
    plan = account.plan("inf2-ubuntu", builder={"instance_type": "inf2.24xlarge"})
    assert plan.verify.memory[0].verdict == "fits"
    assert plan.verify.memory[0].available == 6 * 32768


@pytest.mark.parametrize(
    ("kind", "sizes", "fits"),
    [
        pytest.param("inf2.24xlarge", 1, True, id="one"),
        pytest.param("inf2.24xlarge", 3, True, id="three"),
        pytest.param("inf2.24xlarge", 4, False, id="four"),
        pytest.param("inf2.48xlarge", 4, False, id="four, and cores that nothing is compiled for"),
    ],
)
def test_each_size_that_is_compiled_holds_the_weights_once_more(
    account: Account, tmp_path: Path, kind: str, sizes: int, fits: bool
) -> None:
    """As the worker reckons before it loads: tests/worker/inference/test_backends.py."""
    sources = Sources(neuron=tmp_path / "no-lock", sizes=flux.SIZES)  # which is refused in any case
    drawing = {
        "python_index": "https://pip.example.com",
        "sizes": tuple(f"{256 + 16 * number}x256" for number in range(sizes)),
    }
    changes = {"builder": {"instance_type": kind}, "neuron": drawing, "root_volume": {"size_gib": 500}}
    lines = refusal(account, "inf2-ubuntu", sources=sources, **changes)
    told = [line for line in lines if f"does not fit {kind}" in line]
    assert bool(told) != fits
    if not fits:
        assert any(
            "148,272 MiB  for 4 compiled sizes, of 131,072 MiB (4 x Inferentia2)" in one for one in lines
        )
        assert any("each of neuron.sizes holds the weights once more" in line for line in lines)


def test_int8_is_not_for_neuron(account: Account) -> None:
    changes = {"builder": {"instance_type": "inf2.24xlarge"}, "weights": {"precision": "int8"}}
    lines = refusal(account, "inf2-ubuntu", **changes)
    assert lines == ["weights.precision: int8 weights are made for CUDA (torchao); Neuron gets bf16"]


def test_a_pipeline_runs_on_one_gpu(account: Account) -> None:
    """Four GPUs of 22,888 MiB are not one of 91,552."""
    changes = {"builder": {"instance_type": "g6.12xlarge"}, "weights": {"precision": "bf16"}}
    lines = refusal(account, "g6-ubuntu", **changes)
    assert "of 22,888 MiB (one L4 of 4); 14,180 MiB missing" in lines[3]


def test_where_nothing_fits_the_need_is_said(account: Account) -> None:
    changes = {"builder": {"instance_type": "g4dn.xlarge"}, "weights": {"precision": "int8"}}
    lines = refusal(account, "g5-ubuntu", **changes)
    assert lines[-1].strip() == "an accelerator with 22,015 MiB is needed"


def test_alternatives_are_each_held_against_the_model(account: Account) -> None:
    types = {"instance_type": None, "instance_types": ("g6e.xlarge", "g6.xlarge")}
    lines = refusal(account, "g6e-ubuntu", builder=types)
    assert lines[0] == "weights.precision: FLUX.1-dev in bf16 does not fit g6.xlarge"
    both = {"instance_type": None, "instance_types": ("g6e.xlarge", "g6e.2xlarge")}
    plan = account.plan("g6e-ubuntu", builder=both)
    assert [memory.instance_type for memory in plan.verify.memory] == ["g6e.xlarge", "g6e.2xlarge"]
    assert plan.launch.types[0].name == "g6e.xlarge"
    assert "g6e.xlarge or g6e.2xlarge in eu-north-1, on-demand" in as_text(plan)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        pytest.param("t3.micro", "t3.micro has no NVIDIA GPU, which accelerator: cuda needs", id="none"),
        pytest.param(
            "inf2.24xlarge", "no NVIDIA GPU, which accelerator: cuda needs; it has 6 x Inf", id="inf2"
        ),
    ],
)
def test_an_accelerator_of_another_kind(account: Account, kind: str, text: str) -> None:
    lines = refusal(account, "g6e-ubuntu", builder={"instance_type": kind})
    assert any(text in line for line in lines)
    assert not any("does not fit" in line for line in lines)


def test_a_gpu_of_another_maker_is_no_cuda_device() -> None:
    gpu = {"Name": "Radeon Pro V520", "Manufacturer": "AMD", "Count": 1, "MemoryInfo": {"SizeInMiB": 8192}}
    device = device_of({"InstanceType": "g4ad.xlarge", "GpuInfo": {"Gpus": [gpu]}})
    assert device is not None
    assert device.kind == "other"


def test_without_an_accelerator_the_host_holds_the_model(account: Account) -> None:
    small = {"base": {"accelerator": "cpu"}, "builder": {"instance_type": "m5.xlarge"}}
    lines = refusal(account, "g6e-ubuntu", **small)
    assert lines[0] == "builder.instance_type: FLUX.1-dev in bf16 does not fit m5.xlarge"
    large = {"base": {"accelerator": "cpu"}, "builder": {"instance_type": "m5.4xlarge"}}
    plan = account.plan("g6e-ubuntu", **large)
    assert plan.verify.memory[0].verdict == "fits"
    assert plan.unbakeable is not None
