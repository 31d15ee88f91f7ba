"""A bucket that holds the disk's weights, on a server of this host that gives so many MB/s in all.

    python bucket.py FOLDER MB/S

serves FOLDER's files as objects, prints its port, and runs until it is terminated. What it sends goes from
the page cache to the socket without passing through Python.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STEP = 128 << 10  # bytes between two looks at the pace
REGION = "eu-north-1"


class Pace:
    """Lets so many bytes a second pass, on all connections together."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self, size: int) -> None:
        """Wait until `size` more bytes may pass."""
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + size / self._rate
        time.sleep(max(0.0, at - now))


class Objects(BaseHTTPRequestHandler):
    """Answers HeadBucket, and GetObject of a range."""

    protocol_version = "HTTP/1.1"
    folder: Path
    pace: Pace

    def do_HEAD(self) -> None:
        """The bucket is there."""
        self.send_response(200)
        self.send_header("x-amz-bucket-region", REGION)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        """Send a range of a file."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        name = self.path.partition("?")[0].rpartition("/")[2]
        with (self.folder / name).open("rb") as file:
            assert asked is not None
            first, last = int(asked[1]), int(asked[2])
            size = (self.folder / name).stat().st_size
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.send_header("Content-Length", str(last - first + 1))
            self.end_headers()
            for start in range(first, last + 1, STEP):
                part = min(STEP, last + 1 - start)
                self.pace.wait(part)
                self.connection.sendfile(file, start, part)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def fill(model: Path, folder: Path, manifest: Path) -> None:
    """Copy a model's weights into the folder of the bucket, and write the manifest of their ranges."""
    from flux_worker.inference.streaming.manifest import Manifest

    folder.mkdir(exist_ok=True)
    digests = {}
    for file in sorted(model.glob("*/*.safetensors")):
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        digests[str(file.relative_to(model))] = digest
        shutil.copy(file, folder / digest)
    Manifest.of(model, digests).write(manifest)


@contextlib.contextmanager
def served(folder: Path, manifest: Path, rate: float) -> Iterator[dict[str, str]]:
    """Serve it at `rate` MB/s; yields the environment of a worker that streams from it."""
    for file in folder.iterdir():
        with file.open("rb") as content:  # into the page cache: it stands for S3, not for this host's disk
            while content.read(1 << 24):
                pass
    command = [sys.executable, __file__, str(folder), str(rate)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield {
            "FLUX_STREAM": "s3://weights",
            "FLUX_STREAM_RANGES": str(manifest),
            "SPOT_AWS_REGION": REGION,
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.stdout.readline().strip()}",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
        }
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Serve until terminated."""
    Objects.folder, Objects.pace = Path(sys.argv[1]), Pace(float(sys.argv[2]) * 1e6)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Objects)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
