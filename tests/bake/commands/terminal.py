"""Run a command on a pseudo-terminal and type an answer when it asks."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path


def run(command: list[str], directory: Path, environment: Mapping[str, str], answer: str) -> tuple[int, str]:
    """Exit code and all that the terminal showed; `answer` is typed once there is a question."""
    mine, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=dict(environment),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen, deadline = b"", time.monotonic() + 300
    while time.monotonic() < deadline:
        if not select.select([mine], [], [], 1)[0]:
            continue
        try:
            part = os.read(mine, 65536)
        except OSError:  # the other end was closed
            break
        if not part:
            break
        seen += part
        if answer and b"[y/N]" in seen:
            os.write(mine, answer.encode())
            answer = ""
    os.close(mine)
    return process.wait(timeout=300), seen.decode().replace("\r\n", "\n")
