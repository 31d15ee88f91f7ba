"""Figures of serving a queue: jobs a second, recovery from kill -9, how often a job was drawn and announced.

    .venv/bin/python tests/bench/bench_queue.py                # two runs without faults, one with
    .venv/bin/python tests/bench/bench_queue.py --seed 7       # the same messages, faults and kills again

Real workers with the tiny FLUX against moto: AWS's own times are not in the figures, the model's hardly. What
is printed was held against what was asked for first: everything drawn, announced, and nothing drawn in vain.
With faults, one more worker has a broken GPU, by the seed, and some jobs must end among the dead letters.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from bake.localcloud.hub import tiny_flux
from tests.worker.conftest import REVISION, Aws, moto_server, serve_environment
from tests.worker.stress.fleet import GpuFault
from tests.worker.stress.scenario import StressScenario, run_scenario


def main() -> None:
    """Serve the same jobs three times and print a table each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--kills", type=int, default=6, help="with faults")
    parser.add_argument(
        "--dead", type=int, default=3, help="forbidden jobs with faults, and as many poisoned"
    )
    parser.add_argument("--faults", action="store_true", help="only the run with faults")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    calm = {"seed": options.seed, "jobs": options.jobs, "kills": 0, "one_in": None}
    scenarios = {
        "AWS is well, one worker": StressScenario(**calm, workers=1),
        "AWS is well, two workers": StressScenario(**calm),
        "one call in five fails, workers are killed, one more is sick": StressScenario(
            options.seed,
            options.jobs,
            options.kills,
            faulty=(GpuFault.pick(options.seed),),
            forbidden=options.dead,
            poison=options.dead,
        ),
    }
    if options.faults:
        scenarios = dict(list(scenarios.items())[-1:])
    with tempfile.TemporaryDirectory(prefix="bench-queue-") as name, moto_server() as endpoint:
        folder = Path(name)
        tiny_flux.build(folder / "cache/models--black-forest-labs--FLUX.1-dev/snapshots" / REVISION)
        for number, (title, scenario) in enumerate(scenarios.items()):
            aws = Aws(endpoint, f"bench-{number}")
            environment = serve_environment(aws, folder / "cache", folder / "state")
            print(f"\n{title}\n{run_scenario(aws, environment, folder / str(number), scenario)}", flush=True)


if __name__ == "__main__":
    main()
