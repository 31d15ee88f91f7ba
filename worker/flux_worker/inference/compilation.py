"""The transformer's blocks compiled (regional compilation), for the sizes that a cache holds.

Compiled code is used where it was made before: by the same GPU, torch, Triton and libraries, for the same
size of image. Everything else is drawn eagerly, which is slower. `flux-worker draw` fills the cache, `serve`
only reads it: no job waits for a compiler, and one that crashes takes no worker with it.
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
_FILES = "files.json"  # the SHA-256 of all that was kept: what is damaged is run as well
_MOST_SHAPES = 64  # each is compiled apart; torch gives up after 8 where nobody tells it otherwise


@dataclass(frozen=True, order=True)
class Shape:
    """What compiled code is specialised for: pixels, and tokens of the prompt."""

    width: int
    height: int
    tokens: int

    @classmethod
    def of(cls, job: Job) -> Shape:
        """The shape that a job draws."""
        return cls(job.width, job.height, job.max_sequence_length)

    def __str__(self) -> str:
        return f"{self.width}x{self.height} with {self.tokens} tokens"


def _executable() -> str | None:
    """A folder that libraries can be loaded from: the user's cache where temporary files are noexec; else
    None, for the usual one.
    """
    if not os.statvfs(tempfile.gettempdir()).f_flag & os.ST_NOEXEC:
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    return str(cache) if cache.is_dir() else None


def _working_copy(kept: Path | None) -> tempfile.TemporaryDirectory[str]:
    """A folder to compile in, with what is kept: torch writes beside what it reads, and an image's cache may
    be read-only. Raises OSError, or RuntimeError without a home; nothing is left where the disk is full.
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
    """The blocks of one transformer. `fill`: compile what the cache lacks, and keep it."""

    def __init__(self, transformer: Any, *, kept: Path | None, shapes: set[Shape], fill: bool) -> None:
        self._transformer = transformer
        self._kept = kept
        self._shapes = shapes
        self._fill = fill
        self._drawn: set[Shape] = set()
        self._said = False
        self._active = True
        self._work = _working_copy(kept if shapes else None)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = self._work.name
        os.environ["TRITON_CACHE_DIR"] = str(Path(self._work.name) / "triton")
        import torch._dynamo

        torch._dynamo.config.recompile_limit = _MOST_SHAPES
        transformer.compile_repeated_blocks(fullgraph=True, dynamic=False)

    def run(self, job: Job, generate: Callable[[], _Result]) -> _Result:
        """Call `drawing` with compiled blocks where they fit the job, else eagerly."""
        shape = Shape.of(job)
        if not self._compiled(shape):
            self._warn_not_compiled(shape)
            with torch.compiler.set_stance("force_eager"):
                return generate()
        try:
            drawn = generate()
        except Exception as error:
            if not _is_compiler_error(error):
                raise
            self._deactivate(_first_line(error))
        else:
            self._drawn.add(shape)
            self._keep(shape)
            return drawn
        # Out here the error is gone, and with it the frames whose tensors it kept.
        return self.run(job, generate)

    def _compiled(self, shape: Shape) -> bool:
        """Whether compiled blocks are to draw it; what is read when a shape is first drawn may be gone."""
        if not self._active or not (self._fill or shape in self._shapes):
            return False
        if not self._fill and shape not in self._drawn and not Path(self._work.name, _SHAPES).is_file():
            self._deactivate(f"{self._work.name} was removed")
        return self._active

    def _warn_not_compiled(self, shape: Shape) -> None:
        if self._active and not self._said:
            self._said = True
            held = ", ".join(map(str, sorted(self._shapes)))
            log.warning("nothing is compiled for %s, as for other sizes than %s: drawn eagerly", shape, held)

    def _deactivate(self, why: str) -> None:
        self._active = False
        log.warning("the blocks cannot be compiled, everything is drawn eagerly: %s", why)

    def _keep(self, shape: Shape) -> None:
        """Add what was compiled to the cache: all of it, then its name, so that nobody reads half of it."""
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
            log.warning("compiled blocks cannot be kept in %s: %s", self._kept, error.strerror or error)


def compiled_blocks(
    transformer: Any, cache: Path | None, precision: Precision, device: str, *, fill: bool
) -> CompiledBlocks | None:
    """The blocks compiled, or None, said once, where drawing is to be eager."""
    if device == "cpu" and precision == "int8":
        log.warning("torch's compiler crashes on int8 weights on the CPU: drawing eagerly")
        return None
    kept = cache / cache_name(precision, device) if cache else None
    shapes = _shapes_in(kept) if kept else set()
    if shapes is None and not fill:
        return None
    if not shapes and not fill:
        log.warning(
            "nothing compiled for this GPU and these versions in %s: drawing eagerly. With FLUX_COMPILE and"
            " FLUX_COMPILE_CACHE set, `flux-worker draw` on this machine makes it",
            kept or "FLUX_COMPILE_CACHE, which is not set",
        )
        return None
    try:
        return CompiledBlocks(transformer, kept=kept, shapes=shapes or set(), fill=fill)
    except (OSError, RuntimeError) as error:
        log.warning("there is no place to compile in, everything is drawn eagerly: %s", _first_line(error))
        return None


def cache_name(precision: Precision, device: str) -> str:
    """The folder of what was compiled by exactly this hardware and these versions."""
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
    """The shapes of a cache that can be trusted: what lies in it is run. None, said, for one that can't."""
    try:
        for folder in (kept.parent, kept):
            if reason := _unsafe_permissions(folder):
                log.warning("%s is not used: %s, and what lies in it is run", folder, reason)
                return None
        shapes = {Shape(*sizes) for sizes in json.loads((kept / _SHAPES).read_text())}
        # Of caches that were kept by earlier versions, nothing tells.
        if (kept / _FILES).exists() and json.loads((kept / _FILES).read_text()) != _hashes(kept):
            log.warning("%s is damaged and not used: remove it, and `flux-worker draw` makes it anew", kept)
            return None
        return shapes
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, TypeError, RecursionError) as error:
        log.warning("%s cannot be read: %s", kept, error)
        return None


def _hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file by its path, those that describe the folder left out."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name not in (_FILES, _SHAPES))
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _unsafe_permissions(folder: Path) -> str | None:
    status = folder.stat()
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to user {status.st_uid}"
    return "others may write to it" if status.st_mode & 0o022 else None


def _is_compiler_error(error: Exception) -> bool:
    """Whether the compiler failed or what it made, rather than the drawing.

    Kernels are loaded, compiled and tried at their first launch, too: what goes wrong there comes as it is. A
    device that broke or has no memory left is of no more use to eager blocks.
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
    """By the module's name, since the CPU has no Triton."""
    return module.startswith(("torch._dynamo.", "torch._inductor.", "triton."))


def _first_line(error: Exception) -> str:
    """What happened; of files that could not be copied, the first."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        return str(error.args[0][0][-1])
    return (str(error).strip() or repr(error)).splitlines()[0]
