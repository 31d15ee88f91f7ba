"""Where secrets lie on the machine. Says where, never what.

Input: `token` (or null), `cache` (searched even where it is a volume of its own), and `seconds` (or null)
after which the search ends where it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

SEARCHED = ("/etc", "/home", "/root", "/opt", "/var", "/run", "/tmp", "/srv", "/usr/local", "/boot")  # noqa: S108
# Weights and shared libraries are larger, and nobody hides a token in one.
LARGEST_FILE = 64 << 20
LARGEST_TEXT = 1 << 20
JOURNAL_CHUNK = 1 << 20
HF_TOKEN_FILES = ("/huggingface/token", "/huggingface/stored_tokens", "/.huggingface/token")
# Each kind with words that a file must hold at all: looking for them is far cheaper than for the shape.
SHAPES = {
    "hf_tokens": ((b"hf_",), re.compile(rb"\bhf_[A-Za-z0-9]{34,}\b")),
    # Documentation's key ids end in EXAMPLE.
    "aws_keys": (
        (b"AKIA", b"ASIA"),
        re.compile(rb"\b(?:AKIA|ASIA)(?![A-Z0-9]{9}EXAMPLE)[A-Z0-9]{16}\b"),
    ),
    "private_keys": ((b"PRIVATE KEY",), re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")),
}
# cloud-init keeps what the metadata service told this one instance: its passing role credentials, and its
# user data with the host key of this run. The seal destroys that; the token is searched for in it as well.
CLOUD_INIT = ("/var/lib/cloud/", "/run/cloud-init/")
# A machine's own identity, made anew by each: OpenSSH's host keys and Debian's self-signed example.
OWN_KEYS = re.compile(r"/etc/ssh/ssh_host_\w+_key|/etc/ssl/private/ssl-cert-snakeoil\.key")
# Third-party code quotes keys in its tests and examples; uv's cache holds the same packages.
PACKAGES = ("/site-packages/", "/dist-packages/", "/usr/local/", "/opt/bake/cache/uv/")


def files_below(top: str) -> Iterator[os.DirEntry[str]]:
    """Every regular file below `top` on the same file system, each once; links are not followed."""
    device = Path(top).lstat().st_dev
    waiting, seen = [top], set()
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue  # gone meanwhile
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and entry.inode() not in seen:
                seen.add(entry.inode())  # uv's cache holds second names of what is installed
                yield entry
            elif entry.is_dir(follow_symlinks=False) and _device(entry) == device:
                waiting.append(entry.path)


def _device(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_dev
    except OSError:
        return -1  # gone meanwhile


def content(path: Path, largest: int = LARGEST_FILE) -> bytes:
    """The file's bytes; nothing when it is too large or gone meanwhile."""
    try:
        return path.read_bytes() if path.stat().st_size <= largest else b""
    except OSError:
        return b""


def shapes_in(path: str, data: bytes) -> list[str]:
    """Which kinds of secret the file seems to hold."""
    if len(data) > LARGEST_TEXT or path.startswith(CLOUD_INIT) or any(part in path for part in PACKAGES):
        return []
    kinds = [
        kind
        for kind, (words, shape) in SHAPES.items()
        if any(word in data for word in words) and shape.search(data)
    ]
    return [kind for kind in kinds if not (kind == "private_keys" and OWN_KEYS.fullmatch(path))]


def processes(token: bytes) -> list[str]:
    """Processes with the token among their arguments or in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        name = content(process / "comm").decode().strip()
        for part in ("environ", "cmdline"):
            if token in content(process / part):
                found.append(f"{part} of process {process.name} ({name})")
    return found


def in_journal(token: bytes) -> bool:
    """Search the journal with all fields, command lines among them; compressed fields come out as text."""
    command = ["journalctl", "--quiet", "--no-pager", "--all", "--output=export"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as journal:
        assert journal.stdout is not None
        kept, found = b"", False
        while chunk := journal.stdout.read(JOURNAL_CHUNK):
            found = found or token in kept + chunk
            kept = chunk[-len(token) :]
    return found


def identity(path: str, data: bytes) -> str:
    """Mode, owner and the hash of the content."""
    known = os.lstat(path)
    return f"{known.st_mode & 0o7777:o} {known.st_uid}:{known.st_gid} {hashlib.sha256(data).hexdigest()}"


def search(tops: list[str], token: bytes | None, seconds: float | None) -> dict[str, object]:
    """Look through all files; the kinds of SHAPES have what a file is known by, and when it was changed."""
    kinds: dict[str, dict[str, str]] = {kind: {} for kind in (*SHAPES, "hf_token_files")}
    changed: dict[str, float] = {}
    with_token, searched, end = [], 0, time.monotonic() + (seconds or float("inf"))
    largest = LARGEST_FILE if token else LARGEST_TEXT
    for path in (entry.path for top in tops for entry in files_below(top)):
        if time.monotonic() > end:
            return {**kinds, "changed": changed, "searched": searched, "unfinished": list(kinds)}
        data = content(Path(path), largest)
        searched += 1
        for kind in shapes_in(path, data) + (["hf_token_files"] if path.endswith(HF_TOKEN_FILES) else []):
            kinds[kind][path] = identity(path, data)
            changed[path] = os.lstat(path).st_ctime
        if token and token in data:
            with_token.append(path)
    return {**kinds, "changed": changed, "searched": searched, "token_files": with_token, "unfinished": []}


def main() -> None:
    """Print the facts."""
    given = json.load(sys.stdin)
    token = given["token"].encode() if given["token"] else None
    tops = [top for top in dict.fromkeys([*SEARCHED, given["cache"]]) if Path(top).is_dir()]
    facts = search(tops, token, given["seconds"])
    facts["token_processes"] = processes(token) if token else []
    facts["token_in_journal"] = in_journal(token) if token else False
    print(json.dumps(facts))


main()
