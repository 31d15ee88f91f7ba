"""How long all checks of a provisioned machine take: at the local cloud's latency, and over a slow network.

    sudo .venv/bin/python tests/bench/bench_checks.py                    # 20 ms there and back
    sudo .venv/bin/python tests/bench/bench_checks.py --milliseconds 80

Figures, not verdicts: machines are noisy. A relay in a process of its own keeps what it forwards for half of
the latency, in both directions, since not every kernel has tc's netem.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from bake import localcloud
from bake.checks import Report
from bake.progress import Tally
from bake.ssh import Login, connect
from tests.checks.builders import Builder, provisioned
from tests.conftest import launch

RUNS = 5
CHUNK = 1 << 16


async def forward(source: asyncio.StreamReader, target: asyncio.StreamWriter, seconds: float) -> None:
    """Pass on what comes, each piece so much later; as on a long wire, many are on their way at once."""
    loop, wire = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()

    async def arrive() -> None:
        data = b" "
        while data:
            when, data = await wire.get()
            await asyncio.sleep(when - loop.time())
            target.write(data)
        target.close()

    arriving = asyncio.create_task(arrive())
    data = b" "
    while data:
        data = await source.read(CHUNK)
        wire.put_nowait((loop.time() + seconds, data))
    await arriving


async def relay(address: str, port: int, seconds: float, told: Connection) -> None:
    """Listen on a free port, which is sent by `told`, and forward connections."""

    async def both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(address, port)
        await asyncio.gather(forward(reader, back, seconds), forward(there, writer, seconds))

    server = await asyncio.start_server(both, "127.0.0.1", 0)
    told.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def run_relay(address: str, port: int, seconds: float, told: Connection) -> None:
    """What the relay's process runs."""
    asyncio.run(relay(address, port, seconds, told))


@contextmanager
def slowly(login: Login, milliseconds: float) -> Iterator[Login]:
    """The same login over a wire with this latency, there and back."""
    here, there = multiprocessing.Pipe()
    given = (login.address, login.port, milliseconds / 2000, there)
    process = multiprocessing.get_context("spawn").Process(target=run_relay, args=given)
    process.start()
    try:
        yield dataclasses.replace(login, address="127.0.0.1", port=here.recv())
    finally:
        process.terminate()
        process.join()


def measure(builder: Builder, login: Login) -> tuple[list[Report], float]:
    """Run all checks a few times over a session of their own; also SSH commands a run."""
    tally = Tally()
    with connect(login, tally=tally) as session:
        over = dataclasses.replace(builder, session=session)
        reports = [over.check() for _ in range(RUNS)]
    return reports, tally.ssh_commands / RUNS


def show(what: str, reports: list[Report], commands: float) -> None:
    """Print one line."""
    seconds = [report.seconds for report in reports]
    print(
        f"{what}: {statistics.median(seconds):.1f} s, {min(seconds):.1f} to {max(seconds):.1f} s of {RUNS}"
        f" runs; {len(reports[0].checks)} checks, {len(reports[0].red)} red, {commands:.0f} SSH commands"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--milliseconds", type=float, default=20)
    milliseconds = parser.parse_args().milliseconds
    with (
        tempfile.TemporaryDirectory() as folder,
        localcloud.running(print) as cloud,
        launch(cloud, Path(folder)) as machine,
    ):
        builder = provisioned(machine)
        login = machine.session.login
        show("all checks on the local cloud", *measure(builder, login))
        with slowly(login, milliseconds) as far:
            show(f"all checks with {milliseconds:g} ms of latency", *measure(builder, far))


if __name__ == "__main__":
    main()
