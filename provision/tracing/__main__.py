"""The command: start the worker and record what it reads, or write down what is known without that.

python -m tracing --venv FOLDER --out FILE [--model FOLDER] [--recorded HOW -- COMMAND...]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tracing import order, read_ahead
from tracing.ranges import Range, Stage, trace, wholes
from tracing.residency import Residency, below, written
from tracing.start import Command, Failed, Seen, follow

STATIC = "static"
# No start reads these: sources for compilers, and stubs.
LEFT_OUT = (".h", ".hpp", ".cuh", ".cu", ".cpp", ".c", ".inl", ".pyi", ".a", ".cmake", ".pxd", ".md")
MOST_STAYED = 0.2
"""Share of bytes that stay in memory with which a recording says nothing."""
SYSTEM = ("/usr/", "/lib", "/opt/")
"""Where libraries lie; caches of /etc are made anew, and the rest is no business of an image."""


def main(words: Sequence[str] | None = None) -> int:
    """Write the trace; print its facts as JSON. Whatever goes wrong with a recording is in them as `why`."""
    options = _options(words)
    kept = options.scratch / "read-ahead"
    read_ahead.restore(kept)
    facts: dict[str, Any] = {"why": options.why or ""}
    seen = None
    if options.command and not options.why:
        try:
            seen = record(options, kept, facts)
        except Failed as failed:
            facts["why"] = str(failed)
        except Exception as error:  # the image is as good without: say it, and write what is known
            facts["why"] = f"{type(error).__name__}: {error}"
    stages = _stages(options, seen)
    recorded = options.recorded if seen else STATIC
    content = json.dumps(trace(options.image, recorded, stages), separators=(",", ":")).encode()
    _write(options.out, content)
    opened = opened_libraries(options.venv, seen) if seen else []
    facts |= {"format": 1, "image": options.image, "recorded": recorded}
    facts |= {"path": str(options.out), "sha256": hashlib.sha256(content).hexdigest()}
    facts |= {"stages": [one.facts() for one in stages], "opened_libraries": opened}
    print(json.dumps(facts))
    return 0


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tracing", description="Record what a start of the worker reads.")
    parser.add_argument("--venv", type=Path, required=True, help="the worker's virtual environment")
    parser.add_argument("--out", type=Path, required=True, help="the trace")
    parser.add_argument("--image", default="", help="what it is a trace of")
    parser.add_argument("--model", type=Path, help="the model's folder, whose weights are read whole")
    parser.add_argument("--compiled", type=Path, help="what was compiled for NeuronCores, instead of weights")
    parser.add_argument(
        "--gpu", choices=("here", "elsewhere"), help="where the GPU is that the image draws on"
    )
    parser.add_argument("--recorded", default="start", help="what the trace says of the command")
    parser.add_argument("--user", help="who starts it; otherwise who runs this")
    parser.add_argument("--environment", type=Path, help="NAME=value lines for it")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="the same, by itself"
    )
    parser.add_argument("--limit", type=float, default=300, help="seconds that it may take")
    parser.add_argument("--scratch", type=Path, default=Path("/run/bake-trace"), help="in memory")
    parser.add_argument("--why", help="why nothing is recorded: only what is known is written down")
    parser.add_argument("command", nargs="*", help="the start")
    options = parser.parse_args(words)
    options.venv = options.venv.absolute()
    options.scratch.mkdir(mode=0o755, parents=True, exist_ok=True)
    return options


def record(options: argparse.Namespace, kept: Path, facts: dict[str, Any]) -> Seen:
    """Put the worker's files out of memory, start it, and see them come back; raises Failed."""
    roots = [str(options.venv), *order.standard_library(options.venv)]
    written(str(options.venv))
    home = Path(tempfile.mkdtemp(dir=options.scratch))
    if options.user:
        shutil.chown(home, options.user)
    watched = Residency(below(roots, LEFT_OUT))
    try:
        facts |= {
            "watched": len(watched.files),
            "not_watched": watched.left_out,
            "watched_bytes": watched.bytes,
            "stayed_bytes": watched.stayed,
        }
        if watched.stayed > MOST_STAYED * watched.bytes:
            raise Failed(f"{watched.stayed} of {watched.bytes} bytes can't be put out of memory here")
        disk = read_ahead.of_disk(str(options.venv))
        with read_ahead.lowered(disk, kept) as kib:
            command = Command(options.command, options.user, _environment(options, home), options.limit)
            seen = follow(command, watched)
        facts |= {"read_ahead_kib": kib, "looks": seen.looks, "seconds": round(seen.seconds, 2)}
        return seen
    finally:
        watched.close()
        shutil.rmtree(home, ignore_errors=True)


def _environment(options: argparse.Namespace, home: Path) -> dict[str, str]:
    """The worker's own, with caches that are thrown away: a start leaves nothing on the image."""
    found = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", "HOME": str(home)}
    places = {"XDG_CACHE_HOME": "", "TMPDIR": "", "CUDA_CACHE_PATH": "cuda", "TRITON_CACHE_DIR": "triton"}
    found |= {name: str(home / place) for name, place in places.items()}
    lines = options.environment.read_text(encoding="utf-8").splitlines() if options.environment else []
    lines = [line for line in lines if "=" in line and not line.startswith("#")]
    found |= dict(line.split("=", 1) for line in [*lines, *options.set])
    return found


def _stages(options: argparse.Namespace, seen: Seen | None) -> list[Stage]:
    """All that a start reads: libraries, weights, and last what a GPU's first draw needs."""
    if seen is not None:
        first = Stage("libraries", (*_outside(options.venv, seen), *seen.ranges))
    else:
        first = order.libraries(options.venv, order.standard_library(options.venv))
    by_name = options.gpu is not None and not (seen is not None and options.gpu == "here")
    if by_name:
        first = Stage(first.name, (*first.ranges, *order.driver()))
    weights = (order.compiled(options.compiled),) if options.compiled else order.weights(options.model)
    stages = [first, *weights]
    if by_name:
        stages.append(order.device(order.gpu_libraries(options.venv), first.ranges))
    return [one for one in stages if one.ranges]


def _outside(venv: Path, seen: Seen) -> tuple[Range, ...]:
    """The system's libraries and Python, which other processes keep in memory: whole, and first."""
    known = {one.path for one in seen.ranges}
    inside = f"{venv}/"
    return tuple(
        one
        for one in wholes(seen.mapped)
        if one.path.startswith(SYSTEM) and one.path not in known and not one.path.startswith(inside)
    )


def opened_libraries(venv: Path, seen: Seen) -> list[str]:
    """The shared libraries of the environment that a start opened, by their real paths."""
    paths = {one.path for one in seen.ranges} | {os.path.realpath(path) for path in seen.mapped}
    inside = f"{os.path.realpath(venv)}/"
    return sorted(path for path in paths if path.startswith(inside) and ".so" in os.path.basename(path))


def _write(out: Path, content: bytes) -> None:
    """Replace the trace at once; it is root's, and everybody's to read."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.chmod(0o644)
    partial.replace(out)


if __name__ == "__main__":
    sys.exit(main())
