"""Find the shared libraries of torch's packages that no start of the worker opens; move them away, or back.

    unused_libraries.py list VENV < facts/trace.json      # JSON on stdout
    unused_libraries.py aside VENV FOLDER < list.json     # move what is removable into FOLDER
    unused_libraries.py back VENV FOLDER                  # and back

Careful rather than thorough: what a library needs by its ELF header stays with it, and so do the families
that CUDA opens by name while it draws, whether or not the recorded start came to it. Where no start was
recorded on the GPU, nothing is removable: what torch links to is told apart, and that is all that is known.

Standard library only: it runs with the worker's Python on the builder.
"""

from __future__ import annotations

import json
import re
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

# Below site-packages: NVIDIA's libraries, and torch's own.
PLACES = ("nvidia/**/*.so*", "torch/lib/*.so*", "cusparselt/lib/*.so*")
ON_CUDA = "start on cuda"
# Libraries that CUDA's opens by name, by what is drawn: engines by the shape of a convolution, compilers for
# kernels that do not come with the library, the parts of a linear algebra that a job may need.
BY_NAME = (
    (re.compile(r"^libcudnn"), "cuDNN opens its parts by the shape of what it computes"),
    (re.compile(r"^libnvrtc|^libnvJitLink|^libnvvm"), "kernels may be compiled while it draws"),
    (re.compile(r"^libcublas"), "cuBLAS opens its parts by the shape of what it computes"),
    (re.compile(r"^libcudart|^libcuda\b"), "the CUDA runtime"),
    (re.compile(r"^libtorch[_.]|^libc10|^libgomp|^libshm"), "torch's own"),
)
OPENED, NEEDED = "a start opened it", "needed by {}"
UNKNOWN = "no start was recorded on the GPU"
_NEEDED, _SONAME, _STRINGS = 1, 14, 5  # of an ELF's dynamic section
_DYNAMIC, _LOAD = 2, 1  # of its program headers


class NoLibrary(Exception):
    """A file that is no ELF library for 64 bits."""


