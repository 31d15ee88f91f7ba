"""What differs between the kinds of hardware: the interface to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from ..jobspec.job import Job
from ..settings import ModelSettings
from .checkpoint import Checkpoint

if TYPE_CHECKING:
    from .compilation import Shape

BackendName = Literal["cuda", "cpu", "neuron"]

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Report:
    """Whether the model fits here: for people, and for programs (sizes in bytes)."""

    fits: bool
    lines: list[str]
    facts: dict[str, Any]


class Loaded(Protocol):
    """A model on its device. `pipeline` is diffusers' FluxPipeline, or behaves as one."""

    pipeline: Any

    def check(self, job: Job) -> None:
        """Raise InvalidJob where this size of image cannot be drawn here."""

    def run(self, job: Job, generate: Callable[[Any], _Result]) -> _Result:
        """Call `drawing` with the pipeline for the job."""

    def warm_up(self) -> list[Shape]:
        """What to draw once before the first job."""


class Backend(Protocol):
    """One kind of hardware, before anything is loaded."""

    @property
    def name(self) -> BackendName:
        """What a picture names as its device."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """The packages whose versions a picture names as its origin."""

    def check_packages(self) -> None:
        """Raise ConfigurationError where packages are missing or would do the model no justice."""

    def require(self, checkpoint: Checkpoint) -> None:
        """Raise ConfigurationError, with the sums and what helps, where the model does not fit."""

    def report(self, checkpoint: Checkpoint) -> Report:
        """What `flux-worker check` shows."""

    def load(self, checkpoint: Checkpoint, settings: ModelSettings, *, compile_missing: bool) -> Loaded:
        """Load from local files. Raises ConfigurationError where they are not what they must be."""

    def finish_step(self) -> None:
        """Wait until the step just told is done on the device, too."""

    def free_memory(self) -> None:
        """Give back what the device's allocator holds and nothing uses."""

    def is_fatal(self, error: Exception) -> bool:
        """Whether the device is of no more use to this process after such an error."""
