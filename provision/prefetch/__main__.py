"""The command: read what is wanted, download it, say how it went."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from prefetch.events import say
from prefetch.failures import Refused, of_the_disk
from prefetch.patience import Patience
from prefetch.redaction import print_error, redact, watch_threads
from prefetch.wanted import Secrets, Wanted

# huggingface_hub and hf_xet read these when they are imported. Xet's own buffers would take gigabytes: the
# builder's memory belongs to what is installed beside the download.
SETTINGS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_OFFLINE": "0",
    "HF_XET_HIGH_PERFORMANCE": "1",
    "HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_SIZE": "64mb",
    "HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_PERFILE_SIZE": "16mb",
    "HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_LIMIT": "64mb",
    "HF_XET_RECONSTRUCTION_MIN_RECONSTRUCTION_FETCH_SIZE": "64mb",
    "HF_XET_RECONSTRUCTION_MIN_PREFETCH_BUFFER": "64mb",
    "HF_XET_CLIENT_CONNECT_TIMEOUT": "10s",
    "HF_XET_CLIENT_RETRY_MAX_DURATION": "60s",
}


def main() -> int:
    """0 when all is there, 1 when it was refused, 2 when nobody could know what is wanted."""
    parser = argparse.ArgumentParser(prog="prefetch", description="Download the model into the cache.")
    parser.add_argument("wanted", type=Path, help="weights.json")
    parser.add_argument("--stall", type=float, default=Patience.stall, help="seconds without a byte")
    parser.add_argument("--tries", type=int, default=Patience.tries, help="tries in a row that bring nothing")
    parser.add_argument("--first-wait", type=float, default=Patience.first_wait, help="seconds")
    options = parser.parse_args()
    patience = Patience(options.stall, options.tries, options.first_wait)
    try:
        secrets, wanted = Secrets.load(sys.stdin.read()), Wanted.load(options.wanted)
    except (ValueError, KeyError) as error:
        print(redact(f"prefetch: {error}"), file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="prefetch-") as scratch:
        os.environ |= {**SETTINGS, "HF_XET_CACHE": scratch, "HF_XET_CLIENT_READ_TIMEOUT": f"{options.stall}s"}
        try:
            secrets.refuse_malformed()
            from prefetch.download import download

            download(wanted, secrets, patience)
        except Refused as refused:
            return _refuse(refused)
        except OSError as error:  # what the network does never comes as one
            return _refuse(of_the_disk(error, wanted.cache))
    return 0


def _refuse(refused: Refused) -> int:
    status, reason = refused.status, refused.reason
    say("refused", status=status, reason=reason, kind=refused.kind, hint=refused.hint)
    return 1


if __name__ == "__main__":
    watch_threads()
    try:
        code = main()
    except Exception as error:
        print_error(error)
        code = 1
    # A thread that still waits for a byte must not hold the process back; what is written can be continued.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
