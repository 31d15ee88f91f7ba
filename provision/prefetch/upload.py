"""Upload files that are on the builder to a mirror that lacks them: python -m prefetch.upload FOLDER < INPUT

INPUT is one JSON document: `files`, each by its path in FOLDER with its bytes and sha256, and `mirror`, whose
signed URLs must not be on a disk. Tells what was uploaded, and what was not and why, as JSON lines on stdout.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prefetch.events import say
from prefetch.mirror import Mirror
from prefetch.patience import Patience
from prefetch.redaction import print_error, watch_threads
from prefetch.wanted import File

_AT_ONCE = 4


def main() -> int:
    """Return 0; what the mirror does not take is told and has no other consequence."""
    folder, given = Path(sys.argv[1]), json.loads(sys.stdin.read())
    mirror = Mirror(given["mirror"], Patience.stall)
    files = [File(path, one["bytes"], one["sha256"]) for path, one in given["files"].items()]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda file: mirror.keep(file, folder / file.path), filter(mirror.lacks, files)))
    say("done")
    return 0


if __name__ == "__main__":
    watch_threads()
    try:
        code = main()
    except Exception as error:
        print_error(error)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
