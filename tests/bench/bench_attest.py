"""How fast a snapshot is read by the EBS direct APIs of the local cloud, and its digest is computed.

    python -m tests.bench.bench_attest [GIB]

It makes a snapshot with GIB (default 1) of random data on an API in a process of its own, as the local cloud
is one, and reads it with 1, 4 and 16 threads; then it computes the digest of 80 GiB of blocks. No root.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bake.attest.merkle import BLOCK, GIB, Content
from bake.attest.reading import Reading, told
from bake.aws import AccessKey, Aws
from bake.localcloud.settings import SPOT_REGION

THREADS = (1, 4, 16)


def serve(gib: float) -> None:
    """Serve an account with one snapshot until stdin ends."""
    from tests.localcloud.ebs_account import ebs_account

    with tempfile.TemporaryDirectory() as folder, ebs_account(Path(folder)) as account:
        volume = account.volume(Size=max(1, round(gib + 0.5)))
        with account.file(volume).open("r+b") as disk:
            for _ in range(int(gib * GIB / BLOCK)):
                disk.write(os.urandom(BLOCK))
        owner = account.keys.owner
        print(account.url, owner.id, owner.secret, account.snapshot(volume), flush=True)
        sys.stdin.read()


def main(gib: float) -> None:
    """Print the figures."""
    command = [sys.executable, "-m", "tests.bench.bench_attest", "serve", str(gib)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url, name, secret, snapshot = server.stdout.readline().split()
        key = AccessKey(name, secret)
        aws = Aws(region=SPOT_REGION, worker_region=SPOT_REGION, endpoint=url, endpoint_key=key)
        for threads in THREADS:
            cpu, reading = time.process_time(), Reading(aws, snapshot, threads=threads)
            reading.content()
            used = time.process_time() - cpu
            print(f"{threads:>2} threads: {told(reading)}; {used:.1f} s of this process's CPU")
        server.communicate("")
    blocks = {index: hashlib.sha256(index.to_bytes(4, "big")).digest() for index in range(80 * GIB // BLOCK)}
    began = time.monotonic()
    Content(80, blocks).digest()
    print(f"digest of {len(blocks):,} blocks: {time.monotonic() - began:.2f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(float(sys.argv[2]))
    else:
        main(float(sys.argv[1]) if sys.argv[1:] else 1.0)
