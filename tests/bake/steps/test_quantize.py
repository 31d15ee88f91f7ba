"""The quantize step, as far as it needs no machine."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bake.errors import BakeError
from bake.planning.plan import Plan
from bake.planning.render import as_text
from bake.progress import PlainScreen, Progress
from bake.run import Run
from bake.ssh import Login, Session
from bake.steps import quantize as step
from bake.weights.flux import WeightFile
from bake.weights.lock import Lock

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud

LARGE, SMALL = "vae/diffusion_pytorch_model.safetensors", "model_index.json"


@pytest.fixture
def plan(plan_cloud: PlanCloud) -> Plan:
    files = {LARGE: WeightFile(10, sha256="a" * 64), SMALL: WeightFile(5, git_oid="b" * 40)}
    plan = plan_cloud.plan("g5-ubuntu")
    lock = Lock(plan.profile.weights.repo, plan.profile.weights.revision, files)
    return dataclasses.replace(plan, weights=dataclasses.replace(plan.weights, lock=lock))


class NoMachine(Session):
    """Nothing may be asked of it."""

    def __init__(self) -> None:
        self.login = Login("192.0.2.1", "ubuntu", "", "ssh-ed25519 AAAA")

    def run_shell(self, command: str, **_: Any) -> Any:
        raise AssertionError(command)


def test_in_bfloat16_there_is_no_such_step(plan_cloud: PlanCloud, tmp_path: Path) -> None:
    progress = Progress(PlainScreen(io.StringIO()))
    assert step.quantize(NoMachine(), plan_cloud.plan(), Run("1", tmp_path, progress)) is None
    assert progress.steps == []


def test_int8_of_the_locked_files_is_taken(plan: Plan) -> None:
    step.check_source(plan, {"inputs": {LARGE: {"sha256": "a" * 64}, SMALL: {"sha256": "c" * 64}}})


@pytest.mark.parametrize("inputs", [{}, {LARGE: {"sha256": "c" * 64}}], ids=["missing", "changed"])
def test_int8_of_anything_else_is_refused_with_the_file(plan: Plan, inputs: dict[str, Any]) -> None:
    with pytest.raises(BakeError, match=f"not made of the locked files: {LARGE}") as caught:
        step.check_source(plan, {"inputs": inputs})
    assert caught.value.hint


@pytest.mark.parametrize("psnr", [None, 20.0, 48.3])
def test_an_image_like_bfloat16s_is_taken(psnr: float | None) -> None:
    step.check_likeness(psnr)


def test_another_image_is_refused(plan: Plan) -> None:
    with pytest.raises(BakeError, match=r"PSNR 11\.5 dB, at least 20 are wanted") as caught:
        step.check_likeness(11.5)
    assert "int8.png" in str(caught.value.hint)


def test_what_is_removed_is_the_repository_and_nothing_around_it(plan: Plan) -> None:
    assert step.repository(plan) == f"{plan.weights.cache}/models--black-forest-labs--FLUX.1-dev"
    assert step.snapshot(plan) == f"{step.repository(plan)}/snapshots/{plan.profile.weights.revision}"


def test_the_plan_says_what_becomes_of_the_source(plan_cloud: PlanCloud) -> None:
    text = as_text(plan_cloud.plan("g5-ubuntu"))
    assert "in int8, made during the bake; the bf16 files are removed from the image" in text
    assert "31 GB more where the volume can't discard freed blocks" in text
    kept = as_text(plan_cloud.plan("g5-ubuntu", weights={"keep_source": True}))
    assert "the bf16 files stay beside it" in kept
    assert "can't discard" not in kept


def test_making_int8_takes_its_time(plan_cloud: PlanCloud) -> None:
    known = plan_cloud.plan("g6e-ubuntu").estimates, plan_cloud.plan("g5-ubuntu").estimates
    bf16, int8 = known
    assert int8.builder_seconds > bf16.builder_seconds + 600
    assert int8.moved_bytes > 4 * bf16.moved_bytes / 3


def test_keep_source_is_for_int8_alone(plan_cloud: PlanCloud) -> None:
    profile = plan_cloud.profile()
    weights = {**profile.weights.model_dump(), "token": "hf_x", "keep_source": False}
    with pytest.raises(ValueError, match="keep_source: false goes with precision: int8"):
        type(profile.weights).model_validate(weights)
    assert type(profile.weights).model_validate({**weights, "precision": "int8"}).keep_source is False
