"""Downloads the model's files into the Hugging Face cache; runs on the builder, beside provisioning.

The token is the first line of stdin: it never stands in an argument, the environment or a file. Progress
and the result are JSON lines on stdout. Only what diffusers loads is fetched: the components that
`model_index.json` names, not the single-file checkpoints beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import threading
import time
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def wanted_files(repo: str, revision: str, cache: str, token: str) -> dict[str, int]:
    """The files that `from_pretrained` reads, with their sizes in bytes."""
    index = json.loads(
        Path(
            hf_hub_download(repo, "model_index.json", revision=revision, cache_dir=cache, token=token)
        ).read_text()
    )
    components = {name for name, spec in index.items() if isinstance(spec, list) and all(spec)}
    info = HfApi(token=token).model_info(repo, revision=revision, files_metadata=True)
    return {
        file.rfilename: file.size or 0
        for file in info.siblings or []
        if file.rfilename == "model_index.json" or file.rfilename.split("/")[0] in components
    }


def stored_bytes(cache: Path) -> int:
    """Bytes on the disk so far, unfinished files included (sparse ones count what they hold)."""
    total = 0
    for file in cache.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # renamed from .incomplete to its blob's name meanwhile
            total += file.lstat().st_blocks * 512
    return total


def follow(cache: Path, total: int, done: threading.Event) -> None:
    while not done.wait(0.5):
        say(event="progress", done=min(stored_bytes(cache), total), total=total)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repo", required=True)
    parser.add_argument("--revision", required=True)
    parser.add_argument("--cache", required=True)
    options = parser.parse_args()
    token = sys.stdin.readline().strip()
    started = time.monotonic()
    try:
        files = wanted_files(options.repo, options.revision, options.cache, token)
        total = sum(files.values())
        done = threading.Event()
        follower = threading.Thread(target=follow, args=(Path(options.cache), total, done), daemon=True)
        follower.start()
        folder = snapshot_download(
            options.repo,
            revision=options.revision,
            cache_dir=options.cache,
            token=token,
            allow_patterns=list(files),
            max_workers=8,
        )
        done.set()
        follower.join()
        # The locks are only for downloads side by side; on the image they would be leftovers.
        shutil.rmtree(Path(options.cache) / ".locks", ignore_errors=True)
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        say(event="refused", status=status, reason=str(error).splitlines()[0])
        return 1
    say(
        event="done",
        files=files,
        bytes=total,
        folder=folder,
        seconds=round(time.monotonic() - started, 2),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
