"""The model's files are verified: partly at each start, fully by `flux-worker check --verify`."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flux_worker.cli import main
from flux_worker.errors import ConfigurationError
from flux_worker.inference.checkpoint import find
from flux_worker.settings import ModelSettings
from tests.worker.conftest import REVISION

pytestmark = pytest.mark.integration
MakeCache = Callable[[], tuple[Path, Path]]
Harm = Callable[[Path], object]
FILES = 21
SHARD = "transformer/diffusion_pytorch_model-0000{}-of-00003.safetensors"


@pytest.fixture(scope="module")
def whole(lay_out: MakeCache) -> Path:
    """A snapshot as the Hub has it: small files have a git blob's hash for a name."""
    folder = lay_out()[1]
    for link in folder.rglob("*"):
        if link.is_file() and link.suffix != ".safetensors":
            content = link.read_bytes()
            git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            (blobs(folder) / git).write_bytes(content)
            point(folder, link, git)
    return folder


@pytest.fixture
def snapshot(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be harmed."""
    shutil.copytree(whole.parents[2], tmp_path / "cache", symlinks=True)
    return tmp_path / "cache" / whole.relative_to(whole.parents[2])


def blobs(snapshot: Path) -> Path:
    return snapshot.parents[1] / "blobs"


def point(snapshot: Path, link: Path, blob: str) -> None:
    link.unlink()
    link.symlink_to(f"{os.path.relpath(blobs(snapshot), link.parent)}/{blob}")


def start(snapshot: Path) -> None:
    """As `serve` and `draw` look at the files before they load them."""
    assert (
        find(ModelSettings(FLUX_MODEL_REVISION=REVISION, HF_HUB_CACHE=snapshot.parents[2])).folder == snapshot
    )


def check(monkeypatch: pytest.MonkeyPatch, *arguments: str, **environment: Path) -> Result:
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("FLUX_MODEL_REVISION", REVISION)
    monkeypatch.setenv("FLUX_BACKEND", "cpu")
    return CliRunner().invoke(main, ["check", "--verify", *arguments])


def flip(file: Path, at: int = -1) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 100)


def lengthen(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def replace(file: Path) -> None:
    """By a file with the same bytes, as a copy without its links has."""
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)


def lose_blob(file: Path) -> None:
    file.resolve().unlink()


def swap(file: Path) -> None:
    other = file.with_name(file.name.replace("00001-of", "00002-of"))
    point(file.parents[1], file, other.resolve().name)


@pytest.mark.parametrize(
    ("name", "harm", "message"),
    [
        pytest.param(
            "tokenizer/vocab.json", flip, r"has changed: its hash is \w{40}, not \w{40}", id="small"
        ),
        pytest.param("tokenizer_2/tokenizer.json", cut, "has changed", id="small-cut"),
        pytest.param(SHARD.format(1), cut, r"is damaged: it has \d+ bytes, its header says \d+", id="cut"),
        pytest.param(SHARD.format(2), lengthen, "is damaged: it has", id="longer"),
        pytest.param(SHARD.format(1), lambda file: flip(file, 7), "header is not readable", id="header"),
        pytest.param(SHARD.format(3), lambda file: flip(file, 9), "header is not readable", id="header-json"),
        pytest.param(SHARD.format(1), lambda file: os.truncate(file, 0), "not readable", id="empty"),
        pytest.param(SHARD.format(1), swap, "does not match its index: it lacks", id="other-shard"),
        pytest.param(
            SHARD.format(1), replace, "is not a link to a blob that is named by its hash", id="replaced"
        ),
        pytest.param(
            "scheduler/scheduler_config.json", replace, "is not a link to a blob", id="small-replaced"
        ),
        pytest.param(SHARD.format(2), lose_blob, r"is missing: its blob \w{64} is gone", id="blob-gone"),
        pytest.param(SHARD.format(2), Path.unlink, "is missing", id="shard-gone"),
        pytest.param("vae/config.json", Path.unlink, "is missing", id="config-gone"),
        pytest.param("vae/diffusion_pytorch_model.safetensors", Path.unlink, "is missing", id="weights-gone"),
        pytest.param(
            "transformer/diffusion_pytorch_model.safetensors.index.json",
            Path.unlink,
            "is missing",
            id="index",
        ),
    ],
)
def test_each_start_sees_what_headers_and_small_files_tell(
    snapshot: Path, name: str, harm: Harm, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(snapshot)
    harm(snapshot / name)
    with pytest.raises(ConfigurationError, match=message) as refused:
        start(snapshot)
    named = name if "weights-gone" not in os.environ["PYTEST_CURRENT_TEST"] else "vae/*.safetensors"
    assert f"{snapshot / named} " in str(refused.value)
    assert "remove these files with their blobs, and download the model again" in str(refused.value)
    done = check(monkeypatch, HF_HUB_CACHE=snapshot.parents[2])
    assert done.exit_code == 78
    assert re.search(rf"^            {re.escape(named)} .*{message}", done.stdout, re.M), done.output


def test_a_start_reads_no_weights_and_verifying_does(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = check(monkeypatch, HF_HUB_CACHE=snapshot.parents[2])
    assert done.exit_code == 0, done.output
    assert re.search(r"^files       all 21 are intact: 0\.00 GB hashed in \d", done.stdout, re.M)
    flip(snapshot / SHARD.format(1))
    start(snapshot)
    done = check(monkeypatch, HF_HUB_CACHE=snapshot.parents[2])
    assert done.exit_code == 78
    assert "files       1 of 21 have changed:\n" in done.stdout
    assert f"            {SHARD.format(1)} has changed: its hash is " in done.stdout


def test_verifying_names_every_file_also_for_programs(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, harm in (
        (SHARD.format(1), flip),
        (SHARD.format(3), cut),
        ("model_index.json", flip),
        ("text_encoder/config.json", lose_blob),
    ):
        harm(snapshot / name)
    shutil.rmtree(snapshot / "vae")
    done = check(monkeypatch, "--json", HF_HUB_CACHE=snapshot.parents[2])
    assert done.exit_code == 78
    found = json.loads(done.stdout)["files"]
    assert list(found["faults"]) == [
        "model_index.json",
        "text_encoder/config.json",
        SHARD.format(1),
        SHARD.format(3),
        "vae/*.safetensors",
        "vae/config.json",
    ]
    assert (found["files"], found["bytes"] > 0) == (FILES, True)


def test_the_hubs_listing_tells_which_blob_a_link_must_lead_to(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {}
    for file in snapshot.rglob("*"):
        if file.is_file():
            name, size = file.resolve().name, file.stat().st_size
            large = {"lfs_sha256": name, "lfs_size": size} if len(name) == 64 else {}
            entry = {"size": size, "blob_id": "0" * 40 if large else name} | large
            files[str(file.relative_to(snapshot))] = entry
    files["flux1-dev.safetensors"] = {"size": 1, "blob_id": "0" * 40}
    trees = snapshot.parents[1] / "trees"
    trees.mkdir()
    (trees / f"{REVISION}.json").write_text(json.dumps({"format_version": 1, "files": files}))
    done = check(monkeypatch, HF_HUB_CACHE=snapshot.parents[2])
    assert done.exit_code == 0, done.output
    other = (snapshot / "tokenizer" / "tokenizer_config.json").resolve().name
    point(snapshot, snapshot / "tokenizer_2" / "tokenizer_config.json", other)
    (snapshot / "vae" / "stranger.json").write_text("{}")
    (snapshot / "tokenizer" / "merges.txt").unlink()
    replace(snapshot / "scheduler" / "scheduler_config.json")  # its hash is known all the same
    done = check(monkeypatch, "--json", HF_HUB_CACHE=snapshot.parents[2])
    assert json.loads(done.stdout)["files"]["faults"] == {
        "tokenizer/merges.txt": "is missing",
        "tokenizer_2/tokenizer_config.json": f"links to {other}, not to "
        + files["tokenizer_2/tokenizer_config.json"]["blob_id"],
        "vae/stranger.json": "is not among the commit's files",
    }


def test_a_cache_without_links_is_loaded_and_not_vouched_for(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `aws s3 sync` copies it: nothing tells any more what a file must be."""
    copied = shutil.copytree(snapshot.parents[2], tmp_path / "copied")
    start(copied / snapshot.relative_to(snapshot.parents[2]))
    done = check(monkeypatch, HF_HUB_CACHE=copied)
    assert done.exit_code == 78
    assert (
        done.stdout.count("is not a link to a blob that is named by its hash: its hash is unknown") == FILES
    )


@pytest.mark.parametrize(
    ("name", "harm", "message", "at_start"),
    [
        pytest.param("tokenizer/vocab.json", flip, "has changed", True, id="small"),
        pytest.param("vae/*.safetensors", flip, "has changed", False, id="weights"),
        pytest.param("transformer/*-00002-*.safetensors", cut, "bytes, not", True, id="cut"),
        pytest.param("transformer/*-00002-*.safetensors", Path.unlink, "is missing", True, id="gone"),
        pytest.param("transformer/*.index.json", Path.unlink, "is missing", True, id="index-gone"),
        pytest.param(
            "vae/config.json",
            lambda file: shutil.copy(file, file.with_name("other.json")),
            "other.json does not belong to this checkpoint",
            True,
            id="stranger",
        ),
    ],
)
def test_an_int8_checkpoint_is_held_against_what_was_made(
    int8: Path,
    tmp_path: Path,
    name: str,
    harm: Harm,
    message: str,
    at_start: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = shutil.copytree(int8, tmp_path / "int8")
    done = check(monkeypatch, FLUX_MODEL_DIR=folder)
    assert done.exit_code == 0, done.output
    harm(next(folder.glob(name)))
    done = check(monkeypatch, FLUX_MODEL_DIR=folder)
    assert done.exit_code == 78
    assert message in done.stdout
    assert "make it again with `flux-worker quantize`" in done.stdout
    settings = ModelSettings(FLUX_MODEL_REVISION=REVISION, FLUX_MODEL_DIR=folder)
    if at_start:
        with pytest.raises(
            ConfigurationError, match=rf"{message}.*make it again with `flux-worker quantize`"
        ):
            find(settings)
    else:
        find(settings)


def test_verifying_a_model_that_is_not_there_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = check(monkeypatch, HF_HUB_CACHE=tmp_path)
    assert done.exit_code == 78
    assert f"is missing or incomplete in HF_HUB_CACHE={tmp_path}" in done.output
