"""`provision/quantize.py`, which a bake runs under the worker's Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flux_worker.inference.checkpoint import Provenance
from flux_worker.inference.quantize import psnr
from flux_worker.inference.streaming.manifest import Manifest

pytestmark = pytest.mark.integration
PROGRAM = Path(__file__).parents[3] / "provision" / "quantize.py"


def run(program: Path, *arguments: Path, device: str = "cpu") -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(
        [sys.executable, program, *arguments, device, ranges_file(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events, done.stderr
    return done.returncode, events


def ranges_file(program: Path) -> Path:
    return program.parent / "library" / "ranges.json"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A copy: what libraries keep goes beside it."""
    return Path(shutil.copy(PROGRAM, tmp_path))


def test_it_makes_int8_and_compares_an_image(
    program: Path, lay_out: Callable[[], tuple[Path, Path]], tmp_path: Path
) -> None:
    source, target, pictures = lay_out()[1], tmp_path / "int8", tmp_path / "pictures"
    code, events = run(program, source, target, pictures)
    assert code == 0, events
    last = {event["event"]: event for event in events}
    assert last["progress"]["done"] == last["progress"]["total"]
    assert last["quantized"]["bytes"] == sum(file.bytes for file in Provenance.read(target).outputs.values())
    assert last["quantized"]["peak_ram"] > 0
    drawn = [(event["precision"], event["step"]) for event in events if event["event"] == "drawing"]
    assert drawn == [(precision, step) for precision in ("bf16", "int8") for step in (0, 1, 2)]
    first, second = (Image.open(pictures / f"{precision}.png") for precision in ("bf16", "int8"))
    assert first.size == second.size == (256, 256)
    assert last["compared"]["psnr"] == round(psnr(first, second), 2)
    assert last["compared"]["psnr"] > 30
    manifest = Manifest.read(ranges_file(program))
    assert manifest.files.keys() == {str(file.relative_to(target)) for file in target.rglob("*.safetensors")}
    assert {name: file.sha256 for name, file in manifest.files.items()} == {
        name: file.sha256 for name, file in Provenance.read(target).outputs.items() if name in manifest.files
    }
    record = json.loads((target / "comparison.json").read_text())
    assert record["psnr"] == last["compared"]["psnr"]
    assert record["job"]["seed"] == 7


def test_a_gpu_that_torch_can_not_use_is_refused_before_anything_is_made(
    program: Path, tmp_path: Path
) -> None:
    target = tmp_path / "int8"
    code, events = run(program, tmp_path, target, tmp_path / "pictures", device="cuda")
    assert (code, target.exists()) == (1, False)
    assert events[0]["reason"].startswith("torch finds no GPU on the builder, whose type has one")


def test_a_bad_picture_is_refused(
    program: Path, lay_out: Callable[[], tuple[Path, Path]], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    source, pictures = lay_out()[1], tmp_path / "pictures"
    file = next(source.glob("vae/*.safetensors")).resolve()
    weights = load_file(file)
    weights["decoder.conv_in.weight"].view(-1)[0] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    code, events = run(program, source, tmp_path / "int8", pictures)
    assert (code, events[-1]["event"]) == (1, "refused")
    assert "image 1 of 1: the pixels that the VAE decoded are not finite numbers" in events[-1]["reason"]
    assert list(pictures.iterdir()) == []


def test_a_refusal_is_said_as_an_event(program: Path, tmp_path: Path) -> None:
    code, events = run(program, tmp_path, tmp_path / "int8", tmp_path / "pictures")
    assert code == 1
    assert [event["event"] for event in events] == ["refused"]
    assert "is not a snapshot of black-forest-labs/FLUX.1-dev" in events[0]["reason"]
