"""Figures of serving a queue: jobs a second, calls and CPU a job, and the time between two drawings.

    .venv/bin/python tests/bench/bench_queue.py
    .venv/bin/python tests/bench/bench_queue.py --before HEAD~20   # by turns with the worker of that commit
    .venv/bin/python tests/bench/bench_queue.py --size 1024        # where encoding counts
    .venv/bin/python tests/bench/bench_queue.py --stress           # faults and kills; --seed 7 repeats a run

Real workers with the tiny FLUX. Each drawing takes as long as `--draw-ms` says, of which the host is idle
for the most part, as it is beside a GPU. AWS is the stand-in of tests/bench/stand_in; the table has its
CPU time, too; `--latency-ms usual` gives its answers about the time that AWS takes. `--stress` serves by
moto behind a proxy that lets calls fail, and checks that nothing was lost and nothing drawn in vain before it
prints.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from bake.localcloud.hub import tiny_flux
from tests.bench.serving import ROOT, Figures, Setting, Version, checked_out, serve
from tests.worker.conftest import REVISION, Aws, moto_server, serve_environment
from tests.worker.stress.fleet import GpuFault
from tests.worker.stress.scenario import StressScenario, run_scenario

_HEAD = (
    "worker",
    "workers",
    "AWS takes ms",
    "jobs a second",
    "calls a job",
    "CPU ms a job outside drawing",
    "ms between two drawings: median, 95 %; CPU",
    "stand-in: CPU ms a call, share of all CPU",
)


def main() -> None:
    """Parse the options, serve, and print tables."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="bench-queue-") as name:
        folder = Path(name)
        cache = folder / "cache"
        tiny_flux.build(cache / "models--black-forest-labs--FLUX.1-dev/snapshots" / REVISION)
        (_stress if options.stress else _compare)(options, cache, folder)


def _options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, help="a turn (40), or with --stress in all (300)")
    parser.add_argument("--before", metavar="REV", help="also the worker of this commit, by turns")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each version in each setting")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="on one instance")
    parser.add_argument(
        "--latency-ms", nargs="+", default=["0", "usual"], help="what AWS takes: a number, or usual"
    )
    parser.add_argument("--draw-ms", type=int, default=400, help="what a drawing takes at least")
    parser.add_argument("--size", type=int, default=256, help="width and height of each image")
    stress = parser.add_argument_group("with --stress")
    stress.add_argument("--stress", action="store_true", help="two runs without faults, one with")
    stress.add_argument("--faults", action="store_true", help="only the run with faults")
    stress.add_argument("--kills", type=int, default=6)
    stress.add_argument("--dead", type=int, default=3, help="forbidden jobs, and as many poisoned")
    stress.add_argument("--seed", type=int, default=random.randrange(2**32))
    return parser.parse_args()


def _compare(options: Any, cache: Path, folder: Path) -> None:
    """Serve by turns, so that what else the host does meets all alike."""
    settings = [
        Setting(workers, latency, options.draw_ms / 1000, options.size)
        for workers in options.workers
        for latency in options.latency_ms
    ]
    found: dict[tuple[Version, Setting], Figures] = defaultdict(Figures)
    with contextlib.ExitStack() as stack:
        versions = list(_versions(options.before, stack))
        for turn in range(options.rounds):
            for setting in settings:
                for version in versions:
                    place = folder / f"{turn}-{settings.index(setting)}-{versions.index(version)}"
                    found[version, setting].add(serve(version, setting, options.jobs or 40, cache, place))
                    print(f"{_load()}: {version.name}, {setting}", file=sys.stderr, flush=True)
    print(_table(found))
    print(_calls(found))


def _versions(before: str | None, stack: contextlib.ExitStack) -> Iterator[Version]:
    if before:
        yield stack.enter_context(checked_out(before))
    yield Version("now", ROOT / "worker")


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def _table(found: dict[tuple[Version, Setting], Figures]) -> str:
    rows = [
        (
            version.name,
            setting.workers,
            setting.latency_ms,
            f"{figures.jobs / figures.seconds:.2f}",
            f"{figures.calls.total() / figures.jobs:.1f}",
            f"{figures.outside_ms:.0f}",
            "{:.0f}, {:.0f}; {:.0f}".format(*figures.gap_ms, figures.gap_cpu_ms),
            f"{1000 * figures.stand_in_cpu / figures.calls.total():.2f}, {figures.stand_in_share:.1%}",
        )
        for (version, setting), figures in found.items()
    ]
    lines = [_HEAD, ("---",) * len(_HEAD), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _calls(found: dict[tuple[Version, Setting], Figures]) -> str:
    """By version, how often each operation is called for a job."""
    sums: dict[Version, Figures] = defaultdict(Figures)
    for (version, _), figures in found.items():
        sums[version].add(figures)
    lines = []
    for version, figures in sums.items():
        each = (f"{name} {count / figures.jobs:.2f}" for name, count in figures.calls.most_common())
        lines.append(f"\nCalls a job, {version.name}: {', '.join(each)}")
    return "".join(lines)


def _stress(options: Any, cache: Path, folder: Path) -> None:
    """Serve the same jobs three times, the last time with faults, and print a table each."""
    jobs = options.jobs or 300
    calm: dict[str, Any] = {"seed": options.seed, "jobs": jobs, "kills": 0, "one_in": None}
    scenarios = {
        "AWS is well, one worker": StressScenario(**calm, workers=1),
        "AWS is well, two workers": StressScenario(**calm),
        "one call in five fails, workers are killed, one more is sick": StressScenario(
            options.seed,
            jobs,
            options.kills,
            faulty=(GpuFault.pick(options.seed),),
            forbidden=options.dead,
            poison=options.dead,
        ),
    }
    if options.faults:
        scenarios = dict(list(scenarios.items())[-1:])
    with moto_server() as endpoint:
        for number, (title, scenario) in enumerate(scenarios.items()):
            aws = Aws(endpoint, f"bench-{number}")
            environment = serve_environment(aws, cache, folder / "state")
            print(f"\n{title}\n{run_scenario(aws, environment, folder / str(number), scenario)}", flush=True)


if __name__ == "__main__":
    main()
