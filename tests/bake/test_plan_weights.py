"""What the weights weigh: asked of a Hub, by the real client; nothing is downloaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from bake import flux
from bake import plan as planning
from bake.errors import UsageError
from bake.localcloud.hub import REVISION, Hub
from bake.plan import Plan, Sources
from bake.planning import weights as weights_of
from bake.planning.findings import Findings

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud

TOKEN = "hf_canary_token"
FILES = {
    "model_index.json": 30,
    "transformer/diffusion_pytorch_model-00001-of-00003.safetensors": 5000,
    "transformer/config.json": 20,
    "text_encoder_2/model-00001-of-00002.safetensors": 4000,
    "vae/diffusion_pytorch_model.safetensors": 300,
    "scheduler/scheduler_config.json": 10,
    "flux1-dev.safetensors": 90_000,
    "ae.safetensors": 9000,
    "dev_grid.jpg": 100,
    "README.md": 7,
}


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker turns the client's network off when it loads a model; that lasts as long as the process."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("hub")
    for name, size in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x" * size)
    yield from serve(Hub(folder, TOKEN))


def serve(app: Any) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def plan(plan_cloud: PlanCloud, hub: str, **weights: Any) -> Plan:
    return planning.make(plan_cloud.profile(weights=weights), plan_cloud.aws(), Sources(hub=hub))


def test_the_files_that_diffusers_loads_and_no_others(plan_cloud: PlanCloud, hub: str) -> None:
    found = plan(plan_cloud, hub)
    assert {path: file.bytes for path, file in found.weight_files.items()} == {
        path: size for path, size in FILES.items() if "/" in path or path == "model_index.json"
    }
    assert found.weights.source == "the Hub's metadata"
    assert "the Hub gives the weights of this revision to this token" in found.checked


def test_checksums_come_with_the_large_files(plan_cloud: PlanCloud, hub: str) -> None:
    files = plan(plan_cloud, hub).weight_files
    sha256 = files["vae/diffusion_pytorch_model.safetensors"].sha256
    assert sha256 is not None
    assert len(sha256) == 64
    assert files["transformer/config.json"].sha256 is None


def test_the_arithmetic_is_about_the_hubs_files(plan_cloud: PlanCloud, hub: str) -> None:
    found = plan(plan_cloud, hub)
    part = next(part for part in found.disk.parts if part.name == "weights")
    assert part.bytes == sum(file.bytes for file in found.weight_files.values())


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (
            "hf_another",
            "weights.token: the account of this token may not download black-forest-labs/FLUX.1-dev",
        )
    ],
)
def test_a_licence_that_was_not_accepted_stops_before_any_money_is_spent(
    plan_cloud: PlanCloud, hub: str, token: str, expected: str
) -> None:
    with pytest.raises(UsageError) as caught:
        plan(plan_cloud, hub, token=SecretStr(token))
    assert caught.value.message.startswith(expected)
    assert "accept the licence at https://huggingface.co/black-forest-labs/FLUX.1-dev" in caught.value.message
    assert token not in caught.value.message


def test_a_revision_that_is_not_there(plan_cloud: PlanCloud, hub: str) -> None:
    with pytest.raises(
        UsageError, match=r"weights\.revision: black-forest-labs/FLUX\.1-dev has no such revision"
    ):
        plan(plan_cloud, hub, revision="0" * 40)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "weights.token: the Hub does not know this token"),
        (403, "weights.token: the account of this token may not download"),
    ],
)
def test_a_token_that_the_hub_refuses(plan_cloud: PlanCloud, status: int, expected: str) -> None:
    for refusing in serve(lambda environ, start: Response("{}", status)(environ, start)):
        with pytest.raises(UsageError, match=expected):
            plan(plan_cloud, refusing)


def test_a_hub_that_is_not_reached_leaves_the_known_sizes(plan_cloud: PlanCloud) -> None:
    found = plan(plan_cloud, "http://127.0.0.1:9")
    assert round(found.weights.bytes / 1e9, 1) == 33.7
    assert found.weights.source == "known sizes"
    assert any("the Hub can't be reached" in text for text in found.unchecked)
    assert found.weight_files == {}  # not pinned: these were not told by the Hub


def test_known_sizes_are_of_a_known_revision(plan_cloud: PlanCloud) -> None:
    findings = Findings()
    other = plan_cloud.profile(weights={"revision": "0" * 40})
    found = weights_of.find(other, "http://127.0.0.1:9", None, findings)
    assert found.source == "known sizes of 3de623fc3c33"


def test_where_the_hub_is_a_stand_in_it_is_not_asked(plan_cloud: PlanCloud) -> None:
    profile = plan_cloud.profile()
    sources = Sources(hub="http://127.0.0.1:9", sizes=flux.SIZES)
    found = planning.make(profile, plan_cloud.aws(), sources)
    assert found.weights.source == "the real files' known sizes"
    assert len(found.weight_files) == len(flux.SIZES)
    assert dataclasses.replace(found.weights, certain=False).bytes == found.weights.bytes


def test_the_revisions_are_one() -> None:
    assert flux.REVISION == REVISION
