"""The Hub stand-in against the real client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bake.localcloud.hub import REPO, REVISION, Hub
from bake.localcloud.server import serve

TOKEN = "hf_" + "a" * 34
FILES = {
    "model_index.json": b'{"_class_name": "FluxPipeline"}',
    "transformer/model-00001-of-00002.safetensors": os.urandom(300_000),
    "transformer/model-00002-of-00002.safetensors": os.urandom(1000),
    "tokenizer/vocab.json": b"{}",
    "flux1-dev.safetensors": os.urandom(1000),
    "empty.txt": b"",
}


@dataclass(frozen=True)
class Running:
    url: str
    home: Path

    def python(self, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run code in a fresh process: huggingface_hub reads its settings when it is imported."""
        env = {
            "PATH": os.environ["PATH"],
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            # Seconds: a busy host is slow to answer.
            "HF_HUB_ETAG_TIMEOUT": "60",
            "HF_HUB_DOWNLOAD_TIMEOUT": "60",
            "no_proxy": "*",
            **environment,
        }
        return subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300
        )

    def requests(self) -> list[dict[str, str]]:
        with urllib.request.urlopen(f"{self.url}/-/requests") as answer:
            return json.load(answer)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("repo")
    for name, content in FILES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    server = serve("127.0.0.1", 0, Hub(directory, TOKEN), "the Hub")
    yield Running(f"http://127.0.0.1:{server.server_port}", tmp_path_factory.mktemp("home"))
    server.shutdown()


def get(url: str, **headers: str) -> Any:
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers))
    except urllib.error.HTTPError as error:
        return error


def test_a_snapshot_brings_what_was_asked_for(hub: Running, tmp_path: Path) -> None:
    code = (
        "from huggingface_hub import snapshot_download; print(snapshot_download("
        f"{REPO!r}, revision={REVISION!r}, cache_dir={str(tmp_path)!r}, "
        "ignore_patterns=['flux1-dev.safetensors']))"
    )
    done = hub.python(code, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    snapshot = Path(done.stdout.strip())
    assert snapshot.name == REVISION
    found = {str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file()}
    assert found == set(FILES) - {"flux1-dev.safetensors"}
    assert all((snapshot / name).read_bytes() == FILES[name] for name in found)
    assert not any("flux1-dev" in request["path"] for request in hub.requests())
    offline = hub.python(code, HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr


@pytest.mark.parametrize(
    ("environment", "status"),
    [pytest.param({}, 401, id="no-token"), pytest.param({"HF_TOKEN": "hf_wrong"}, 403, id="wrong-token")],
)
def test_the_repository_is_gated(
    hub: Running, tmp_path: Path, environment: dict[str, str], status: int
) -> None:
    code = (
        "from huggingface_hub import hf_hub_download\nfrom huggingface_hub.errors import GatedRepoError\n"
        f"try: hf_hub_download({REPO!r}, 'model_index.json', cache_dir={str(tmp_path)!r})\n"
        "except GatedRepoError as error: print(error.response.status_code)"
    )
    assert hub.python(code, **environment).stdout.strip() == str(status)


def test_what_is_not_there_says_what(hub: Running, tmp_path: Path) -> None:
    code = (
        "from huggingface_hub import hf_hub_download\n"
        "for where in [dict(repo_id='a/b', filename='x'), dict(repo_id=REPO, filename='no.txt'),\n"
        "              dict(repo_id=REPO, filename='empty.txt', revision='0' * 40)]:\n"
        f"    try: hf_hub_download(**where, cache_dir={str(tmp_path)!r})\n"
        "    except Exception as error: print(type(error).__name__)"
    )
    done = hub.python(f"REPO = {REPO!r}\n{code}", HF_TOKEN=TOKEN)
    assert done.stdout.split() == [
        "RepositoryNotFoundError",
        "RemoteEntryNotFoundError",
        "RevisionNotFoundError",
    ]


def test_ranges(hub: Running) -> None:
    url = f"{hub.url}/{REPO}/resolve/{REVISION}/transformer/model-00001-of-00002.safetensors"
    answer = get(url, Authorization=f"Bearer {TOKEN}", Range="bytes=1000-1099")
    content = FILES["transformer/model-00001-of-00002.safetensors"]
    assert (answer.status, answer.read()) == (206, content[1000:1100])
    assert answer.headers["X-Repo-Commit"] == REVISION
    assert answer.headers["X-Linked-Size"] == str(len(content))
    beyond = get(url, Authorization=f"Bearer {TOKEN}", Range="bytes=900000-")
    assert beyond.status == 416


def test_the_end_of_all_faults_reaches_an_answer_that_is_slow_already(hub: Running) -> None:
    path = "transformer/model-00001-of-00002.safetensors"
    fault = {"path": path, "kind": "slow", "rate": 10}  # it would take hours
    content = json.dumps(fault).encode()
    urllib.request.urlopen(f"{hub.url}/-/faults", content, timeout=60).close()
    answer = get(f"{hub.url}/{REPO}/resolve/{REVISION}/{path}", Authorization=f"Bearer {TOKEN}")
    begun = answer.read(2)
    ending = urllib.request.Request(f"{hub.url}/-/faults", method="DELETE")
    urllib.request.urlopen(ending, timeout=60).close()
    assert begun + answer.read() == FILES[path]


def test_bytes_of_an_answer_that_began_before_the_count_are_not_in_it(hub: Running) -> None:
    path = "transformer/model-00001-of-00002.safetensors"
    content = json.dumps({"path": path, "kind": "slow", "rate": 10}).encode()
    urllib.request.urlopen(f"{hub.url}/-/faults", content, timeout=60).close()
    answer = get(f"{hub.url}/{REPO}/resolve/{REVISION}/{path}", Authorization=f"Bearer {TOKEN}")
    begun = answer.read(2)
    for what in ("requests", "faults"):
        request = urllib.request.Request(f"{hub.url}/-/{what}", method="DELETE")
        urllib.request.urlopen(request, timeout=60).close()
    assert begun + answer.read() == FILES[path]
    with urllib.request.urlopen(f"{hub.url}/-/bytes", timeout=60) as counted:
        assert json.load(counted) == {}


def test_a_path_never_leaves_the_repository(hub: Running) -> None:
    for path in ("../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "transformer"):
        answer = get(f"{hub.url}/{REPO}/resolve/main/{path}", Authorization=f"Bearer {TOKEN}")
        assert answer.status == 404
