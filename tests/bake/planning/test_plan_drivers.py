"""What the plan says of drivers: the locked torch decides what NVIDIA's must be; Neuron's are as pinned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bake.errors import UsageError
from bake.planning import drivers
from bake.planning.plan import Plan
from bake.planning.render import as_text
from bake.planning.sources import Sources
from bake.weights import flux

from .conftest import Account

KEY = "0123456789ABCDEF0123456789ABCDEF01234567"
NEURON: dict[str, Any] = {
    "repository": "https://neuron.example.com/",
    "fingerprint": KEY,
    "runtime_lib": "2.28.23.0-dd5879008",
    "dkms": "2.24.7.0",
}
LARGE = {"instance_type": "inf2.24xlarge"}


@pytest.mark.parametrize(
    ("text", "cuda"),
    [
        pytest.param("nvidia-cuda-runtime==13.0.96 \\\n", 13, id="CUDA 13"),
        pytest.param("nvidia-cuda-runtime-cu12==12.8.90 \\\n", 12, id="CUDA 12"),
        pytest.param("torch==2.13.0+cpu --hash=sha256:00\n", None, id="CPU"),
        pytest.param("nvidia-nccl-cu13==2.29.7\n", None, id="not the runtime"),
    ],
)
def test_the_lock_tells_the_cuda_that_torch_is_built_for(tmp_path: Path, text: str, cuda: int | None) -> None:
    (tmp_path / "lock.txt").write_text(f"boto3==1.40.0\n{text}")
    assert drivers.cuda_of(tmp_path / "lock.txt") == cuda


def test_the_workers_lock_needs_a_driver_of_580_or_newer(account: Account) -> None:
    found = drivers.cuda_of(Sources().requirements)
    assert found == 13
    plan = account.plan()
    assert plan.provision.settings["BAKE_DRIVER_MINIMUM"] == "580.65.06"
    assert "of the base AMI; CUDA 13 needs 580.65.06" in as_text(plan)


def test_a_pinned_driver_that_is_too_old_is_refused(account: Account) -> None:
    with pytest.raises(
        UsageError, match=r"nvidia\.driver: 570\.9\.1 is too old: .*CUDA 13.* needs 580\.65\.06"
    ):
        account.plan(
            nvidia={"driver": "570.9.1", "repository": "https://nvidia.example.com", "fingerprint": KEY}
        )


def test_the_neuron_stack_is_said_and_handed_to_its_script(account: Account) -> None:
    plan = account.plan("inf2-ubuntu", builder=LARGE, neuron=NEURON)
    for line in ("aws-neuronx-runtime-lib 2.28.23.0-dd5879008", "aws-neuronx-dkms 2.24.7.0"):
        assert line in as_text(plan)
    settings = plan.provision.settings
    assert (
        settings["NEURON_PACKAGES"] == "aws-neuronx-runtime-lib=2.28.23.0-dd5879008 aws-neuronx-dkms=2.24.7.0"
    )
    assert settings["NEURON_REPOSITORY"] == "https://neuron.example.com"
    assert (settings["NEURON_FINGERPRINT"], settings["NEURON_NOGPGCHECK"]) == (KEY, "no")
    assert any("experimental" in text and "draws on the CPU" in text for text in plan.warnings)
    assert (settings["NEURON_PYTHON_INDEX"], settings["NEURON_SIZES"]) == ("", "")
    assert not any("nogpgcheck" in text for text in plan.warnings)


def test_nogpgcheck_is_said_in_the_plan(account: Account) -> None:
    plan = account.plan("inf2-ubuntu", builder=LARGE, neuron={**NEURON, "nogpgcheck": True})
    assert plan.provision.settings["NEURON_NOGPGCHECK"] == "yes"
    assert any(
        "neuron.nogpgcheck" in text and "aws-neuronx-dkms are installed without" in text
        for text in plan.warnings
    )


def test_a_stack_for_another_accelerator_is_refused(account: Account) -> None:
    with pytest.raises(UsageError, match="neuron: nothing of it is installed for accelerator: cuda"):
        account.plan(neuron=NEURON)


def test_the_backend_for_neuron_needs_the_sdks_lock(account: Account, tmp_path: Path) -> None:
    lock = tmp_path / "worker-neuron-sdk.txt"
    drawing = {"python_index": "https://pip.example.com", "sizes": ("1024x1024", "768x1344")}

    def planned(gib: int) -> Plan:
        sources = Sources(neuron=lock, sizes=flux.SIZES)
        changes: dict[str, dict[str, Any]] = {"builder": LARGE, "neuron": drawing}
        return account.plan("inf2-ubuntu", sources, **changes, root_volume={"size_gib": gib})

    with pytest.raises(UsageError, match=r"make lock NEURON_PYTHON_INDEX=https://pip\.example\.com"):
        planned(300)
    lock.touch()
    with pytest.raises(UsageError, match=r"root_volume\.size_gib: .*too small(.|\n)*for Neuron"):
        planned(100)
    plan = planned(300)
    assert plan.provision.drivers.compiled == ("1024x1024", "768x1344")
    assert plan.provision.settings["NEURON_PYTHON_INDEX"] == "https://pip.example.com"
    assert plan.provision.settings["NEURON_SIZES"] == "1024x1024 768x1344"
    assert any("not run on hardware" in text and "768x1344 and no other" in text for text in plan.warnings)
    lock.write_text("torch-neuronx==2.8.0.2.10.16998\n")
    moved = planned(300)
    assert moved.id != plan.id, "the plan's id is of all that goes into the image"
    before, now = plan.guarded.pins["worker.lock"], moved.guarded.pins["worker.lock"]
    assert before[0] != now[0], "what was agreed was the other lock"
    assert now[1].endswith(f"worker.txt and {lock}")