def names(file: Path) -> tuple[str | None, list[str]]:
    """The SONAME of a library, and the names that it needs. Raises NoLibrary, OSError."""
    with file.open("rb") as stream:
        content = stream.read(64)
        if len(content) < 64 or content[:6] != b"\x7fELF\x02\x01":
            raise NoLibrary(file.name)
        at, size, count = struct.unpack_from("<Q14xHH", content, 32)  # of the program headers
        stream.seek(at)
        headers = [struct.unpack_from("<II6Q", stream.read(size)) for _ in range(count)]
        dynamic = next((header for header in headers if header[0] == _DYNAMIC), None)
        if dynamic is None:
            return None, []
        stream.seek(dynamic[2])
        entries = list(struct.iter_unpack("<QQ", stream.read(dynamic[5] // 16 * 16)))
        strings = next((value for tag, value in entries if tag == _STRINGS), None)
        if strings is None:
            raise NoLibrary(file.name)
        start = _offset(headers, strings)

        def text(value: int) -> str:
            stream.seek(start + value)
            return stream.read(512).split(b"\0", 1)[0].decode()

        soname = next((text(value) for tag, value in entries if tag == _SONAME), None)
        return soname, [text(value) for tag, value in entries if tag == _NEEDED]


def _offset(headers: Iterable[tuple[int, ...]], address: int) -> int:
    """Where an address of memory is in the file."""
    for kind, _flags, offset, start, _physical, size, *_ in headers:
        if kind == _LOAD and start <= address < start + size:
            return offset + address - start
    raise NoLibrary("its strings are in no segment")


def libraries(packages: Path) -> list[Path]:
    """The shared libraries below site-packages that are looked at; links are not."""
    found = {file for place in PLACES for file in packages.glob(place)}
    return sorted(file for file in found if file.is_file() and not file.is_symlink() and _is_library(file))


def _is_library(file: Path) -> bool:
    try:
        names(file)
    except (NoLibrary, OSError, struct.error, UnicodeDecodeError):
        return False
    return True


def kept(files: Iterable[Path], roots: Mapping[Path, str]) -> dict[Path, str]:
    """Which of the files are needed, and why: the roots, and what the needed ones need in turn."""
    named: dict[str, Path] = {}
    needs: dict[Path, list[str]] = {}
    for file in files:
        soname, needs[file] = names(file)
        named.setdefault(file.name, file)
        if soname:
            named[soname] = file
    reasons = dict(roots)
    waiting = list(roots)
    while waiting:
        file = waiting.pop()
        for name in needs.get(file) or _needs(file):
            needed = named.get(name)
            if needed is not None and needed not in reasons:
                reasons[needed] = NEEDED.format(file.name)
                waiting.append(needed)
    return reasons


def _needs(file: Path) -> list[str]:
    """What a library elsewhere needs, such as a module of Python's."""
    try:
        return names(file)[1]
    except (NoLibrary, OSError, struct.error, UnicodeDecodeError):
        return []


def by_name(file: Path) -> str | None:
    """Why a library stays although nothing names it: CUDA may open it."""
    return next((why for pattern, why in BY_NAME if pattern.search(file.name)), None)


def listed(packages: Path, trace: Mapping[str, object]) -> dict[str, object]:
    """All libraries with sizes, the largest first; what is removable has no reason to stay."""
    files = libraries(packages)
    recorded = trace.get("recorded")
    opened = trace.get("opened_libraries") if recorded == ON_CUDA else None
    seen = [Path(str(one)) for one in opened] if isinstance(opened, list) else []
    roots = dict.fromkeys(seen, OPENED) or dict.fromkeys(packages.glob("torch/*.so"), "Python loads it")
    roots |= {file: why for file in files if file not in roots and (why := by_name(file))}
    reasons = kept(files, roots)
    rows = [
        {
            "path": str(file.relative_to(packages)),
            "bytes": file.stat().st_size,
            "opened": file in seen if seen else None,
            "unused": file not in reasons,
            "why": reasons.get(file) or ("" if seen else UNKNOWN),
        }
        for file in files
    ]
    rows.sort(key=lambda row: (-int(str(row["bytes"])), str(row["path"])))
    unused = [file for file in files if file not in reasons]
    return {
        "recorded": recorded or "nothing",
        "libraries": rows,
        "unused": len(unused),
        "unused_bytes": sum(file.stat().st_size for file in unused),
    }


def removable(told: Mapping[str, object]) -> Iterator[str]:
    """The paths of what nothing keeps."""
    rows = told.get("libraries")
    for row in rows if isinstance(rows, list) else ():
        if not row["why"]:
            yield str(row["path"])


def move(source: Path, target: Path, paths: Iterable[str]) -> list[str]:
    """Move files to the same paths below another folder of the same file system; those that are there."""
    moved = []
    for path in paths:
        if not (source / path).exists():
            continue
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).rename(target / path)
        moved.append(path)
    return moved


def packages_of(venv: Path) -> Path:
    """Its site-packages."""
    return next(venv.resolve().glob("lib/python3*/site-packages"))


def main() -> None:
    """Do what the first word says."""
    command, venv, *rest = sys.argv[1:]
    packages = packages_of(Path(venv))
    if command == "list":
        told = json.load(sys.stdin)
        print(json.dumps(listed(packages, told if isinstance(told, dict) else {})))
        return
    aside = Path(rest[0])
    if command == "aside":
        moved = move(packages, aside, removable(json.load(sys.stdin)))
    else:
        there = [str(file.relative_to(aside)) for file in sorted(aside.rglob("*")) if not file.is_dir()]
        moved = move(aside, packages, there)
    print(json.dumps({"moved": moved}))


if __name__ == "__main__":
    main()
