"""The command: read the wanted files, download them, report the result."""

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

# huggingface_hub and hf_xet read these when they are imported. By default Xet's
# buffers take gigabytes, which provisioning needs meanwhile.
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
    """Return 0 if all files are there, 1 if the download was refused, 2 for unreadable input."""
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
        except OSError as error:  # never an error of the network
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
    # Threads that wait for the network must not delay the exit; written files can be resumed.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
