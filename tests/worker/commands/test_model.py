"""`flux-worker draw`, `check` and `quantize`, by their command lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from flux_worker.cli import main
from flux_worker.inference import capacity
from flux_worker.inference.capacity import Gpu, Machine

REVISION = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"
GIB = 1 << 30
Run = Callable[..., Result]
MakeCache = Callable[[], tuple[Path, Path]]


@pytest.fixture
def run(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs the command with the tiny model in the environment."""
    monkeypatch.setenv("FLUX_MODEL_REVISION", REVISION)
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("FLUX_BACKEND", "cpu")
    yield lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def small(*more: object) -> list[object]:
    return ["draw", "--prompt", "a cat", "--width", 256, "--height", 320, "--steps", 2, "--seed", 7, *more]


def test_draw_writes_each_image_and_says_so(run: Run, tmp_path: Path) -> None:
    done = run(*small("--images", 2, "--out", tmp_path / "cat.webp"))
    assert done.exit_code == 0, done.output
    assert "Loaded FLUX.1-dev in bf16 on cpu" in done.output
    for number in (1, 2):
        file = tmp_path / f"cat-{number}.webp"
        assert f"Wrote {file} (256x320, 2 steps, seed {6 + number})\n" in done.output
        assert (Image.open(file).format, Image.open(file).size) == ("WEBP", (256, 320))
    assert re.search(r"^\d+\.\d s, \d+\.\d\d s per step$", done.output, re.M)


def test_draw_tells_programs_the_same(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "cat.png"
    done = run(*small("--out", file, "--json"))
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["files"] == [str(file)]
    drawn = json.loads(Image.open(file).text["parameters"])  # type: ignore[attr-defined]
    assert told["job"].items() <= drawn.items()
    assert (told["model"]["revision"], told["model"]["precision"]) == (REVISION, "bf16")
    assert told["seconds"]["draw"] > told["seconds"]["step"] > 0


def test_draw_takes_an_int8_checkpoint(
    run: Run, int8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUX_MODEL_DIR", str(int8))
    done = run(*small("--out", tmp_path / "cat.png"))
    assert done.exit_code == 0, done.output
    assert "in int8 on cpu" in done.output
    parameters = json.loads(Image.open(tmp_path / "cat.png").text["parameters"])  # type: ignore[attr-defined]
    assert (parameters["precision"], parameters["model_revision"]) == ("int8", REVISION)


def test_a_prompt_that_is_too_long_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    done = run(*small("--out", tmp_path / "cat.png", "--max-sequence-length", 2))
    assert done.exit_code == 2
    assert "tokens, at most 2 are allowed" in done.output
    assert list(tmp_path.iterdir()) == []


def test_check_tells_what_fits_and_why(run: Run) -> None:
    done = run("check")
    assert done.exit_code == 0, done.output
    assert re.search(
        r"^machine     no GPU; [\d.]+ of [\d.]+ GiB RAM available, \d+ CPU cores$", done.output, re.M
    )
    assert f"commit {REVISION}, bf16" in done.output
    for precision in ("bf16", "int8"):
        assert re.search(rf"^{precision}        fits$", done.output, re.M)
    assert "to load + " in done.output


def test_check_of_a_machine_that_is_too_small_is_a_configuration_error(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUX_BACKEND", "cuda")
    gpu = Gpu("NVIDIA A10G", "sm86", 24 * GIB, 470_000)
    monkeypatch.setattr(capacity, "this_machine", lambda: Machine(gpu, 16 * GIB, 15 * GIB, 4))
    done = run("check")
    assert done.exit_code == 0, done.output
    assert "NVIDIA A10G (sm86), 0.0 of 24.0 GiB VRAM free" in done.output
    assert "VRAM is tight: the VAE decodes slices, in tiles of 512 pixels" in done.output

    monkeypatch.setenv("FLUX_BACKEND", "cpu")
    monkeypatch.setattr(capacity, "this_machine", lambda: Machine(None, 16 * GIB, 0, 4))
    done = run("check", "--json")
    assert done.exit_code == 78
    found = json.loads(done.output)
    assert found["bf16"]["short_of"] == ["RAM"]
    assert not found["int8"]["fits"]
    assert found["machine"]["ram_available"] == 0
    assert found["model"]["precision"] == "bf16"
    assert "No precision fits" in run("check").output


def test_check_says_what_auto_would_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "backend     cpu, by FLUX_BACKEND=cpu\n" in run("check").output
    monkeypatch.delenv("FLUX_BACKEND")
    done = run("check")
    assert done.exit_code == 78
    assert "machine     no GPU; " in done.output  # all the sums are there, too
    assert re.search(r"^bf16        fits$", done.output, re.M)
    assert "\nbackend     none: FLUX_BACKEND=auto finds no GPU that torch can see: " in done.output
    assert "\n            FLUX_BACKEND=cpu uses the CPU" in done.output
    told = json.loads(run("check", "--json").stdout)
    assert told["bf16"]["fits"]
    assert (told["backend"]["setting"], told["backend"]["draws_on"]) == ("auto", None)
    assert "no GPU that torch can see" in told["backend"]["why"]


def test_draw_never_takes_the_cpu_by_itself(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLUX_BACKEND")
    done = run(*small("--out", tmp_path / "cat.png"))
    assert done.exit_code == 78
    assert "FLUX_BACKEND=auto finds no GPU that torch can see: " in done.output
    assert "FLUX_BACKEND=cpu uses the CPU" in done.output
    assert list(tmp_path.iterdir()) == []


def test_check_without_a_model_says_where_it_looked(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    done = run("check")
    assert done.exit_code == 78
    assert f"is missing or incomplete in HF_HUB_CACHE={tmp_path}" in done.output


def test_quantize_takes_the_snapshot_of_the_settings(run: Run, tmp_path: Path) -> None:
    done = run("quantize", tmp_path / "int8")
    assert done.exit_code == 0, done.output
    assert re.search(
        rf"^Wrote {tmp_path}/int8 \(\d\.\d\d GB, commit {REVISION}\) in \d+ s$", done.output, re.M
    )
    again = run("quantize", tmp_path / "int8")
    assert again.exit_code == 78
    assert "exists" in again.output


def test_quantize_takes_a_source_by_its_path(
    run: Run, lay_out: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLUX_MODEL_REVISION")
    done = run("quantize", lay_out()[1], tmp_path / "int8", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads((tmp_path / "int8" / "quantization.json").read_text())
    assert run("quantize", "a", "b", "c").exit_code == 2
    assert run("quantize").exit_code == 2


def test_quantize_does_not_quantize_twice(
    run: Run, int8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUX_MODEL_DIR", str(int8))
    done = run("quantize", tmp_path / "int8")
    assert done.exit_code == 78
    assert "is already an int8 checkpoint: unset it" in done.output
