"""The weights' lock: which files are loaded, what is locked about them, and how differences are found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydantic import SecretStr
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from bake.errors import BakeError, UsageError
from bake.localcloud import Hub
from bake.localcloud.hub.server import REVISION
from bake.profile.weights import Weights
from bake.weights import flux
from bake.weights import lock as locks
from bake.weights.flux import WeightFile
from bake.weights.lock import Lock

pytestmark = pytest.mark.integration
TOKEN = "hf_canary_token"
# black-forest-labs/FLUX.1-dev at flux.REVISION, whole; sizes where two public sources agree, else 1.
REPOSITORY = {
    ".gitattributes": 1,
    "LICENSE.md": 1,
    "README.md": 1,
    "ae.safetensors": 335_304_388,
    "dev_grid.jpg": 1_301_528,
    "flux1-dev.safetensors": 23_802_932_552,
    "model_index.json": 1,
    "scheduler/scheduler_config.json": 1,
    "text_encoder/config.json": 1,
    "text_encoder_2/config.json": 1,
    "text_encoder_2/model.safetensors.index.json": 1,
    "tokenizer/merges.txt": 1,
    "tokenizer/special_tokens_map.json": 1,
    "tokenizer/tokenizer_config.json": 1,
    "tokenizer_2/special_tokens_map.json": 1,
    "tokenizer_2/tokenizer_config.json": 1,
    "transformer/config.json": 1,
    "transformer/diffusion_pytorch_model.safetensors.index.json": 1,
    "vae/config.json": 1,
    **flux.SIZES,
}
INDEX = {
    "_class_name": "FluxPipeline",
    "_diffusers_version": "0.30.0.dev0",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def test_of_the_real_repository_the_duplicates_are_never_fetched() -> None:
    parts = flux.components(INDEX)
    assert set(parts) == set(flux.COMPONENTS)
    loaded = {path: size for path, size in REPOSITORY.items() if flux.wanted(path, parts)}
    left_out = REPOSITORY.keys() - loaded.keys()
    assert left_out == {
        ".gitattributes",
        "LICENSE.md",
        "README.md",
        "ae.safetensors",
        "dev_grid.jpg",
        "flux1-dev.safetensors",
    }
    assert round(sum(loaded.values()) / 1e9, 1) == 33.7
    assert sum(REPOSITORY[path] for path in left_out) > 24e9


@pytest.mark.parametrize(
    "path",
    [
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.bin",
        "text_encoder/flax_model.msgpack",
        "text_encoder/onnx/model.onnx",
        "transformer/old/config.json",
        "image_encoder/config.json",
        "transformer",
    ],
)
def test_other_variants_and_formats_are_not_loaded(path: str) -> None:
    assert not flux.wanted(path, flux.components(INDEX))


def test_a_part_that_the_pipeline_lacks_is_no_component() -> None:
    index = {**INDEX, "feature_extractor": [None, None], "image_encoder": None}
    assert flux.components(index) == flux.components(INDEX)


def serve(app: Any) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real repository's files with a few bytes each, and its own index."""
    found: Path = tmp_path_factory.mktemp("hub")
    for path in REPOSITORY:
        (found / path).parent.mkdir(exist_ok=True)
        (found / path).write_text(path)
    (found / flux.INDEX).write_text(json.dumps(INDEX))
    return found


@pytest.fixture(scope="module")
def hub(folder: Path) -> Iterator[str]:
    yield from serve(Hub(folder, TOKEN))


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker turns the client's network off when it loads a model; that lasts as long as the process."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def weights(token: str = TOKEN) -> Weights:
    return Weights(revision=REVISION, token=SecretStr(token))


def test_the_lock_has_size_and_hash_of_each_loaded_file(hub: str, folder: Path) -> None:
    found = locks.resolve(weights(), hub)
    assert found.complete
    assert found.revision == REVISION
    assert found.files.keys() == {path for path in REPOSITORY if flux.wanted(path)}
    large = "transformer/diffusion_pytorch_model-00001-of-00003.safetensors"
    assert found.files[large] == WeightFile(len(large), hashlib.sha256(large.encode()).hexdigest())
    content = (folder / flux.INDEX).read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    assert found.files[flux.INDEX] == WeightFile(len(content), git_oid=blob)


def test_a_branch_becomes_the_commit_that_it_is_now(hub: str) -> None:
    assert locks.resolve(weights(), hub, "main") == locks.resolve(weights(), hub)


