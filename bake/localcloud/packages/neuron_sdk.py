"""Stand-ins for the Python packages for Neuron, since AWS's compiler and devices are not available here.

Wheels of the names and versions that `provision/locks` asks for, on an index of their own as AWS's are.
optimum-neuron's holds `neuron_stand_in/`, the SDK's hold nothing. "Compiled" is the model itself with its
shapes fixed, and the CPU draws it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bake.localcloud.packages.wheels import Wheels, lock
from bake.resources import LOCKS

STAND_IN = Path(__file__).with_name("neuron_stand_in")
_PIN = re.compile(r"^([\w-]+)(?:\[\w+\])?==(\S+)$", re.MULTILINE)
_METADATA = (
    "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: A stand-in of the local cloud.\n"
)
_WHEEL = "Wheel-Version: 1.0\nGenerator: bake\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@dataclass(frozen=True)
class NeuronSdk:
    """A directory of the stand-ins' wheels, and the hashed lock of a worker's environment for Neuron."""

    files: Path
    requirements: Path


def pins() -> dict[str, str]:
    """Name -> version of the packages that have stand-ins: the Neuron SDK and optimum-neuron."""
    sdk = dict(_PIN.findall((LOCKS / "worker-neuron-sdk.in").read_text()))
    worker = dict(_PIN.findall((LOCKS / "worker-neuron.in").read_text()))
    return {**sdk, "optimum-neuron": worker["optimum-neuron"]}


def provide(place: Path, worker: Wheels) -> NeuronSdk:
    """Build the stand-ins in `place`. The environment's other packages are the worker's own."""
    shutil.rmtree(place, ignore_errors=True)
    files = place / "files"
    built = build(files)
    requirements = place / "worker-neuron.txt"
    requirements.write_text(worker.worker.read_text() + lock(built))
    return NeuronSdk(files, requirements)


def build(files: Path) -> list[Path]:
    """Write a wheel for each into the folder `files`, reproducibly."""
    files.mkdir(parents=True)
    modules = {
        str(path.relative_to(STAND_IN)): path.read_bytes()
        for path in sorted(STAND_IN.glob("optimum/**/*.py"))
    }
    content: dict[str, dict[str, bytes]] = {"optimum-neuron": modules}
    return [_wheel(files, name, version, content.get(name, {})) for name, version in pins().items()]


def _wheel(files: Path, name: str, version: str, modules: Mapping[str, bytes]) -> Path:
    """Write one wheel; see https://packaging.python.org/specifications/binary-distribution-format."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    content = {
        **modules,
        f"{info}/METADATA": _METADATA.format(name=name, version=version).encode(),
        f"{info}/WHEEL": _WHEEL.encode(),
    }
    record = "".join(f"{path},{_digest(data)},{len(data)}\n" for path, data in content.items())
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    wheel = files / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in content.items():
            entry = zipfile.ZipInfo(path)  # of 1980, whenever it is made
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return wheel


def _digest(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return f"sha256={digest}"
