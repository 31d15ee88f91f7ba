"""Write python.json: the Python that an image gets where its base has none of the right version.

Version, address and sha256 are those of uv's own list, in uv's own form. The list is taken from the sources
of the uv that tools.txt pins, whose hash is there, too. What is locked stays as long as that uv knows it;
`--upgrade` takes the newest. `make lock` runs this.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sys
import tarfile
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

LOCKS = Path(__file__).parent
LOCK = LOCKS / "python.json"
MINOR = (3, 11)  # what the worker's lock was made for
INDEX = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple"
PAGE = ""  # what an index calls the page of a package; a test's is a file
LIST = re.compile(r"[^/]+/crates/[^/]+/download-metadata\.json")


def pinned_uv() -> tuple[str, set[str]]:
    """The version of uv in tools.txt, and the hashes of all its files."""
    text = (LOCKS / "tools.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    [(version, hashes)] = re.findall(r"^uv==(\S+)(.*)$", text, re.MULTILINE)
    return version, set(re.findall(r"sha256:([0-9a-f]{64})", hashes))


def sources(version: str, hashes: set[str]) -> bytes:
    """uv's source distribution, as the index has it and the lock knows it."""
    page = f"{INDEX.rstrip('/')}/uv/{PAGE}"
    asked = urllib.request.Request(page, headers={"Accept": "application/vnd.pypi.simple.v1+json"})  # noqa: S310
    with urllib.request.urlopen(asked) as answer:  # noqa: S310
        files = json.load(answer)["files"]
    [url] = [urljoin(page, file["url"]) for file in files if file["filename"] == f"uv-{version}.tar.gz"]
    with urllib.request.urlopen(url) as answer:  # noqa: S310
        content: bytes = answer.read()
    if hashlib.sha256(content).hexdigest() not in hashes:
        raise SystemExit(f"{url} is not what tools.txt has")
    return content


def listed(content: bytes) -> dict[str, dict[str, Any]]:
    """uv's list of Pythons, reduced to those that could be locked."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for entry in tar:
            if LIST.fullmatch(entry.name):
                file = tar.extractfile(entry)
                assert file is not None
                found = json.load(file)
                break
        else:
            raise SystemExit("uv's sources have no list of Pythons where it is looked for")
    return {name: one for name, one in found.items() if _fits(name, one)}


def _fits(name: str, one: dict[str, Any]) -> bool:
    key = f"cpython-{MINOR[0]}.{MINOR[1]}.{one['patch']}-linux-x86_64-gnu"
    return name == key and not one["prerelease"] and one["sha256"] and "install_only_stripped" in one["url"]


def main() -> None:
    found = listed(sources(*pinned_uv()))
    locked = set(json.loads(LOCK.read_text(encoding="utf-8"))) if LOCK.exists() else set()
    kept = locked & set(found) if "--upgrade" not in sys.argv else set()
    name = kept.pop() if kept else max(found, key=lambda name: int(found[name]["patch"]))
    LOCK.write_text(json.dumps({name: found[name]}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
