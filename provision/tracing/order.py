"""What a start reads that is not recorded: weights, whose order is known, and what a GPU needs of libraries.

Weights are read whole, so nothing needs to be recorded of them: diffusers loads a pipeline's components in
the order of their names, and the shards of each in that of theirs.
"""

from __future__ import annotations

import fnmatch
import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from tracing.ranges import Range, Stage, rest, wholes
from tracing.residency import below

WEIGHTS = (
    ("text_encoders", ("text_encoder", "text_encoder_2")),
    ("transformer", ("transformer",)),
    ("vae", ("vae",)),
)
LARGE = (".safetensors",)
DEVICE = "device"
"""The last stage: code for the GPU, which a first draw picks from libraries of gigabytes."""
# What FLUX draws with on one GPU; the rest of CUDA (cuFFT, NCCL, cuSPARSE, ...) is opened and not used.
DRAWS_WITH = (
    *("libcudart.so*", "libc10_cuda.so", "libtorch_cuda.so", "libcublas.so*", "libcublasLt.so*"),
    *("libcudnn.so*", "libcudnn_graph.so*", "libcudnn_heuristic.so*", "libcudnn_ops.so*", "libcudnn_cnn.so*"),
    "libcudnn_engines_*.so*",
)
DRIVER = ("libcuda.so.1", "libnvidia-ptxjitcompiler.so.1")
# Without a recording: torch's own libraries whole, and the bytecode of what a start imports.
TORCH = ("libc10.so", "libtorch_cpu.so", "libtorch.so", "libtorch_python.so", "libgomp*", "libshm.so")
PACKAGES = (
    *("flux_worker", "click", "pydantic", "pydantic_core", "botocore", "boto3", "urllib3", "torch", "numpy"),
    *("PIL", "huggingface_hub", "safetensors", "tokenizers", "transformers", "accelerate", "torchao"),
    *("diffusers", "optimum", "torch_xla", "torch_neuronx", "neuronx_distributed"),
)
UNUSED = (
    ".opt-1.pyc",
    ".opt-2.pyc",
    "/test/",
    "/tests/",
    "/testing/_internal/",
    "/idlelib/",
    "/tkinter/",
    "/ensurepip/",
    "/include/",
)


def weights(model: Path | None) -> tuple[Stage, ...]:
    """The stages of a model's folder; its small files, which are read first, are in the first."""
    if model is None:
        return ()
    stages = []
    for name, folders in WEIGHTS:
        files = sorted(one for folder in folders for one in (model / folder).glob("*") if one.is_file())
        large = [one for one in files if one.name.endswith(LARGE)]
        first = _small(model) if name == WEIGHTS[0][0] else ()
        stages.append(Stage(name, wholes([*first, *large])))
    return tuple(stages)


def _small(model: Path) -> list[Path]:
    """Configurations, indexes and vocabularies of a model; not the duplicates of a whole repository."""
    found = [*model.glob("*.json"), *model.glob("*/*")]
    return sorted(one for one in found if one.is_file() and one.suffix in (".json", ".txt", ".model"))


def compiled(folder: Path) -> Stage:
    """What was compiled for NeuronCores, weights among it: a folder a size, and a component each."""
    return Stage("transformer", wholes(sorted(below([str(folder)]))))


def device(libraries: Iterable[str], known: Sequence[Range]) -> Stage:
    """What the recorded ranges leave of the libraries that draw on a GPU."""
    drawing = sorted(
        (number, path)
        for path in libraries
        for number, pattern in enumerate(DRAWS_WITH)
        if fnmatch.fnmatch(os.path.basename(path), pattern)
    )
    return Stage(DEVICE, tuple(part for _, path in drawing for part in rest(path, known)))


def driver() -> tuple[Range, ...]:
    """The driver's library for CUDA, which no package of the worker brings."""
    listed = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    places = {line.split()[0]: line.rpartition(" => ")[2] for line in listed.splitlines() if " => " in line}
    return wholes(places[name] for name in DRIVER if name in places)


def libraries(venv: Path, standard: Sequence[str]) -> Stage:
    """What is known without a recording: Python's own bytecode, torch's libraries, the packages' bytecode."""
    packages = next(iter(sorted(venv.glob("lib/python3*/site-packages"))), None)
    found = [path for path in below(standard, (".py",)) if "/site-packages/" not in path]
    if packages is not None:
        found += [
            path for name in TORCH for path in sorted(map(str, (packages / "torch" / "lib").glob(name)))
        ]
        for name in PACKAGES:
            found += below([str(packages / name)], (".py",))
    wanted = (path for path in found if path.endswith(".pyc") or ".so" in os.path.basename(path))
    return Stage("libraries", _used(wholes([venv / "bin" / "python", *wanted])))


def _used(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Without tests and headers, and without what belongs to the GPU's stage."""
    return tuple(
        one
        for one in ranges
        if not any(part in one.path for part in UNUSED)
        and not any(fnmatch.fnmatch(os.path.basename(one.path), pattern) for pattern in DRAWS_WITH)
    )


def gpu_libraries(venv: Path) -> list[str]:
    """The shared libraries of torch and of NVIDIA's packages, by their real paths."""
    folders = [str(one) for one in venv.glob("lib/python3*/site-packages/torch/lib")]
    folders += [str(one) for one in venv.glob("lib/python3*/site-packages/nvidia")]
    return [path for path in below(folders) if ".so" in os.path.basename(path)]


def standard_library(venv: Path) -> list[str]:
    """The folders of the Python that a virtual environment was made of: its own files, no other packages."""
    lines = (venv / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    told = dict(line.split(" = ", 1) for line in lines if " = " in line)
    prefix = Path(told["home"]).resolve().parent
    version = ".".join(next(told[key] for key in ("version", "version_info") if key in told).split(".")[:2])
    return sorted(str(one) for one in prefix.glob(f"lib*/python{version}") if not one.is_symlink())
