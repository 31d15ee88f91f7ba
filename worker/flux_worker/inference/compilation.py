"""Compile the transformer's blocks (regional compilation), with a cache by image size.

Cached code is used for the same image size on the same GPU with the same torch, Triton and libraries; other
jobs run eagerly, which is slower. `flux-worker draw` fills the cache and `serve` only reads it, so that no
job waits for a compiler, and a compiler that crashes does not take down a worker.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import re
import shutil
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..jobspec.job import Job
from .images import Precision
from .memory import ran_out

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_SHAPES = "shapes.json"
_FILES = "files.json"  # the SHA-256 of all files, since damaged code would be run
_MOST_SHAPES = 64  # each is compiled separately; torch's default limit is 8


@dataclass(frozen=True, order=True)
class Shape:
    """What compiled code is specialized for: the size in pixels, and the tokens of the prompt."""

    width: int
    height: int
    tokens: int

    @classmethod
    def of(cls, job: Job) -> Shape:
        """The shape of a job."""
        return cls(job.width, job.height, job.max_sequence_length)

    def __str__(self) -> str:
        return f"{self.width}x{self.height} with {self.tokens} tokens"


def _executable() -> str | None:
    """A folder from which libraries can be loaded: the user's cache if the temporary folder is noexec, else
    None for the default.
    """
    if not os.statvfs(tempfile.gettempdir()).f_flag & os.ST_NOEXEC:
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    return str(cache) if cache.is_dir() else None


def _working_copy(kept: Path | None) -> tempfile.TemporaryDirectory[str]:
    """A temporary copy of the cache to compile in: torch writes beside what it reads, and the cache may be
    read-only. Raises OSError, or RuntimeError without a home; leaves nothing behind on a full disk.
    """
    work = tempfile.TemporaryDirectory(
        prefix="flux-worker-compiled-", dir=_executable(), ignore_cleanup_errors=True
    )
    try:
        if kept:
            shutil.copytree(kept, work.name, dirs_exist_ok=True)
    except OSError:
        work.cleanup()
        raise
    return work


class CompiledBlocks:
    """The compiled blocks of one transformer. `fill`: compile what the cache lacks, and store it."""

    def __init__(self, transformer: Any, *, kept: Path | None, shapes: set[Shape], fill: bool) -> None:
        self._transformer = transformer
        self._kept = kept
        self._shapes = shapes
        self._fill = fill
        self._used: set[Shape] = set()
        self._warned = False
        self._active = True
        self._work = _working_copy(kept if shapes else None)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = self._work.name
        os.environ["TRITON_CACHE_DIR"] = str(Path(self._work.name) / "triton")
        import torch._dynamo

        torch._dynamo.config.recompile_limit = _MOST_SHAPES
        transformer.compile_repeated_blocks(fullgraph=True, dynamic=False)

    def run(self, job: Job, generate: Callable[[], _Result]) -> _Result:
        """Call `generate` with compiled blocks if they fit the job, else eagerly."""
        shape = Shape.of(job)
        if not self._compiled(shape):
            self._warn_not_compiled(shape)
            with torch.compiler.set_stance("force_eager"):
                return generate()
        try:
            result = generate()
        except Exception as error:
            if not _is_compiler_error(error):
                raise
            self._deactivate(_first_line(error))
        else:
            self._used.add(shape)
            self._keep(shape)
            return result
        # Outside the except block the error is gone, and with it the frames that kept tensors alive.
        return self.run(job, generate)

    def _compiled(self, shape: Shape) -> bool:
        """Whether to use compiled blocks; checks that the files of a shape not used yet still exist."""
        if not self._active or not (self._fill or shape in self._shapes):
            return False
        if not self._fill and shape not in self._used and not Path(self._work.name, _SHAPES).is_file():
            self._deactivate(f"{self._work.name} was removed")
        return self._active

    def _warn_not_compiled(self, shape: Shape) -> None:
        if self._active and not self._warned:
            self._warned = True
            held = ", ".join(map(str, sorted(self._shapes)))
            log.warning("%s is not compiled, only %s: running eagerly", shape, held)

    def _deactivate(self, why: str) -> None:
        self._active = False
        log.warning("the blocks cannot be compiled, running eagerly: %s", why)

    def _keep(self, shape: Shape) -> None:
        """Add the compiled code to the cache, atomically."""
        if not self._fill or not self._kept or shape in self._shapes:
            return
        self._shapes.add(shape)
        try:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".partial-", dir=self._kept.parent) as draft:
                copy = Path(shutil.copytree(self._work.name, Path(draft) / "new"))
                (copy / _FILES).write_text(json.dumps(_hashes(copy)))
                shapes = [[s.width, s.height, s.tokens] for s in sorted(self._shapes)]
                (copy / _SHAPES).write_text(json.dumps(shapes))
                with contextlib.suppress(FileNotFoundError):
                    self._kept.rename(Path(draft) / "old")
                copy.rename(self._kept)
        except OSError as error:
            log.warning("compiled blocks cannot be stored in %s: %s", self._kept, error.strerror or error)


def compiled_blocks(
    transformer: Any, cache: Path | None, precision: Precision, device: str, *, fill: bool
) -> CompiledBlocks | None:
    """The compiled blocks; None, with a warning, if jobs must run eagerly."""
    if device == "cpu" and precision == "int8":
        log.warning("torch's compiler crashes on int8 weights on the CPU: running eagerly")
        return None
    kept = cache / cache_name(precision, device) if cache else None
    shapes = _shapes_in(kept) if kept else set()
    if shapes is None and not fill:
        return None
    if not shapes and not fill:
        log.warning(
            "nothing is compiled for this GPU and these versions in %s: running eagerly. With FLUX_COMPILE"
            " and FLUX_COMPILE_CACHE set, `flux-worker draw` on this machine compiles it",
            kept or "FLUX_COMPILE_CACHE, which is not set",
        )
        return None
    try:
        return CompiledBlocks(transformer, kept=kept, shapes=shapes or set(), fill=fill)
    except (OSError, RuntimeError) as error:
        log.warning("there is no folder to compile in, running eagerly: %s", _first_line(error))
        return None


def cache_name(precision: Precision, device: str) -> str:
    """The cache folder's name for this hardware and these versions."""
    names = ("torch", "triton", "diffusers", "torchao")
    parts = [_hardware(device), *(f"{name}-{_version(name)}" for name in names), precision]
    return re.sub(r"[^A-Za-z0-9.+_-]+", "-", "_".join(parts))


