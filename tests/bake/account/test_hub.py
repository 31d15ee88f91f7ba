"""The Hub: what the weights weigh, by the real client; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from bake.errors import UsageError
from bake.localcloud import Hub
from bake.localcloud.hub.server import REVISION
from bake.planning import weights as weights_of
from bake.planning.findings import Findings
from bake.planning.plan import Plan
from bake.planning.sources import Sources
from bake.profile.weights import Weights
from bake.request import ask_and_plan
from bake.weights import flux
from bake.weights import hub as of_the_hub
from bake.weights.flux import WeightFile
from bake.weights.lock import Lock

pytestmark = pytest.mark.integration
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


def plan(plan_cloud: PlanCloud, hub: str, lock: Lock | None = None, **weights: Any) -> Plan:
    profile = plan_cloud.profile(weights=weights)
    return ask_and_plan(profile, plan_cloud.aws(), Sources(hub=hub), lock=lock)


@pytest.fixture(scope="module")
def lock(hub: str) -> Lock:
    """What the Hub has, locked."""
    files = of_the_hub.revision(Weights(revision=REVISION, token=SecretStr(TOKEN)), hub).files
    wanted = {path: file for path, file in files.items() if flux.wanted(path)}
    return Lock(flux.REPO, REVISION, wanted)


def with_file(lock: Lock, path: str, file: WeightFile | None) -> Lock:
    """A lock in which one file is another, or none."""
    files = {name: known for name, known in lock.files.items() if name != path}
    return Lock(lock.repo, lock.revision, {**files, **({path: file} if file else {})})


def test_the_files_that_diffusers_loads_and_no_others(plan_cloud: PlanCloud, hub: str) -> None:
    found = plan(plan_cloud, hub)
    assert {path: file.bytes for path, file in found.weights.files.files.items()} == {
        path: size for path, size in FILES.items() if "/" in path or path == "model_index.json"
    }
    assert found.weights.files.source == "the Hub's metadata"
    assert found.weights.lock is None
    assert "this token may download the weights of this revision" in found.checked


def test_a_lock_is_what_is_baked_once_the_hub_has_it(plan_cloud: PlanCloud, hub: str, lock: Lock) -> None:
    found = plan(plan_cloud, hub, lock)
    assert found.weights.lock == lock
    assert (found.weights.files.source, found.weights.files.files) == ("the lock", lock.files)
    assert any("the locked ones, size and hash" in text for text in found.checked)


def test_the_plans_id_has_the_lock_in_it(plan_cloud: PlanCloud, hub: str, lock: Lock) -> None:
    ids = {
        plan(plan_cloud, hub, one).id
        for one in (lock, None, with_file(lock, "vae/diffusion_pytorch_model.safetensors", None))
    }
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("path", "file"),
    [
        pytest.param("vae/diffusion_pytorch_model.safetensors", WeightFile(300, "a" * 64), id="another hash"),
        pytest.param("vae/diffusion_pytorch_model.safetensors", WeightFile(299), id="another size"),
        pytest.param("transformer/config.json", WeightFile(20, git_oid="b" * 40), id="a small file"),
        pytest.param("vae/gone.json", WeightFile(1, git_oid="b" * 40), id="gone"),
    ],
)
def test_anything_else_than_what_is_locked_is_refused(
    plan_cloud: PlanCloud, hub: str, lock: Lock, path: str, file: WeightFile
) -> None:
    with pytest.raises(UsageError) as caught:
        plan(plan_cloud, hub, with_file(lock, path, file))
    assert "weights.revision: the Hub's files are not the locked ones" in caught.value.message
    assert path in caught.value.message
    assert "bake lock --update" in caught.value.message


def test_what_nobody_locked_may_change_in_the_hub(plan_cloud: PlanCloud, hub: str, lock: Lock) -> None:
    assert plan(plan_cloud, hub, with_file(lock, "vae/config.json", None)).weights.lock is not None


def test_a_hub_that_is_not_reached_leaves_the_lock(plan_cloud: PlanCloud, lock: Lock) -> None:
    found = plan(plan_cloud, "http://127.0.0.1:9", lock)
    assert found.weights.files.certain
    assert found.weights.lock == lock
    assert any("the Hub can't be reached" in text for text in found.unchecked)


def test_the_arithmetic_is_about_the_hubs_files(plan_cloud: PlanCloud, hub: str) -> None:
    found = plan(plan_cloud, hub)
    part = next(part for part in found.image.disk.parts if part.name == "weights")
    assert part.bytes == sum(file.bytes for file in found.weights.files.files.values())


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
    assert round(found.weights.files.bytes / 1e9, 1) == 33.7
    assert found.weights.files.source == "known sizes"
    assert any("the Hub can't be reached" in text for text in found.unchecked)
    assert not found.weights.files.certain


def test_known_sizes_are_of_a_known_revision(plan_cloud: PlanCloud) -> None:
    findings = Findings()
    other = plan_cloud.profile(weights={"revision": "0" * 40})
    found = weights_of.find(other, None, None, None, findings)
    assert found.source == "known sizes of 3de623fc3c33"


def test_where_the_hub_is_a_stand_in_it_is_not_asked(plan_cloud: PlanCloud) -> None:
    profile = plan_cloud.profile()
    sources = Sources(hub="http://127.0.0.1:9", sizes=flux.SIZES)
    found = ask_and_plan(profile, plan_cloud.aws(), sources)
    assert found.weights.files.source == "the real files' known sizes"
    assert {path: file.bytes for path, file in found.weights.files.files.items()} == flux.SIZES


def test_a_stand_in_is_held_against_its_own_lock(plan_cloud: PlanCloud, hub: str, lock: Lock) -> None:
    sources = Sources(hub=hub, sizes=flux.SIZES)
    found = ask_and_plan(plan_cloud.profile(), plan_cloud.aws(), sources, lock=lock)
    assert (found.weights.files.source, found.weights.lock) == ("the real files' known sizes", lock)
    other = with_file(lock, "vae/diffusion_pytorch_model.safetensors", WeightFile(1))
    with pytest.raises(UsageError, match="not the locked ones"):
        ask_and_plan(plan_cloud.profile(), plan_cloud.aws(), sources, lock=other)


def test_the_revisions_are_one() -> None:
    assert flux.REVISION == REVISION
