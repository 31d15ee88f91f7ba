"""`bake lock` as a process, against a Hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from werkzeug.serving import make_server

from bake.agreement import lockfile
from bake.localcloud import Hub
from bake.localcloud.hub.server import REVISION
from bake.weights import flux

from . import terminal

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]
BAKE = [sys.executable, "-m", "bake.cli"]
TOKEN = "hf_canary_token"
COMPONENTS = {name: ["diffusers", "X"] for name in flux.COMPONENTS}
VAE = "vae/diffusion_pytorch_model.safetensors"
SIZE = "539 B"
FILES = {flux.INDEX: json.dumps(COMPONENTS), VAE: "x" * 300, "vae/config.json": "{}", "ae.safetensors": "y"}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("hub")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    server = make_server("127.0.0.1", 0, Hub(folder, TOKEN), threaded=True)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


class Checkout:
    """A checkout's profiles; of the variables only the token is set."""

    def __init__(self, directory: Path, hub: str) -> None:
        self.directory = directory
        self.token = TOKEN
        self.hub = hub
        (directory / "profiles").mkdir()
        text = (ROOT / "profiles/g6e-ubuntu.yaml").read_text(encoding="utf-8")
        (directory / "profiles/mine.yaml").write_text(text, encoding="utf-8")
        self.lock = directory / "profiles/mine.lock.yaml"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "PYTHONPATH": str(ROOT),
            "HF_ENDPOINT": self.hub,
            "HF_TOKEN": self.token,
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*BAKE, "lock", "--profile", "mine", *arguments],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "hf_" not in f"{done.stdout}{done.stderr}"
        return done

    def inputs(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(self.lock.read_text())["inputs"]
        return found


@pytest.fixture
def checkout(tmp_path: Path, hub: str) -> Checkout:
    return Checkout(tmp_path, hub)


@pytest.fixture
def locked(checkout: Checkout) -> Checkout:
    assert checkout.run().returncode == 0
    return checkout


def test_a_first_lock_is_written_without_a_question(checkout: Checkout) -> None:
    done = checkout.run("--json")
    assert done.returncode == 0, done.stderr
    assert "locked in profiles/mine.lock.yaml: 3 files" in done.stderr
    files = checkout.inputs()["weights.files"]
    assert list(files) == [flux.INDEX, "vae/config.json", VAE]
    assert (files[VAE]["bytes"], len(files[VAE]["sha256"])) == (300, 64)
    assert (files["vae/config.json"]["bytes"], len(files["vae/config.json"]["git_oid"])) == (2, 40)
    outcome = json.loads(done.stdout)
    assert (outcome["written"], outcome["revision"], outcome["files"]) == (True, REVISION, files)


def test_locking_again_writes_nothing(locked: Checkout) -> None:
    before = locked.lock.read_bytes()
    done = locked.run()
    assert done.returncode == 0
    assert "nothing was written" in done.stderr
    assert locked.lock.read_bytes() == before


def test_sizes_alone_are_completed(locked: Checkout) -> None:
    whole = locked.lock.read_bytes()
    held = lockfile.read(locked.lock)
    assert held.weights is not None
    sizes = {VAE: flux.WeightFile(300)}
    lockfile.write(lockfile.LockFile(locked.lock, None, type(held.weights)(flux.REPO, REVISION, sizes)),
                   whole, "profile mine; it belongs into git, beside the profile")  # fmt: skip
    assert "no hashes" in locked.lock.read_text()
    assert locked.run().returncode == 0
    assert locked.lock.read_bytes() == whole


def flip(checkout: Checkout) -> bytes:
    """Lock another hash than the Hub has."""
    text = checkout.lock.read_text()
    sha256 = checkout.inputs()["weights.files"][VAE]["sha256"]
    checkout.lock.write_text(text.replace(sha256, "a" * 64))
    return checkout.lock.read_bytes()


def test_differences_are_shown_and_kept_until_confirmed(locked: Checkout) -> None:
    whole, flipped = locked.lock.read_bytes(), flip(locked)
    done = locked.run()
    assert (done.returncode, locked.lock.read_bytes()) == (3, flipped)
    assert f"{VAE}  300 bytes, aaaaaaaaaaaa  300 bytes, " in done.stderr
    done = locked.run("--update")
    assert (done.returncode, locked.lock.read_bytes()) == (3, flipped)
    assert f"--update --commit {REVISION}" in done.stderr
    assert locked.run("--update", "--commit", "1" * 40).returncode == 3
    done = locked.run("--update", "--commit", REVISION, "--json")
    assert (done.returncode, locked.lock.read_bytes()) == (0, whole)
    assert [one["file"] for one in json.loads(done.stdout)["differences"]] == [VAE]


def test_on_a_terminal_an_update_is_asked_for(locked: Checkout) -> None:
    whole, flipped = locked.lock.read_bytes(), flip(locked)
    command = [*BAKE, "lock", "--profile", "mine", "--update"]
    code, text = terminal.run(command, locked.directory, locked.environment, "n\n")
    assert (code, locked.lock.read_bytes()) == (3, flipped), text
    assert f"Lock 3 files, {SIZE}, of {REVISION[:12]}?" in text
    code, text = terminal.run(command, locked.directory, locked.environment, "y\n")
    assert (code, locked.lock.read_bytes()) == (0, whole), text


def test_a_branch_is_looked_at_and_not_written(checkout: Checkout) -> None:
    done = checkout.run("--revision", "main")
    assert done.returncode == 0, done.stderr
    assert f"main is {REVISION} now: 3 files" in done.stderr
    assert not checkout.lock.exists()
    assert checkout.run("--revision", "no-such-branch").returncode == 2


def test_a_token_that_may_not_download_locks_nothing(checkout: Checkout) -> None:
    checkout.token = "hf_canary_of_somebody_else"
    done = checkout.run()
    assert done.returncode == 2
    assert "accept the licence at https://huggingface.co/black-forest-labs/FLUX.1-dev" in done.stderr
    assert not checkout.lock.exists()


def test_without_a_token_the_variable_is_named(checkout: Checkout) -> None:
    checkout.token = ""
    done = checkout.run()
    assert done.returncode == 2
    assert "the variable HF_TOKEN is not set" in done.stderr
