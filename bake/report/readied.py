"""What only a builder with the workers' GPU can do for an image: compile, and see what a start opens."""

from __future__ import annotations

from bake.checks.result import Record
from bake.report.run_directory import RunDirectory

COMPILED, LIBRARIES = "facts/compiled.json", "facts/unused-libraries.json"


class CompiledSize(Record):
    """An image size that the worker's blocks are compiled for; `key` has GPU, driver and versions by name."""

    size: str
    seconds: float
    key: dict[str, str]
    bytes: int


class CompiledBlocks(Record):
    """The sizes that were asked for, and those that are compiled; `why_not` where there are none."""

    asked: tuple[str, ...]
    compiled: tuple[CompiledSize, ...]
    why_not: str

    @property
    def sentence(self) -> str:
        """What was compiled for what, or why nothing was."""
        if not self.compiled:
            return f"nothing is compiled for {', '.join(self.asked)}: {self.why_not}; workers draw eagerly"
        key = ", ".join(f"{name} {value}" for name, value in self.compiled[0].key.items())
        sizes = ", ".join(one.size for one in self.compiled)
        seconds = sum(one.seconds for one in self.compiled)
        return f"compiled for {sizes} in {seconds:.0f} s, for {key}; workers with anything else draw eagerly"


class Library(Record):
    """A shared library of torch's packages, by its path below site-packages."""

    path: str
    bytes: int


class UnusedLibraries(Record):
    """Libraries that no start opens; where none was `recorded` on the GPU, those torch does not link to."""

    recorded: str
    libraries: tuple[Library, ...]
    bytes: int
    removed: bool
    why_not: str

    @property
    def sentence(self) -> str:
        """Whether they are on the image."""
        return "removed from the image" if self.removed else f"on the image: {self.why_not}"


def compiled(run: RunDirectory) -> CompiledBlocks | None:
    """None where the profile asks for none."""
    told = run.json(COMPILED)
    return CompiledBlocks.model_validate(told) if told else None


def libraries(run: RunDirectory) -> UnusedLibraries | None:
    """None where nobody looked, as for Neuron."""
    told = run.json(LIBRARIES)
    if not told:
        return None
    rows = [row for row in told["libraries"] if row["unused"]]
    return UnusedLibraries(
        recorded=told["recorded"],
        libraries=tuple(Library(path=row["path"], bytes=row["bytes"]) for row in rows),
        bytes=sum(row["bytes"] for row in rows),
        removed=told["removed"],
        why_not=told["why_not"],
    )
