"""How long machines of a local cloud take from RunInstances to a command over SSH: one, and twenty at once.

Needs root. Prints seconds for the first and the last of them.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from bake.localcloud.lifecycle import cloud
from bake.ssh import connect
from tests.localcloud.conftest import Account

COUNTS = (1, 20)


def measure(account: Account, count: int) -> list[float]:
    """Seconds until each of `count` machines answers, in ascending order."""
    started = time.monotonic()
    machines = [account.launch() for _ in range(count)]
    took: list[float] = []

    def reach(machine: Any) -> None:
        with connect(machine.login) as session:
            session.run("true")
        took.append(time.monotonic() - started)

    threads = [threading.Thread(target=reach, args=(machine,)) for machine in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for machine in machines:
        account.terminate(machine.id)
    return sorted(took)


def main() -> None:
    with cloud.running(print) as up:
        account = Account(up)
        for count in COUNTS:
            took = measure(account, count)
            print(f"{len(took)} of {count} machines: first {took[0]:.1f} s, last {took[-1]:.1f} s")


if __name__ == "__main__":
    main()
