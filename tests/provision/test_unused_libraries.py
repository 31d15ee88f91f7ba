"""Libraries that no start opens: found by what one opened and by ELF headers; nothing is guessed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bake.resources import PROVISION

pytestmark = pytest.mark.integration

PROGRAM = PROVISION / "unused_libraries.py"
CUDA = "nvidia/cu13/lib"
OPENED, UNOPENED = f"{CUDA}/libcusparse.so.12", f"{CUDA}/libcusolverMg.so.12"


def linked(file: Path, *needs: Path) -> Path:
    """A library with a SONAME that needs others."""
    file.parent.mkdir(parents=True, exist_ok=True)
    command = ["gcc", "-shared", "-nostdlib", "-x", "c", "/dev/null", "-o", str(file)]
    subprocess.run(
        [*command, f"-Wl,-soname,{file.name}", "-Wl,--no-as-needed", "-x", "none", *map(str, needs)],
        check=True,
    )
    return file


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An environment as torch's packages lay it out: torch's module needs torch's library, that NVIDIA's."""
    if not shutil.which("gcc"):
        pytest.skip("no C compiler")
    packages = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
    needed = linked(packages / CUDA / "libnvperf_target.so")
    opened = linked(packages / OPENED, needed)
    torch = linked(packages / "torch/lib/libtorch_cuda.so", opened)
    linked(packages / "torch/_C.cpython-311-x86_64-linux-gnu.so", torch)
    linked(packages / CUDA / "libcudnn_engines_precompiled.so.9")
    linked(packages / UNOPENED)
    (packages / CUDA / "libcusolverMg.so").symlink_to("libcusolverMg.so.12")
    (packages / CUDA / "libnothing.so.1").write_text("no library")
    return tmp_path / "venv"


def packages_of(venv: Path) -> Path:
    return next(venv.glob("lib/python3*/site-packages"))


def trace(venv: Path, recorded: str = "start on cuda") -> dict[str, Any]:
    """What a start opened; not what it needed by its header, nor what cuDNN may open."""
    opened = ("torch/lib/libtorch_cuda.so", OPENED)
    return {"recorded": recorded, "opened_libraries": [str(packages_of(venv) / one) for one in opened]}


def run(*words: str, told: object = None) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-I", str(PROGRAM), *words],
        input=json.dumps(told), capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def whys(told: dict[str, Any]) -> dict[str, str]:
    return {Path(row["path"]).name: row["why"] for row in told["libraries"]}


def test_what_was_not_opened_is_unused_unless_something_needs_or_may_open_it(venv: Path) -> None:
    told = run("list", str(venv), told=trace(venv))
    assert whys(told) == {
        "libtorch_cuda.so": "a start opened it",
        "libcusparse.so.12": "a start opened it",
        "libnvperf_target.so": "needed by libcusparse.so.12",
        "libcudnn_engines_precompiled.so.9": "cuDNN opens its parts by the shape of what it computes",
        "libcusolverMg.so.12": "",
    }
    assert (told["unused"], told["unused_bytes"]) == (1, (packages_of(venv) / UNOPENED).stat().st_size)
    assert all(row["bytes"] > 0 for row in told["libraries"])


@pytest.mark.parametrize("recorded", ["start on cpu", "static", None])
def test_without_a_start_on_the_gpu_nothing_is_called_removable(venv: Path, recorded: str | None) -> None:
    told = run("list", str(venv), told=trace(venv) | {"recorded": recorded})
    found = whys(told)
    assert found["libcusolverMg.so.12"] == "no start was recorded on the GPU"
    assert found["libcusparse.so.12"] == "needed by libtorch_cuda.so"
    assert (told["unused"], all(found.values())) == (1, True)
    assert run("aside", str(venv), str(venv.parent / "aside"), told=told) == {"moved": []}


def test_what_is_moved_away_comes_back(venv: Path) -> None:
    told, aside = run("list", str(venv), told=trace(venv)), venv.parent / "aside"
    library = packages_of(venv) / UNOPENED
    content = library.read_bytes()
    assert run("aside", str(venv), str(aside), told=told) == {"moved": [UNOPENED]}
    assert not library.exists()
    assert run("aside", str(venv), str(aside), told=told) == {"moved": []}
    assert run("back", str(venv), str(aside)) == {"moved": [UNOPENED]}
    assert library.read_bytes() == content


def test_headers_are_read_as_readelf_reads_them() -> None:
    """All shared libraries of this environment's torch and numpy, 40 of them."""
    if not shutil.which("readelf"):
        pytest.skip("no readelf")
    sys.path.insert(0, str(PROVISION))
    try:
        import unused_libraries
    finally:
        sys.path.remove(str(PROVISION))
    packages = Path(sys.modules["pytest"].__file__ or "").parents[1]
    files = [file for file in sorted(packages.glob("*/**/*.so*")) if file.is_file()][:40]
    assert files
    for file in files:
        said = subprocess.run(
            ["readelf", "--dynamic", "--wide", str(file)], capture_output=True, text=True, check=True
        ).stdout
        soname = re.search(r"\(SONAME\).*\[(.*)\]", said)
        expected = (soname and soname[1], re.findall(r"\(NEEDED\).*\[(.*)\]", said))
        assert unused_libraries.names(file) == expected, file
