"""Generated images are checked before delivery, and a job is restarted when memory runs out."""

from __future__ import annotations

import math
import subprocess
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from flux_worker.errors import BadImage
from flux_worker.inference.backend_torch import TorchBackend, TorchModel, _decode_in_tiles, _from_files
from flux_worker.inference.image_checks import assert_image
from flux_worker.inference.memory import ran_out
from flux_worker.inference.model import FluxModel
from flux_worker.jobspec.job import Job
from flux_worker.steps import StepCallback
from tests.worker.conftest import COMMAND, REVISION, serve_environment

pytestmark = pytest.mark.integration
MakeCache = Callable[[], tuple[Path, Path]]
JOB = Job(id="a", prompt="a cat", width=256, height=256, steps=2, seed=7, max_sequence_length=64)
TWO = JOB.model_copy(update={"images": 2})


@pytest.fixture(scope="module")
def own(cache: Path, model: Any) -> FluxModel:
    """A model of this module's own, to be spoilt; each case puts right what it spoils."""
    snapshots = cache / "models--black-forest-labs--FLUX.1-dev" / "snapshots"
    pipeline = _from_files(snapshots / REVISION)
    pipeline.set_progress_bar_config(disable=True)
    return FluxModel(TorchModel(pipeline, "cpu"), TorchBackend("cpu"), model.origin)


def plain(pipeline: Any, job: Job) -> bytes:
    """What diffusers draws when nobody looks."""
    drawn = pipeline(
        prompt=job.prompt,
        width=job.width,
        height=job.height,
        num_inference_steps=job.steps,
        guidance_scale=job.guidance,
        generator=torch.Generator("cpu").manual_seed(job.seed or 0),
        max_sequence_length=job.max_sequence_length,
    )
    return drawn.images[0].tobytes()  # type: ignore[no-any-return]


def test_looking_changes_no_pixel(own: FluxModel) -> None:
    whole = plain(own.pipeline, JOB)
    assert own.generate(JOB).images[0].tobytes() == whole
    _decode_in_tiles(own.pipeline.vae, 128)
    try:
        tiled = plain(own.pipeline, JOB)
        assert own.generate(JOB).images[0].tobytes() == tiled != whole
    finally:
        own.pipeline.vae.disable_tiling()
        own.pipeline.vae.disable_slicing()
    assert plain(own.pipeline, JOB) == whole  # nobody looks any more


@contextmanager
def spoilt(pipeline: Any, place: str, value: float, *, one: bool) -> Iterator[None]:
    """A weight, or one number of it, is `value` for a while."""
    component, _, name = place.partition(".")
    weight = dict(getattr(pipeline, component).named_parameters())[name]
    whole = weight.data
    weight.data = whole.clone()
    (weight.data.view(-1)[:1] if one else weight.data).fill_(value)
    try:
        yield
    finally:
        weight.data = whole


LATENTS = "image 1 of 1: the last step's latents are not finite numbers"
PIXELS = "image 1 of 1: the pixels that the VAE decoded are not finite numbers"


@pytest.mark.parametrize(
    ("place", "value", "one", "message"),
    [
        pytest.param("vae.decoder.conv_in.weight", math.nan, True, PIXELS, id="vae-nan"),
        pytest.param("vae.decoder.conv_out.bias", math.inf, True, PIXELS, id="vae-inf-in-one-colour"),
        pytest.param("vae.decoder.conv_out.bias", -math.inf, True, PIXELS, id="vae-minus-inf"),
        pytest.param("vae.decoder.conv_norm_out.weight", 3e38, False, PIXELS, id="vae-overflow"),
        pytest.param("transformer.proj_out.weight", math.nan, True, LATENTS, id="transformer-nan"),
        pytest.param("transformer.proj_out.weight", 3e38, False, LATENTS, id="transformer-overflow"),
        pytest.param("text_encoder.final_layer_norm.weight", math.nan, True, LATENTS, id="clip-nan"),
        pytest.param("text_encoder_2.encoder.final_layer_norm.weight", math.nan, True, LATENTS, id="t5-nan"),
    ],
)
def test_a_number_that_is_none_never_becomes_a_picture(
    own: FluxModel, place: str, value: float, one: bool, message: str
) -> None:
    steps: list[int] = []
    with spoilt(own.pipeline, place, value, one=one), pytest.raises(BadImage) as bad:
        own.generate(JOB, steps.append)
    assert str(bad.value) == message
    assert steps == [1, 2]
    assert own.generate(JOB).images[0].tobytes() == plain(own.pipeline, JOB)