def _hardware(device: str) -> str:
    if device == "cuda":
        return "{}_sm{}{}".format(torch.cuda.get_device_name(), *torch.cuda.get_device_capability())
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return f"cpu_{model[1] if model else os.uname().machine}_{torch.backends.cpu.get_cpu_capability()}"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _shapes_in(kept: Path) -> set[Shape] | None:
    """The shapes in a cache; None, with a warning, if it cannot be trusted, since its code is run."""
    try:
        for folder in (kept.parent, kept):
            if reason := _unsafe_permissions(folder):
                log.warning("%s is not used, since its code would be run and %s", folder, reason)
                return None
        shapes = {Shape(*sizes) for sizes in json.loads((kept / _SHAPES).read_text())}
        # Caches of earlier versions have no hashes.
        if (kept / _FILES).exists() and json.loads((kept / _FILES).read_text()) != _hashes(kept):
            log.warning("%s is damaged and not used: remove it, and `flux-worker draw` makes it again", kept)
            return None
        return shapes
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, TypeError, RecursionError) as error:
        log.warning("%s cannot be read: %s", kept, error)
        return None


def _hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file by its path, without the files that describe the folder."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name not in (_FILES, _SHAPES))
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _unsafe_permissions(folder: Path) -> str | None:
    status = folder.stat()
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to user {status.st_uid}"
    return "others may write to it" if status.st_mode & 0o022 else None


def _is_compiler_error(error: Exception) -> bool:
    """Whether the compiler or its code failed, rather than the job.

    Kernels are also loaded, compiled and tuned at their first launch, where any error may occur. A broken
    device or lack of memory would affect eager blocks as well.
    """
    import torch._dynamo.exc

    kinds = (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit)
    if isinstance(error, kinds) or _is_compiler_module(type(error).__module__):
        return True
    if isinstance(error, torch.AcceleratorError) or ran_out(error):
        return False
    frames = traceback.walk_tb(error.__traceback__)
    return any(_is_compiler_module(frame.f_globals.get("__name__", "")) for frame, _ in frames)


def _is_compiler_module(module: str) -> bool:
    """By the module's name, since Triton is not installed for the CPU."""
    return module.startswith(("torch._dynamo.", "torch._inductor.", "triton."))


def _first_line(error: Exception) -> str:
    """The error's first line; of several files that could not be copied, the first."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        return str(error.args[0][0][-1])
    return (str(error).strip() or repr(error)).splitlines()[0]
