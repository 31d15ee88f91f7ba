"""A bake whose controller is killed during the download."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from bake import localcloud
from bake.localcloud import RemoteHub, Settings, over_socket
from bake.localcloud.lifecycle.sweep import leftovers

from .bakes import start

pytestmark = pytest.mark.root


def until(process: subprocess.Popen[str], **wanted: Any) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if all(event.get(key) == value for key, value in wanted.items()):
            return
    pytest.fail(f"{wanted} never came: {process.communicate()[1]}")


def slow(own: Settings) -> None:
    """Half a minute a file, or until `mend`: a kill may come late, and what is left be looked at late."""
    hub_of(own).plant("transformer/*", "slow", rate=2_000, times=None)


def hub_of(own: Settings) -> RemoteHub:
    return RemoteHub(over_socket(own))


def await_whole(cache: Path) -> None:
    """The builder downloads on by itself; a snapshot is seen in its cache only with every byte behind it."""
    deadline = time.monotonic() + 600
    while not list(cache.glob("snapshots/*")):
        assert time.monotonic() < deadline, "the download does not go on"
        time.sleep(0.1)
    (snapshot,) = cache.glob("snapshots/*")
    assert (snapshot / "model_index.json").exists()
    assert not list(cache.glob("blobs/*.incomplete"))
    large = [blob for blob in cache.glob("blobs/*") if len(blob.name) == 64]  # the name is its sha256
    assert len(large) > 3
    assert [blob for blob in large if hashlib.sha256(blob.read_bytes()).hexdigest() != blob.name] == []


def test_nothing_is_left_of_a_killed_bake_and_the_next_one_is_well(own: Settings, tmp_path: Path) -> None:
    process = start(tmp_path)
    until(process, event="step_started", step="connect")
    slow(own)
    until(process, event="transfer")
    process.kill()
    process.communicate()
    time.sleep(1)
    localcloud.down()
    assert leftovers(own) == []
    assert list(own.instances.iterdir()) == []

    again = start(tmp_path)
    until(again, event="step_ended", step="connect", outcome="done")
    again.send_signal(signal.SIGTERM)
    _, errors = again.communicate(timeout=900)
    assert again.returncode == 130, errors
    assert leftovers(own) == []


def test_the_builder_of_a_killed_bake_ends_its_download_whole(own: Settings, tmp_path: Path) -> None:
    localcloud.up()  # it stays when who uses it is killed, as AWS does
    process = start(tmp_path)
    until(process, event="step_started", step="connect")
    slow(own)
    until(process, event="transfer")
    process.kill()
    process.communicate()
    (root,) = own.instances.glob("*/root")  # the builder's disk, as the host has it mounted
    (cache,) = root.glob("home/ubuntu/.cache/huggingface/hub/models--*")
    assert list(cache.glob("blobs/*.incomplete"))
    assert not (cache / "snapshots").exists()
    hub_of(own).mend()
    await_whole(cache)