@pytest.mark.parametrize(
    ("status", "said", "message", "hint"),
    [
        (401, "", "weights.token: the Hub does not know this token", "settings/tokens"),
        (403, "You are not in the authorized list.", "may not download", "accept the licence at https://"),
        (
            403,
            "Your request is awaiting a review from the repo authors.",
            "not granted yet",
            "look at https://",
        ),
        (403, "enable access in your fine-grained token settings", "fine-grained token may not", "allow it"),
        (404, "", "weights.revision: black-forest-labs/FLUX.1-dev has no such revision", None),
    ],
    ids=["no token", "licence", "pending", "fine-grained", "revision"],
)
def test_a_refusal_says_why_and_where_to_mend_it(
    status: int, said: str, message: str, hint: str | None
) -> None:
    headers = {"X-Error-Message": said}
    for refusing in serve(lambda environ, start: Response("{}", status, headers)(environ, start)):
        with pytest.raises(UsageError) as caught:
            locks.resolve(weights(), refusing)
        assert message in caught.value.message
        assert "nothing was locked" in caught.value.message
        assert (hint or "") in (caught.value.hint or "")
        assert TOKEN not in f"{caught.value.message}{caught.value.hint}"


def test_a_silent_or_broken_hub_is_not_the_users_fault() -> None:
    with pytest.raises(BakeError, match="the Hub can't be reached") as caught:
        locks.resolve(weights(), "http://127.0.0.1:9")
    assert not isinstance(caught.value, UsageError)

    for broken in serve(lambda environ, start: Response("{}", 500)(environ, start)):
        with pytest.raises(BakeError, match="the Hub answers 500"):
            locks.resolve(weights(), broken)

    for page in serve(lambda environ, start: Response("<html>Please log in</html>")(environ, start)):
        with pytest.raises(BakeError, match="the answer is not the Hub's") as caught:
            locks.resolve(weights(), page)
        assert "proxy" in str(caught.value.hint)


# --- differences ------------------------------------------------------------------------------------

VAE = "vae/diffusion_pytorch_model.safetensors"
FILES = {flux.INDEX: WeightFile(536, git_oid="b" * 40), VAE: WeightFile(9, "a" * 64)}
LOCK = Lock(flux.REPO, "1" * 40, FILES)


@pytest.mark.parametrize(
    ("files", "moved"),
    [
        pytest.param(FILES, [], id="same"),
        pytest.param({**FILES, VAE: WeightFile(9, "c" * 64)}, [VAE], id="one flipped byte"),
        pytest.param({**FILES, VAE: WeightFile(8, "a" * 64)}, [VAE], id="another size"),
        pytest.param({**FILES, flux.INDEX: WeightFile(536, git_oid="c" * 40)}, [flux.INDEX], id="small"),
        pytest.param({**FILES, "vae/new.json": WeightFile(1)}, ["vae/new.json"], id="one more"),
        pytest.param({VAE: FILES[VAE]}, [flux.INDEX], id="one less"),
        pytest.param({path: WeightFile(file.bytes) for path, file in FILES.items()}, [], id="hash unknown"),
    ],
)
def test_files_that_differ_are_named(files: dict[str, WeightFile], moved: list[str]) -> None:
    now = Lock(flux.REPO, "1" * 40, files)
    assert [one.path for one in locks.differences(LOCK, now)] == moved
    assert all(path in locks.differences_table(LOCK, now) for path in moved)


def test_the_table_shows_the_commit_and_both_sides() -> None:
    now = Lock(flux.REPO, "2" * 40, {flux.INDEX: WeightFile(537, git_oid="c" * 40)})
    assert locks.differences_table(LOCK, now) == (
        "  file                                     locked                   now\n"
        "  revision                                 111111111111             222222222222\n"
        "  model_index.json                         536 bytes, bbbbbbbbbbbb  537 bytes, cccccccccccc\n"
        "  vae/diffusion_pytorch_model.safetensors  9 bytes, aaaaaaaaaaaa    not there"
    )


def test_a_lock_of_sizes_is_completed_and_never_changed() -> None:
    known = Lock(flux.REPO, LOCK.revision, {VAE: WeightFile(9)})
    assert not known.complete
    assert locks.completes(known, LOCK)
    assert not locks.completes(Lock(flux.REPO, "2" * 40, known.files), LOCK)
    assert not locks.completes(Lock(flux.REPO, LOCK.revision, {VAE: WeightFile(10)}), LOCK)
    assert not locks.completes(Lock(flux.REPO, LOCK.revision, {"gone": WeightFile(9)}), LOCK)
    assert not locks.completes(LOCK, Lock(flux.REPO, LOCK.revision, {VAE: FILES[VAE]}))


def test_a_bake_goes_by_a_complete_lock_of_the_profiles_revision_only() -> None:
    asked = Weights(revision=LOCK.revision, token=SecretStr("x"))
    assert locks.problem(LOCK, asked) is None
    assert "not locked yet" in str(locks.problem(None, asked))
    assert "not complete" in str(locks.problem(Lock(flux.REPO, LOCK.revision, {VAE: WeightFile(9)}), asked))
    assert "the profile asks for" in str(locks.problem(Lock(flux.REPO, "2" * 40, FILES), asked))
