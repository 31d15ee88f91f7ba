"""A rehearsal works in an environment that is broken, or that points elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bake.localcloud import LocalCloud

from .bakes import ROOT

pytestmark = pytest.mark.root
BAKE = [sys.executable, "-m", "bake.cli"]


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BAKE, "--profiles", str(ROOT / "profiles"), *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


NOWHERE = "http://127.0.0.1:9"
FAMILIES = {
    "proxies": dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), NOWHERE),
    "a proxy for all": {"ALL_PROXY": "socks5://127.0.0.1:9", "all_proxy": NOWHERE},
    "no proxies of a kind": {"NO_PROXY": "[::1", "HTTP_PROXY": "nonsense"},
    "offline": {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"},
    "another Hub": {"HF_ENDPOINT": NOWHERE, "HF_TOKEN": "hf_wrong", "HUGGING_FACE_HUB_TOKEN": "hf_wrong"},
    "another cache": {"HF_HUB_CACHE": "/proc/nowhere", "HUGGINGFACE_HUB_CACHE": "x", "HF_HOME": "/proc/x"},
    "the Hub's library": {"HF_HUB_ETAG_TIMEOUT": "x", "HF_HUB_DOWNLOAD_TIMEOUT": "x", "HF_DEBUG": "1"},
    "an AWS profile": {"AWS_PROFILE": "nobody", "AWS_DEFAULT_PROFILE": "nobody"},
    "AWS's files": {"AWS_CONFIG_FILE": "/proc/version", "AWS_SHARED_CREDENTIALS_FILE": "/proc/version"},
    "AWS's endpoints": {"AWS_ENDPOINT_URL": NOWHERE, "AWS_ENDPOINT_URL_EC2": "x", "AWS_CA_BUNDLE": "/x"},
    "AWS's regions": {"AWS_DEFAULT_REGION": "x", "AWS_REGION": "x y", "AWS_USE_FIPS_ENDPOINT": "true"},
    "AWS's modes": {
        "AWS_RETRY_MODE": "bogus",
        "AWS_MAX_ATTEMPTS": "x",
        "AWS_DEFAULTS_MODE": "bogus",
        "AWS_STS_REGIONAL_ENDPOINTS": "bogus",
        "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "bogus",
        "AWS_ACCOUNT_ID_ENDPOINT_MODE": "bogus",
    },
    "certificates": {"SSL_CERT_FILE": "/nowhere", "SSL_CERT_DIR": "/nowhere", "SSLKEYLOGFILE": "/nowhere/x"},
    "Python": {"PYTHONWARNINGS": "error", "PYTHONSTARTUP": "/nowhere", "PYTHONIOENCODING": "ascii"},
    "the locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "the shell": {"TMPDIR": "/nowhere", "COLUMNS": "1", "CDPATH": "/", "BASH_ENV": "/nowhere"},
}
EVERYTHING = {name: value for family in FAMILIES.values() for name, value in family.items()}


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param(EVERYTHING, id="everything"),
        *(
            pytest.param(family, id=name.replace(" ", "-"), marks=pytest.mark.long)
            for name, family in FAMILIES.items()
        ),
    ],
)
def test_a_rehearsal_plans_in_any_environment(
    cloud: LocalCloud, tmp_path: Path, environment: dict[str, str]
) -> None:
    done = run(tmp_path, "plan", "--profile", "g6e-ubuntu", "--rehearse", "--json", **environment)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert not [text for text in plan["unchecked"] if "Hub" in text or "token" in text]
    assert plan["cache"] == "/home/ubuntu/.cache/huggingface/hub"


def test_what_a_rehearsal_locks_is_the_local_hubs(cloud: LocalCloud, tmp_path: Path) -> None:
    done = run(tmp_path, "lock", "--profile", "g6e-ubuntu", "--rehearse", **EVERYTHING)
    assert done.returncode == 0, done.stderr
    assert "locked in .bake/rehearsal/g6e-ubuntu.lock.yaml: 21 files" in done.stderr


def test_the_local_cloud_comes_up_in_any_environment(own: object, tmp_path: Path) -> None:
    """Its own process, moto with it, and the clients of `bake local`."""
    up = run(tmp_path, "local", "up", **EVERYTHING)
    assert up.returncode == 0, up.stderr
    assert "the local cloud is up" in up.stdout
    refused = run(tmp_path, "local", "boot", "ami-0", **EVERYTHING)
    assert refused.returncode == 2
    assert "ami-0 can't be booted" in refused.stderr
    down = run(tmp_path, "local", "down", **EVERYTHING)
    assert (down.returncode, down.stdout) == (0, "the local cloud is down\n")


def test_a_full_disk_takes_no_runs(tmp_path: Path) -> None:
    """Known before the local cloud is brought up."""
    mount = 'mount -t tmpfs -o size=16k none "$0" && exec "$@"'
    words = ["--profiles", str(ROOT / "profiles"), "--profile", "g6e-ubuntu", "--rehearse"]
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-ec",
            mount,
            str(tmp_path),
            *BAKE,
            *words,
            "--runs",
            str(tmp_path / "runs"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "No space left" in done.stderr) == (2, True), done.stderr
    assert "local cloud" not in done.stderr
