"""The interface of a backend: what differs between CUDA, the CPU and Neuron."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from ..jobspec.job import Job
from ..settings import ModelSettings
from .checkpoint import Checkpoint

if TYPE_CHECKING:
    from .compilation import Shape
    from .streaming.report import StreamReport

BackendName = Literal["cuda", "cpu", "neuron"]

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Report:
    """Whether the model fits this machine, as text and as facts (sizes in bytes)."""

    fits: bool
    lines: list[str]
    facts: dict[str, Any]


class Loaded(Protocol):
    """A model on its device. `pipeline` is diffusers' FluxPipeline, or behaves like it."""

    pipeline: Any
    streamed: StreamReport | None
    """How its weights were read; None if not by the stream."""

    def check(self, job: Job) -> None:
        """Raise InvalidJob if this backend does not support the job's image size."""

    def run(self, job: Job, generate: Callable[[Any], _Result]) -> _Result:
        """Call `generate` with the pipeline for the job."""

    def warm_up(self) -> list[Shape]:
        """The shapes to generate once before the first job."""


class Backend(Protocol):
    """A kind of hardware, before the model is loaded."""

    @property
    def name(self) -> BackendName:
        """The device's name in records."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """The packages whose versions go into records."""

    def check_packages(self) -> None:
        """Raise ConfigurationError if packages are missing or break the model."""

    def require(self, checkpoint: Checkpoint) -> None:
        """Raise ConfigurationError, with the arithmetic and advice, if the model does not fit."""

    def report(self, checkpoint: Checkpoint) -> Report:
        """The report of `flux-worker check`."""

    def load(
        self,
        checkpoint: Checkpoint,
        settings: ModelSettings,
        *,
        compile_missing: bool,
        on_read: Callable[[int], None],
    ) -> Loaded:
        """Load from local files. Raises ConfigurationError if they are not as expected.

        `on_read` is called, from any thread, with the bytes of weights that have been read so far.
        """

    def finish_step(self) -> None:
        """Wait until the device has finished the step."""

    def free_memory(self) -> None:
        """Release memory that the device's allocator caches."""

    def is_fatal(self, error: Exception) -> bool:
        """Whether this process can no longer use the device after such an error."""
