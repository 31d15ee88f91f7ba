"""What a rehearsal needs of Python packages: said where it is missing, and torch from PyTorch's CPU index."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bake import resources
from bake.errors import UsageError
from bake.localcloud.packages import needed, wheels

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def add_torch(index: Path, version: str) -> None:
    """A wheel named torch, on an index of its own."""
    folder = index / "torch"
    folder.mkdir(parents=True)
    name, info = f"torch-{version}-py3-none-any.whl", f"torch-{version}.dist-info"
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    link = name.replace("+", "%2B")
    (folder / "index.html").write_text(f'<a href="{link}#sha256={digest}">{name}</a>')


@pytest.fixture
def indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server with PyTorch's CPU index, and the one that pip is configured for, which has a CUDA build."""
    add_torch(tmp_path / "served" / "cpu", "2.13.0+cpu")
    add_torch(tmp_path / "served" / "simple", "2.13.0")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    for name in [name for name in os.environ if name.startswith("PIP_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
    monkeypatch.setattr(needed, "CPU_INDEX", f"{url}/cpu")
    yield url
    server.shutdown()
    server.server_close()


def collected(tmp_path: Path) -> list[str]:
    wheels._download(tmp_path / "work", "worker", ["torch==2.13.0"], [], "3.11")
    return (tmp_path / "work" / "worker.txt").read_text().split()[:1]


def test_torch_comes_from_the_cpu_index_where_that_answers(indexes: str, tmp_path: Path) -> None:
    assert collected(tmp_path) == ["torch==2.13.0+cpu"]


def test_torch_comes_from_the_configured_index_otherwise(
    indexes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needed, "CPU_INDEX", f"{indexes}/none")
    assert collected(tmp_path) == ["torch==2.13.0"]


def test_whoever_never_answers_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        assert not needed.answers(f"http://127.0.0.1:{silent.getsockname()[1]}/", within=0.2)
        assert time.monotonic() - started < 2


@pytest.mark.parametrize(("installed", "hint"), [(True, "[local]"), (False, "make rehearse")])
def test_missing_packages_are_named_together(
    monkeypatch: pytest.MonkeyPatch, installed: bool, hint: str
) -> None:
    monkeypatch.setattr(resources, "INSTALLED", installed)
    monkeypatch.setattr(needed, "NEEDED", ("no_such_thing", "pip", "nor_this"))
    with pytest.raises(UsageError, match="not installed: no_such_thing, nor_this") as caught:
        needed.require_packages()
    assert hint in str(caught.value.hint)


UV = """\
#!/bin/sh
echo "$@" >> {log}
case "$*" in *compile*) {answer} ;; esac
"""


@pytest.mark.parametrize(
    ("answer", "asked"), [("exit 0", 2), ("exit 2", 1), ("sleep 20", 1)], ids=["answers", "refuses", "silent"]
)
def test_make_installs_torch_alone_from_the_cpu_index_where_that_answers(
    tmp_path: Path, answer: str, asked: int
) -> None:
    """The recipe's own line, with a `uv` that stands for the index."""
    environment = tmp_path / "venv"
    (environment / "bin").mkdir(parents=True)
    uv, log = environment / "bin" / "uv", tmp_path / "log"
    uv.write_text(UV.format(log=log, answer=answer))
    uv.chmod(0o755)
    make = ["make", "-n", f"VENV={environment}", f"PYTHON={sys.executable}", f"{environment}/ready"]
    recipe = subprocess.check_output(make, cwd=ROOT, text=True)
    line = recipe[recipe.index("torch=$(") : recipe.index("|| true")] + "|| true"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, check=True, capture_output=True, text=True)
    calls = log.read_text().splitlines()
    assert len(calls) == asked
    assert all("--torch-backend=cpu" in call and "--no-deps" in call for call in calls)
    if asked == 2:
        assert calls[1].endswith(" torch==2.13.0")
        assert "CPU index" in done.stdout


def test_looking_for_pip_leaves_setuptools_alone() -> None:
    code = "from bake.localcloud.packages.needed import require_packages; require_packages(); "
    code += "import distutils.core; import setuptools"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True)
