"""The locks: everything pinned, everything hashed, nothing of the machine that made them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

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
