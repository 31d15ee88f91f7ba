"""Figures of serving a queue: jobs a second, recovery from kill -9, how often a job was drawn and announced.

    .venv/bin/python tests/bench/bench_queue.py                # calm with one worker and two, then the storm
    .venv/bin/python tests/bench/bench_queue.py --seed 7       # the same messages, faults and kills again

Real workers with the tiny FLUX against moto: AWS's own times are not in the figures, the model's hardly. What
is printed was held against what was asked for first: everything drawn, announced, and nothing drawn in vain.
In the storm one worker more is sick, by the seed, and some jobs must end among the dead letters.
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
from tests.worker.stress.fleet import Sickness
from tests.worker.stress.scenario import Storm, prove


def main() -> None:
    """Serve the same jobs three times and print a table each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--kills", type=int, default=6, help="in the storm")
    parser.add_argument("--dead", type=int, default=3, help="forbidden jobs in the storm, and as much poison")
    parser.add_argument("--storm", action="store_true", help="the storm alone")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    calm = {"seed": options.seed, "jobs": options.jobs, "kills": 0, "one_in": None}
    storms = {
        "AWS is well, one worker": Storm(**calm, workers=1),
        "AWS is well, two workers": Storm(**calm),
        "one call in five fails, workers are killed, one more is sick": Storm(
            options.seed,
            options.jobs,
            options.kills,
            sick=(Sickness.choose(options.seed),),
            forbidden=options.dead,
            poison=options.dead,
        ),
    }
    if options.storm:
        storms = dict(list(storms.items())[-1:])
    with tempfile.TemporaryDirectory(prefix="bench-queue-") as name, moto_server() as endpoint:
        folder = Path(name)
        tiny_flux.build(folder / "cache/models--black-forest-labs--FLUX.1-dev/snapshots" / REVISION)
        for number, (title, storm) in enumerate(storms.items()):
            aws = Aws(endpoint, f"bench-{number}")
            environment = serve_environment(aws, folder / "cache", folder / "state")
            print(f"\n{title}\n{prove(aws, environment, folder / str(number), storm)}", flush=True)


if __name__ == "__main__":
    main()
