"""A light stand-in for SQS, S3 and EventBridge, so that a bench measures the worker and not moto.

    .venv/bin/python -m tests.bench.stand_in --latency-ms 20

Everything is in memory and answered by one thread, in less than a millisecond of CPU a call. It prints its
port and ends with its standard input. It knows the operations that the worker and its tests use, and no more;
tests/worker/aws/test_stand_in.py holds it against moto. `GET /figures` tells its calls and its CPU seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from .events import Events
from .http import Connection, Figures, Handler, Reply, Request
from .s3 import S3
from .sqs import Sqs

USUAL_MS = {"sqs": 10.0, "s3": 20.0, "s3 PUT": 40.0, "events": 20.0}
"""About what AWS takes from within its region; by service, S3's writes apart."""


class StandIn:
    """Finds the service of each request, and delays its answer."""

    def __init__(self, latencies: dict[str, float]) -> None:
        self.figures = Figures()
        sqs = Sqs()
        self._services: dict[str, Handler] = {
            "sqs": sqs.handle,
            "s3": S3().handle,
            "events": Events(sqs).handle,
        }
        self._seconds = {name: milliseconds / 1000 for name, milliseconds in latencies.items()}

    def handle(self, request: Request, reply: Reply) -> str:
        """Answer a call."""
        service = request.service
        if service not in self._services:
            reply.send((200, {}, json.dumps(self.figures.as_json()).encode()))
            return "figures"
        default = self._seconds.get(service, 0.0)
        reply.delay = self._seconds.get(f"{service} {request.method}", default)
        return self._services[service](request, reply)


def latencies(text: str) -> dict[str, float]:
    """`usual`, or so many milliseconds for every call."""
    return USUAL_MS if text == "usual" else dict.fromkeys(("sqs", "s3", "events"), float(text))


async def serve(stand_in: StandIn) -> None:
    """Serve on loopback until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(stand_in.handle, stand_in.figures), "127.0.0.1", 0, backlog=128
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Parse the options and serve."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--latency-ms", type=latencies, default={}, help="milliseconds a call, or: usual", metavar="N|usual"
    )
    asyncio.run(serve(StandIn(parser.parse_args().latency_ms)))


if __name__ == "__main__":
    main()