def test_one_colour_all_over_is_no_picture_and_little_variation_is(own: FluxModel) -> None:
    all_over = "1 of 1: the pixels that the VAE decoded are constant"
    place = "vae.decoder.conv_out.weight"
    with spoilt(own.pipeline, place, 0, one=False), pytest.raises(BadImage, match=all_over):
        own.generate(JOB)
    with spoilt(own.pipeline, place, 1e-4, one=False):
        image = own.generate(JOB).images[0]
    assert max(high - low for low, high in image.getextrema()) <= 1


def test_of_several_images_the_bad_one_is_named(own: FluxModel) -> None:
    seen: list[int] = []

    def spoil_the_second(_module: Any, _input: Any, output: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        return output * math.nan if len(seen) == 2 else output

    hook = own.pipeline.vae.decoder.register_forward_hook(spoil_the_second)
    with pytest.raises(BadImage, match=r"^image 2 of 2: "):
        own.generate(TWO)
    hook.remove()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [2, 7, 64, 1025])
def test_one_number_among_many_is_found(dtype: torch.dtype, size: int) -> None:
    for value in (math.nan, math.inf, -math.inf):
        for place in (0, size // 2, size * size - 1):
            pixels = torch.linspace(-1, 1, 3 * size * size, dtype=dtype).reshape(1, 3, size, size)
            assert_image(pixels, (-2, -1), "the pixels")
            pixels.view(1, 3, -1)[0, 1, place] = value
            with pytest.raises(BadImage, match=r"^the pixels are not finite numbers$"):
                assert_image(pixels, (-2, -1), "the pixels")


def test_latents_that_do_not_vary_are_none() -> None:
    latents = torch.arange(64).bfloat16().expand(1, 320, 64)  # each channel a value of its own
    with pytest.raises(BadImage, match=r"^the latents are constant$"):
        assert_image(latents, (-2,), "the latents")
    varied = latents.clone()
    varied[0, 5, 3] += 0.5
    assert_image(varied, (-2,), "the latents")


def test_the_warm_up_is_judged_each_time(own: FluxModel) -> None:
    own.warm_up()
    with spoilt(own.pipeline, "vae.decoder.conv_in.weight", math.nan, one=True):
        for _ in range(2):
            with pytest.raises(BadImage):
                own.warm_up()
    own.warm_up()


@pytest.fixture(scope="module")
def sick(lay_out: MakeCache) -> Path:
    """A Hub cache with one number in the VAE's weights that is none, under its name as if nothing was."""
    from safetensors.torch import load_file, save_file

    cache, snapshot = lay_out()
    file = next(snapshot.glob("vae/*.safetensors")).resolve()
    weights = load_file(file)
    weights["decoder.conv_in.weight"].view(-1)[0] = math.nan
    save_file(weights, file, metadata={"format": "pt"})
    return cache


def test_serve_ends_where_the_warm_up_draws_no_picture(sick: Path, tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    aws: Any = SimpleNamespace(endpoint=nowhere, jobs=f"{nowhere}/1/jobs", bucket="bucket", bus="bus")
    environment = serve_environment(aws, sick, tmp_path)
    done = subprocess.run([COMMAND, "serve"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 78, done.stderr
    assert "the warm-up gave no valid image: image 1 of 1: the pixels" in done.stderr
    assert "`flux-worker check --verify`" in done.stderr
    assert "nvidia-smi -q -d ECC" in done.stderr


def test_draw_by_hand_writes_no_bad_picture(
    sick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flux_worker.cli import main

    settings = {"FLUX_MODEL_REVISION": REVISION, "HF_HUB_CACHE": str(sick), "FLUX_BACKEND": "cpu"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    size = ["--width", "256", "--height", "256", "--steps", "1"]
    command = ["draw", "--prompt", "a secret cat", *size, "--out", str(tmp_path / "cat.png")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1, done.output
    assert (
        "flux-worker: image 1 of 1: the pixels that the VAE decoded are not finite numbers. `flux"
        in done.output
    )
    assert "secret" not in done.output
    assert list(tmp_path.iterdir()) == []


class Gpu(TorchBackend):
    """The backend of a GPU, as far as it goes without one."""

    def __init__(self) -> None:
        super().__init__("cuda")

    def finish_step(self) -> None:
        pass


CUDAS = "CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of it"
HOSTS = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
LACKS: list[tuple[type[Exception], str]] = [
    (torch.OutOfMemoryError, CUDAS),
    (torch.AcceleratorError, "CUDA error: out of memory"),
    (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    (RuntimeError, "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    (RuntimeError, HOSTS),
    (MemoryError, ""),
]


@pytest.mark.parametrize(("kind", "message"), LACKS)
def test_lack_of_memory_is_known_by_its_kind_or_its_words(kind: type[Exception], message: str) -> None:
    assert ran_out(kind(message))


@contextmanager
def failing(
    pipeline: Any, calls: set[int], kind: type[Exception] = torch.OutOfMemoryError, message: str = CUDAS
) -> Iterator[list[Any]]:
    """The transformer fails at these calls of it, and holds a tensor then; gives back what each held."""
    held: list[Any] = []

    def fail(_module: Any, _input: Any, _output: Any) -> None:
        activations = torch.empty(8)
        held.append(weakref.ref(activations))
        if len(held) in calls:
            raise kind(message)

    hook = pipeline.transformer.register_forward_hook(fail)
    try:
        yield held
    finally:
        hook.remove()


def test_a_job_that_memory_ran_out_for_is_begun_again(own: FluxModel) -> None:
    steps: list[int] = []
    expected = [image.tobytes() for image in own.generate(TWO).images]
    with failing(own.pipeline, {4}):
        generated = own.generate(TWO, steps.append)
    assert [image.tobytes() for image in generated.images] == expected
    assert steps == [1, 2, 3, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("kind", "message", "tries"),
    [
        (torch.OutOfMemoryError, CUDAS, 2),
        (RuntimeError, HOSTS, 2),
        (RuntimeError, "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED", 1),
        (ValueError, "out of memory", 1),
    ],
)
def test_an_error_that_stays_goes_through(
    own: FluxModel, kind: type[Exception], message: str, tries: int
) -> None:
    with failing(own.pipeline, {1, 2, 3}, kind, message) as calls, pytest.raises(kind):
        own.generate(JOB)
    assert len(calls) == tries


def test_what_the_first_try_held_is_free_before_the_cache_is_emptied(
    own: FluxModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ping: list[Any] = []
    gpu = FluxModel(TorchModel(own.pipeline, "cuda"), Gpu(), own.origin)
    with failing(own.pipeline, {2}) as held:
        # What the driver would be given back: the very edge of a GPU.
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: ping.append([ref() for ref in held]))
        gpu.generate(JOB)
    assert ping == [[None, None]]
    [said] = [record.getMessage() for record in caplog.records if "memory" in record.message]
    assert said == f"memory ran out, restarting the job: {CUDAS.splitlines()[0]}"


def test_steps_of_a_job_begun_again_count_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is told by the second try alone: the first may have hung for minutes."""
    clock = [0.0]
    told: list[tuple[int, int]] = []
    monkeypatch.setattr("flux_worker.steps.time.monotonic", lambda: clock[0])
    monitor: Any = SimpleNamespace(
        doing=lambda _text, job, step, steps: told.append((step, steps)), step=lambda _seconds: None
    )
    stop: Any = SimpleNamespace(
        requested=True, has_time_for=lambda seconds: seconds <= 500, remaining=lambda: 500.0, why="spot"
    )
    lease: Any = SimpleNamespace(check=lambda: None)
    steps = StepCallback(JOB.model_copy(update={"steps": 4}), lease, monitor, stop)
    for at, done in ((100, 1), (200, 2), (300, 3), (310, 1), (320, 2), (330, 3), (340, 4)):
        clock[0] = float(at)
        steps(done)
    assert told[3:] == [(1, 4), (2, 4), (3, 4), (4, 4)]
