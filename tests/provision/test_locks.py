"""The locks pin and hash everything, and contain nothing about the machine that made them."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

from bake.planning.sources import PYTHON

TOOLS = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "provision" / "locks"
PINNED = re.compile(r"([a-z0-9._-]+)==([^\s;]+)( ; .+)?")


def requirements(lock: str) -> list[list[str]]:
    """Each requirement as its pin, followed by its hashes."""
    text = (LOCKS / f"{lock}.txt").read_text(encoding="utf-8").replace("\\\n", "\n")
    found: list[list[str]] = []
    for line in (line.strip() for line in text.splitlines()):
        if not line or line.startswith("#"):
            continue
        if line.startswith("--hash="):
            found[-1].append(line)
        else:
            found.append([line])
    return found


def pins(lock: str) -> dict[str, str]:
    """Name -> version; of a name with several markers, the last."""
    matches = [PINNED.fullmatch(pin) for pin, *_ in requirements(lock)]
    return {match[1]: match[2] for match in matches if match}


@pytest.mark.parametrize("lock", ["worker", "tools", "worker-neuron"])
def test_everything_is_pinned_and_hashed(lock: str) -> None:
    assert requirements(lock)
    for pin, *hashes in requirements(lock):
        assert PINNED.fullmatch(pin), pin
        assert hashes, f"{pin} has no hash"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in hashes), pin


@pytest.mark.parametrize("lock", ["worker", "tools", "worker-neuron"])
def test_no_trace_of_the_machine_that_made_them(lock: str) -> None:
    text = (LOCKS / f"{lock}.txt").read_text(encoding="utf-8")
    assert not re.search(r"https?://|file:|--index|--find-links|/home/|/root/|/tmp/", text)


def test_worker_lock_answers_its_pyproject() -> None:
    """A dependency that was added without `make lock` would be missing on the image."""
    project = tomllib.loads((ROOT / "worker" / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [re.split(r"[<>=!~\s;\[]", entry)[0] for entry in project["project"]["dependencies"]]
    locked = pins("worker")
    assert {name.replace("_", "-").lower() for name in wanted} <= set(locked)
    torch = next(entry for entry in project["project"]["dependencies"] if entry.startswith("torch=="))
    assert locked["torch"] == torch.removeprefix("torch==")


def test_worker_lock_has_cuda_and_no_xformers() -> None:
    locked = pins("worker")
    assert any(name.startswith("nvidia-cublas") for name in locked), "this torch would draw on the CPU"
    assert "+" not in locked["torch"]
    assert "xformers" not in locked


def test_prefetch_and_worker_share_one_hub_client() -> None:
    """What one writes into the cache, the other reads: no surprises between versions."""
    assert pins("tools")["huggingface-hub"] == pins("worker")["huggingface-hub"]


def test_neuron_lock_is_what_optimum_neuron_takes() -> None:
    """Its metadata: transformers ~= 4.57.1, diffusers 0.35, and torch 2.8 for this Neuron SDK."""
    locked = pins("worker-neuron")
    sdk = (LOCKS / "worker-neuron-sdk.in").read_text()
    assert locked["transformers"].startswith("4.57.")
    assert locked["diffusers"].startswith("0.35.")
    assert re.search(rf"^torch-neuronx=={re.escape(locked['torch'])}\.", sdk, re.M)
    assert {"accelerate", "boto3", "pydantic", "prometheus-client", "sentencepiece"} <= set(locked)
    assert "xformers" not in locked


def test_the_pinned_python_is_of_the_version_that_the_worker_is_locked_for() -> None:
    [(name, entry)] = json.loads((LOCKS / "python.json").read_text(encoding="utf-8")).items()
    assert name == f"cpython-{PYTHON}.{entry['patch']}-linux-x86_64-gnu"
    assert re.fullmatch("[0-9a-f]{64}", entry["sha256"])
    assert entry["url"].startswith("https://github.com/astral-sh/python-build-standalone/releases/download/")


def test_uv_takes_the_list_for_its_own() -> None:
    """The form is uv's: who wants to can hand the file to uv."""
    listed = subprocess.run(
        [TOOLS / "uv", "python", "list", "--only-downloads", "--output-format=json", "--no-config", "3.11"],
        env={"UV_PYTHON_DOWNLOADS_JSON_URL": str(LOCKS / "python.json")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [one["key"] for one in json.loads(listed.stdout)] == list(
        json.loads((LOCKS / "python.json").read_text(encoding="utf-8"))
    )


@pytest.fixture
def lock_of_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`provision/locks/python.py`, with an index and locks of the test's own."""
    found = importlib.util.spec_from_file_location("lock_of_python", LOCKS / "python.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    page = tmp_path / "uv" / "index.json"
    monkeypatch.setattr(module, "INDEX", tmp_path.as_uri())
    monkeypatch.setattr(module, "LOCKS", tmp_path)
    monkeypatch.setattr(module, "LOCK", tmp_path / "python.json")
    monkeypatch.setattr(module, "PAGE", page.name)
    page.parent.mkdir()
    return module


def offer(lock_of_python: Any, patches: list[int]) -> None:
    """uv's sources with a list of these patch versions, on the index and in the lock."""
    url = "https://example.org/{}-install_only_stripped.tar.gz"
    pythons = {
        f"cpython-3.11.{patch}{kind}": {"patch": patch, "prerelease": "", "sha256": "0" * 64, "url": url}
        for patch in patches
        for kind in ("-linux-x86_64-gnu", "-linux-x86_64-musl", "+debug-linux-x86_64-gnu")
    }
    folder = lock_of_python.LOCKS
    content, listed = io.BytesIO(), json.dumps(pythons).encode()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        entry = tarfile.TarInfo("uv-9.9/crates/uv-python/download-metadata.json")
        entry.size = len(listed)
        tar.addfile(entry, io.BytesIO(listed))
    (folder / "uv" / "uv-9.9.tar.gz").write_bytes(content.getvalue())
    files = {"files": [{"filename": "uv-9.9.tar.gz", "url": "uv-9.9.tar.gz"}]}
    (folder / "uv" / "index.json").write_text(json.dumps(files))
    sha256 = hashlib.sha256(content.getvalue()).hexdigest()
    (folder / "tools.txt").write_text(f"uv==9.9 \\\n    --hash=sha256:{sha256}\n")


def locked_python(lock_of_python: Any) -> list[str]:
    return list(json.loads(lock_of_python.LOCK.read_text()))


def test_a_lock_of_python_stays_until_it_is_upgraded(
    lock_of_python: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["python.py"])
    offer(lock_of_python, [9, 10])
    lock_of_python.main()
    assert locked_python(lock_of_python) == ["cpython-3.11.10-linux-x86_64-gnu"]
    offer(lock_of_python, [9, 10, 11])
    lock_of_python.main()
    assert locked_python(lock_of_python) == ["cpython-3.11.10-linux-x86_64-gnu"]
    monkeypatch.setattr(sys, "argv", ["python.py", "--upgrade"])
    lock_of_python.main()
    assert locked_python(lock_of_python) == ["cpython-3.11.11-linux-x86_64-gnu"]


def test_sources_of_uv_that_nobody_locked_tell_nothing(lock_of_python: Any) -> None:
    offer(lock_of_python, [9])
    (lock_of_python.LOCKS / "tools.txt").write_text(f"uv==9.9 \\\n    --hash=sha256:{'0' * 64}\n")
    with pytest.raises(SystemExit, match=r"is not what tools\.txt has"):
        lock_of_python.main()
