"""Compile the transformer's blocks (regional compilation), with a cache by image size.

Cached code is used for the same image size on the same GPU with the same driver, torch, Triton and libraries;
other jobs run eagerly, which is slower. `flux-worker draw` fills the cache and `serve` only reads it, so that
no job waits for a compiler, and a compiler that crashes does not take down a worker.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..jobspec.job import Job
from . import compiled_cache
from .compiled_cache import Entry, Unusable
from .images import Precision
from .memory import ran_out

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

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


def _working_copy(entry: Entry | None) -> tempfile.TemporaryDirectory[str]:
    """A temporary copy of the cache to compile in: torch writes beside what it reads, and the cache may be
    read-only. Raises Unusable if it is damaged, OSError, or RuntimeError without a home; leaves nothing
    behind on a full disk.
    """
    work = tempfile.TemporaryDirectory(
        prefix="flux-worker-compiled-", dir=_executable(), ignore_cleanup_errors=True
    )
    try:
        if entry:
            compiled_cache.unpack(entry, Path(work.name))
        Path(work.name, compiled_cache.FACTS).touch()  # shows that nobody removed the copy
    except (OSError, Unusable):
        work.cleanup()
        raise
    return work


@dataclass(frozen=True)
class Target:
    """Where compiled blocks are kept, and what for."""

    folder: Path
    key: Mapping[str, str]


class CompiledBlocks:
    """The compiled blocks of one transformer, with those of `entry` to begin with.

    `fill`: compile what is missing, and store it in `target`. Raises what `_working_copy` raises.
    """

    def __init__(self, transformer: Any, *, entry: Entry | None, target: Target | None, fill: bool) -> None:
        self._target = target
        self._shapes = {Shape(*size) for size in entry.sizes} if entry else set()
        self._fill = fill
        self._used: set[Shape] = set()
        self._warned = False
        self._active = True
        self._work = _working_copy(entry)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = self._work.name
        os.environ["TRITON_CACHE_DIR"] = str(Path(self._work.name) / "triton")
        import torch._dynamo

        torch._dynamo.config.recompile_limit = _MOST_SHAPES
        transformer.compile_repeated_blocks(fullgraph=True, dynamic=False)

    @property
    def shapes(self) -> list[Shape]:
        """The shapes that are compiled."""
        return sorted(self._shapes)

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
        if (
            not self._fill
            and shape not in self._used
            and not Path(self._work.name, compiled_cache.FACTS).is_file()
        ):
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
        if not self._fill or not self._target or shape in self._shapes:
            return
        self._shapes.add(shape)
        folder, sizes = self._target.folder, [(one.width, one.height, one.tokens) for one in self._shapes]
        try:
            compiled_cache.store(Path(self._work.name), folder, self._target.key, sizes)
        except OSError as error:
            log.warning("compiled blocks cannot be stored in %s: %s", folder, error.strerror or error)


def compiled_blocks(
    transformer: Any, cache: Path | None, precision: Precision, device: str, *, fill: bool
) -> CompiledBlocks | None:
    """The compiled blocks; None, with a warning, if jobs must run eagerly."""
    if device == "cpu" and precision == "int8":
        log.warning("torch's compiler crashes on int8 weights on the CPU: running eagerly")
        return None
    key = compiled_cache.key_of(precision, device)
    target = Target(cache / compiled_cache.name_of(key), key) if cache else None
    try:
        entry = compiled_cache.read(target.folder) if target else None
        if not entry and not fill:
            _warn_nothing_compiled(cache, key)
            return None
        return _with(transformer, entry, target, fill=fill)
    except Unusable as why:
        assert target  # or nothing was read
        log.warning("%s %s", target.folder, why)
        return _with(transformer, None, target, fill=True) if fill else None


def _with(
    transformer: Any, entry: Entry | None, target: Target | None, *, fill: bool
) -> CompiledBlocks | None:
    started = time.monotonic()
    try:
        blocks = CompiledBlocks(transformer, entry=entry, target=target, fill=fill)
    except (OSError, RuntimeError) as error:
        log.warning("there is no folder to compile in, running eagerly: %s", _first_line(error))
        return None
    if entry:
        held, seconds = ", ".join(map(str, blocks.shapes)), time.monotonic() - started
        log.info("compiled blocks of %s for %s, unpacked in %.2f s", entry.folder, held, seconds)
    return blocks


def _warn_nothing_compiled(cache: Path | None, key: Mapping[str, str]) -> None:
    """Say what the blocks that are there are for, or how to compile some."""
    if cache and (differ := compiled_cache.differences(cache, key)):
        log.warning("the compiled blocks in %s are for %s: running eagerly", cache, differ)
        return
    log.warning(
        "nothing is compiled for this GPU and these versions in %s: running eagerly. With FLUX_COMPILE"
        " and FLUX_COMPILE_CACHE set, `flux-worker draw` on this machine compiles it",
        cache / compiled_cache.name_of(key) if cache else "FLUX_COMPILE_CACHE, which is not set",
    )


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
    return (str(error).strip() or repr(error)).splitlines()[0]
