"""The downloader's errors never show a secret."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from types import ModuleType

import pytest

from .downloads import LARGEST, ROOT, TOKEN, Downloads, HubProcess


@pytest.fixture
def redaction(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "provision")
    found = importlib.import_module("prefetch.redaction")
    monkeypatch.setattr(found, "_forms", set())
    return found


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        pytest.param(f"{TOKEN}\n", "a line break before or after it", id="line-break"),
        pytest.param(f"{TOKEN} ", "a blank before or after it", id="blank"),
        pytest.param(f"{TOKEN[:9]} {TOKEN[9:]}", "a blank inside", id="blank-inside"),
        pytest.param(f"{TOKEN}\x07", "a control character", id="bell"),
        pytest.param(f"{TOKEN}\x00", "a control character", id="nul"),
        pytest.param(f"{TOKEN}\u200b", "a character outside ASCII", id="zero-width"),
        pytest.param(f"{TOKEN}\udcff", "a character outside ASCII", id="surrogate"),
    ],
)
def test_a_token_with_a_mistake_is_refused_before_a_request(
    downloads: Downloads, hub: HubProcess, token: str, kind: str
) -> None:
    run = dataclasses.replace(downloads, token=token).run()
    assert run.code == 1
    assert [entry["event"] for entry in run.events] == ["refused"]
    refused = run.last("refused")
    assert (refused["kind"], kind in refused["reason"]) == ("token-malformed", True), refused
    assert "canary" not in f"{run.events}{run.errors}"
    assert hub.remote.requests() == []


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://127.0.0.1", "http://x\x7f.org"], ids=ascii)
def test_a_request_that_cannot_be_made_is_not_tried_again(downloads: Downloads, endpoint: str) -> None:
    run = dataclasses.replace(downloads, hub=endpoint).run()
    assert run.all("retry") == []
    refused = run.last("refused")
    assert refused["kind"] == "request-malformed", refused
    assert "HF_ENDPOINT" in refused["hint"]
    assert "Traceback" not in run.errors


def test_a_header_that_the_guard_let_through_is_not_tried_again_and_not_shown(
    downloads: Downloads, hub: HubProcess
) -> None:
    """The guard is taken out: the library's own error, which holds the header, is told by its name alone."""
    program = (
        "import runpy, sys\n"
        "from prefetch.wanted import Secrets\n"
        "Secrets.refuse_malformed = lambda self: None\n"
        "runpy.run_module('prefetch', run_name='__main__', alter_sys=True)\n"
    )
    done = process(downloads, program, TOKEN + "\n")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [entry["event"] for entry in events] == ["refused"]
    assert events[0]["kind"] == "request-malformed"
    assert "LocalProtocolError" in events[0]["reason"]
    assert "canary" not in done.stdout + done.stderr


def test_a_traceback_holds_no_secret(downloads: Downloads) -> None:
    program = (
        "import runpy\n"
        "import prefetch.download\n"
        "def fail(wanted, secrets, patience):\n"
        "    raise RuntimeError(f'Illegal header value {secrets.token!r} for {secrets.mirror}')\n"
        "prefetch.download.download = fail\n"
        "runpy.run_module('prefetch', run_name='__main__', alter_sys=True)\n"
    )
    downloads.mirror = {"name": "m", "get": {"a": "https://b/k?X-Amz-Signature=canary123&x=1"}, "put": {}}
    done = process(downloads, program, "other-canary-shape")
    assert done.returncode == 1
    assert "RuntimeError" in done.stderr
    assert "canary" not in done.stdout + done.stderr


def test_a_thread_dies_without_telling(redaction: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    redaction.conceal("canary of a thread\n")
    redaction.print_error(RuntimeError(f"{b'canary of a thread' + bytes(1)!r} canary%20of%20a%20thread"))
    shown = capsys.readouterr().err
    assert "RuntimeError" in shown
    assert "canary" not in shown


def test_a_token_that_is_no_text_is_refused(downloads: Downloads) -> None:
    program = "import runpy; runpy.run_module('prefetch', run_name='__main__', alter_sys=True)"
    done = process(downloads, program, [TOKEN])
    assert done.returncode == 2
    assert "canary" not in done.stdout + done.stderr


def test_a_mirrors_address_that_no_request_goes_to_leaves_the_hub(
    downloads: Downloads, hub: HubProcess
) -> None:
    sha256 = downloads.files[LARGEST]["sha256"]
    downloads.mirror = {"name": "s3://m", "get": {sha256: "http://x\x7f/?X-Amz-Signature=canary9"}, "put": {}}
    run = downloads.run()
    assert run.code == 0, run
    assert "no request can be made (InvalidURL)" in run.last("mirror")["why"]
    assert "canary" not in f"{run.events}{run.errors}"


def test_a_mirror_that_no_request_goes_to_is_brought_nothing(downloads: Downloads, hub: HubProcess) -> None:
    sha256 = downloads.files[LARGEST]["sha256"]
    part = {"part_bytes": 1 << 28, "parts": ["http://x\x7f/?X-Amz-Signature=canary9"]}
    downloads.mirror = {"name": "s3://m", "get": {}, "put": {sha256: part}}
    run = downloads.run()
    assert run.code == 0, run
    assert "did not take it: no request can be made (InvalidURL)" in run.last("mirror")["why"]
    assert "canary" not in f"{run.events}{run.errors}"


def process(downloads: Downloads, program: str, token: object) -> subprocess.CompletedProcess[str]:
    """The downloader with something changed in it."""
    wanted = downloads.write_wanted()
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[1:] = [{str(wanted)!r}]\n{program}"],
        cwd=ROOT / "provision",
        env={"PATH": os.environ["PATH"], "HF_ENDPOINT": downloads.hub, "no_proxy": "*"},
        input=json.dumps({"token": token, "mirror": downloads.mirror}),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
