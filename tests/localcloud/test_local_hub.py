"""The Hub stand-in against the real client."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from bake.errors import BakeError, UsageError
from bake.localcloud.hub import control as hub_control
from bake.localcloud.hub.control import RemoteHub
from bake.localcloud.hub.server import REPO, REVISION, Hub
from bake.localcloud.network.control import Control, over_http
from bake.localcloud.network.server import serve

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
    """A served Hub; `control` steers it, from another port than `url`."""

    url: str
    control: RemoteHub
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


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("repo")
    for name, content in FILES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    hub = Hub(directory, TOKEN)
    servers = [serve("127.0.0.1", 0, app, "the Hub") for app in (hub, Control(hub_control.routes(hub)))]
    url, control = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    yield Running(url, RemoteHub(over_http(control)), tmp_path_factory.mktemp("home"))
    for server in servers:
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
    assert not any("flux1-dev" in request["path"] for request in hub.control.requests())
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
    hub.control.plant(path, "slow", rate=10)  # it would take hours
    answer = get(f"{hub.url}/{REPO}/resolve/{REVISION}/{path}", Authorization=f"Bearer {TOKEN}")
    begun = answer.read(2)
    hub.control.mend()
    assert begun + answer.read() == FILES[path]


def test_bytes_of_an_answer_that_began_before_the_count_are_not_in_it(hub: Running) -> None:
    path = "transformer/model-00001-of-00002.safetensors"
    hub.control.plant(path, "slow", rate=10)
    answer = get(f"{hub.url}/{REPO}/resolve/{REVISION}/{path}", Authorization=f"Bearer {TOKEN}")
    begun = answer.read(2)
    hub.control.forget()
    hub.control.mend()
    assert begun + answer.read() == FILES[path]
    assert hub.control.sent() == {}


@pytest.mark.parametrize(
    "path", ["/-/requests", "/-/bytes", "/-/faults", "/-/hub/requests", "/-/hub/bytes", "/-/hub/faults"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_nothing_that_reaches_the_hub_can_steer_it(hub: Running, method: str, path: str) -> None:
    content = b'{"path": "*", "kind": "status", "status": 500}' if method == "POST" else None
    hub.control.forget()
    request = urllib.request.Request(f"{hub.url}{path}", content, method=method)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(request, timeout=60)
    assert hub.control.faults() == []
    assert [(entry["method"], entry["path"]) for entry in hub.control.requests()] == [(method, path)]


def test_the_storage_is_found_by_who_is_sent_there_alone(hub: Running) -> None:
    hub.control.plant("model_index.json", "elsewhere")
    url = f"{hub.url}/{REPO}/resolve/{REVISION}/model_index.json"
    connection = http.client.HTTPConnection(hub.url.removeprefix("http://"), timeout=60)
    connection.request("GET", url, headers={"Authorization": f"Bearer {TOKEN}"})
    where = urlsplit(str(connection.getresponse().headers["Location"]))
    secret = where.path.split("/")[2]
    assert len(secret) >= 32
    assert get(f"{hub.url}{where.path}").read() == FILES["model_index.json"]
    for guess in ("x", secret[:-1], secret.swapcase(), "%C3%A9"):
        assert get(f"{hub.url}{where.path.replace(secret, guess)}").status == 404
    assert get(f"{hub.url}/storage/{secret}/no-such-file").status == 404
    assert get(f"{hub.url}/-/storage/model_index.json").status == 404


def test_a_wrong_fault_is_said_in_words(hub: Running) -> None:
    with pytest.raises(UsageError, match="kind"):
        hub.control.plant("*", "bang")
    with pytest.raises(UsageError, match="kind: Input should be 'status'"):
        hub.control._ask("POST", hub_control.FAULTS, b'{"path": "*", "kind": "bang"}')
    with pytest.raises(UsageError, match="JSON"):
        hub.control._ask("POST", hub_control.FAULTS, b"{")
    assert hub.control.faults() == []


def test_a_control_that_is_not_there_is_said(hub: Running) -> None:
    with pytest.raises(BakeError, match="HTTP 404"):
        hub.control._ask("GET", "/-/hub/nothing", None)
    with pytest.raises(BakeError, match="does not answer"):
        RemoteHub(over_http("http://127.0.0.1:1")).requests()


def test_a_path_never_leaves_the_repository(hub: Running) -> None:
    for path in ("../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "transformer"):
        answer = get(f"{hub.url}/{REPO}/resolve/main/{path}", Authorization=f"Bearer {TOKEN}")
        assert answer.status == 404
