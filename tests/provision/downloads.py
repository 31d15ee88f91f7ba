"""Start the downloader as a process, and its Hub as another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bake.localcloud import RemoteHub
from bake.localcloud.hub.server import REPO, REVISION, repository
from bake.localcloud.network.control import over_http

ROOT = Path(__file__).parents[2]
TOKEN = "hf_" + "canary" * 5
FOLDER = "models--black-forest-labs--FLUX.1-dev"

# FLUX.1-dev's layout; two files have the same content, as its tokenizers' do, and one is empty.
SIZES = {
    "transformer/diffusion_pytorch_model-00001-of-00003.safetensors": 1_300_000,
    "transformer/diffusion_pytorch_model-00002-of-00003.safetensors": 1_200_000,
    "transformer/diffusion_pytorch_model-00003-of-00003.safetensors": 500_000,
    "text_encoder_2/model-00001-of-00002.safetensors": 600_000,
    "vae/diffusion_pytorch_model.safetensors": 20_000,
    "tokenizer_2/tokenizer.json": 2_000,
    "model_index.json": 500,
}
LARGEST = next(iter(SIZES))


def make_repository(folder: Path, sizes: Mapping[str, int] = SIZES) -> None:
    """Write files of random bytes."""
    for name, size in sizes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as writer:
            for start in range(0, size, 1 << 24):
                writer.write(os.urandom(min(1 << 24, size - start)))
    for name, content in (("tokenizer", "{}"), ("text_encoder", "{}"), ("scheduler", "")):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text(content)


def lock_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The files as a lock holds them: sha256 of large ones, git's blob id of small ones."""
    return {
        file.path: {"bytes": file.size, **({"sha256": file.sha256} if file.sha256 else {"git_oid": file.oid})}
        for file in repository(folder).values()
    }


def disk_under(path: Path) -> str:
    """The kernel's name of the disk that a test's folder lies on, which stands in for EBS."""
    source = subprocess.run(
        ["findmnt", "--noheadings", "--output", "SOURCE", "--target", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(source.stdout.strip()).name


@dataclass
class HubProcess:
    """The local Hub in a process of its own."""

    folder: Path
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("serve_hub.py")), str(self.folder), TOKEN]
        self.process = subprocess.Popen(
            [*command, *self.options],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_XET_CACHE": str(self.folder.parent / "log")},
        )
        assert self.process.stdout is not None
        addresses = self.process.stdout.readline().split()
        assert addresses, "the Hub did not start"
        self.url, control = addresses
        self.remote = RemoteHub(over_http(control))

    def fault(self, path: str, kind: str, **more: Any) -> None:
        self.remote.plant(path, kind, **more)

    def forget(self) -> None:
        """No faults, nothing counted."""
        self.remote.mend()
        self.remote.forget()

    def sent(self) -> int:
        return sum(self.remote.sent().values())

    def ranges(self, path: str) -> list[str]:
        """The ranges of a file that were asked for, in order; empty text for the whole file."""
        requests = self.remote.requests()
        return [entry["range"] for entry in requests if entry["path"].endswith(f"/{REVISION}/{path}")]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Run:
    """How a download went."""

    code: int
    events: list[dict[str, Any]]
    errors: str
    pid: int

    def last(self, event: str) -> dict[str, Any]:
        """The last event of a kind; what there was instead, if there was none."""
        found = [entry for entry in self.events if entry["event"] == event]
        assert found, f"no {event}: {self.events}\n{self.errors}"
        return found[-1]

    def all(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.events if entry["event"] == event]


PATIENT = ("--stall", "300", "--first-wait", "0.05", "--tries", "4")
"""Takes no pause of a busy host for a stall: what is counted is then what was meant to go wrong, alone."""
HASTY = ("--stall", "5", "--first-wait", "0.05", "--tries", "20")
"""For a stall that is meant."""


@dataclass
class Downloads:
    """Downloads of one repository into one cache."""

    hub: str
    files: dict[str, dict[str, Any]]
    cache: Path
    stand_in: str | None = None  # None: the disk under the cache, whatever it is
    reserve: int = 0
    token: str = TOKEN
    mirror: dict[str, Any] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = PATIENT

    def write_wanted(self) -> Path:
        """Write weights.json."""
        wanted = self.cache.parent / f"{self.cache.name}.json"
        stand_in = self.stand_in or disk_under(self.cache.parent)
        volume = {"id": None, "stand_in": stand_in}
        content = {"repo": REPO, "revision": REVISION, "cache": str(self.cache), "files": self.files}
        wanted.write_text(json.dumps({**content, "volume": volume, "reserve": self.reserve}))
        return wanted

    def start(self) -> subprocess.Popen[str]:
        """Start the downloader as the builder does, its documents given."""
        process = subprocess.Popen(
            [sys.executable, "-m", "prefetch", str(self.write_wanted()), *self.options],
            cwd=ROOT / "provision",
            env={"PATH": os.environ["PATH"], "HF_ENDPOINT": self.hub, "no_proxy": "*", **self.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps({"token": self.token, "mirror": self.mirror}))
        process.stdin.close()
        process.stdin = None
        return process

    def run(self) -> Run:
        """Run it to its end."""
        return self.finish(self.start())

    def finish(self, process: subprocess.Popen[str]) -> Run:
        """Wait for the end of one that was started."""
        output, errors = process.communicate(timeout=600)
        events = [json.loads(line) for line in output.splitlines()]
        return Run(process.returncode, events, errors, process.pid)

    @property
    def folder(self) -> Path:
        return self.cache / FOLDER

    @property
    def snapshot(self) -> Path:
        return self.folder / "snapshots" / REVISION

    @property
    def bytes(self) -> int:
        """Bytes of all contents, each once."""
        return sum({str(entry): entry["bytes"] for entry in self.files.values()}.values())

    def blob(self, path: str) -> Path:
        entry = self.files[path]
        return self.folder / "blobs" / (entry.get("sha256") or entry["git_oid"])
