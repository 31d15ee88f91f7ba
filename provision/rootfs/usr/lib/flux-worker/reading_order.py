"""Which bytes a start of the worker reads, in order: recorded, or else guessed.

For warm.py beside it, which imports little: only the standard library. Python 3.9 or later.
"""

from __future__ import annotations

import json
import os
import re
from collections import namedtuple

FORMAT = 1
# One part of a file; length 0 means all of it.
Range = namedtuple("Range", "path offset length size mtime_ns")
Stage = namedtuple("Stage", "name ranges")

# What a worker imports; of other packages the worker itself reads what it needs.
PACKAGES = "torch torchao triton diffusers transformers tokenizers safetensors accelerate huggingface_hub"
PACKAGES += " numpy PIL boto3 botocore pydantic pydantic_core flux_worker nvidia"
LARGEST_LIBRARY = 64 << 20  # bytes; larger ones are mostly code for GPUs, of which one GPU needs little
COMPONENTS = {
    "text_encoders": ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2"),
    "transformer": ("transformer",),
    "vae": ("vae",),
}


def bytes_of(of: Range) -> int:
    """How many bytes a range has."""
    return of.length or of.size - of.offset


def read_text(path: str) -> str:
    """All of a small file. Raises OSError, ValueError."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def read_trace(path: str):
    """(how it was recorded, its stages, what is wrong with it): what can't be understood is left out."""
    try:
        found = json.loads(read_text(path))
        if found["format"] != FORMAT:
            return "static", [], f"{path} is of format {found['format']}, and not {FORMAT}"
        wrong: list = []
        stages = [Stage(str(one["name"]), _ranges(one["ranges"], wrong)) for one in found["stages"]]
        told = f"{path}: {len(wrong)} entries can't be understood, such as {wrong[0]!r}" if wrong else ""
        return str(found.get("recorded")), stages, told
    except OSError as error:
        return "static", [], f"{path} can't be read: {error.strerror}"
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        return "static", [], f"{path} is no trace: {type(error).__name__}: {error}"


def _ranges(listed: list, wrong: list) -> list:
    """Those that mean something; the others go to `wrong`."""
    found = [Range(*one) for one in listed if _is_range(one)]
    wrong.extend(one for one in listed if not _is_range(one))
    return found


def _is_range(one: object) -> bool:
    if not isinstance(one, list) or [type(part) for part in one] != [str, int, int, int, int]:
        return False
    path, offset, length, size, _ = one
    return path.startswith("/") and "\0" not in path and min(offset, length) >= 0 and offset + length <= size


def static_order(worker_env: str, venv: str) -> list:
    """The stages of a start that nobody has recorded: all of the weights, and of the libraries a guess.

    `worker_env` is the worker's baked environment file, `venv` its virtual environment.
    Raises OSError, LookupError.
    """
    stages = [Stage("libraries", list(_libraries(venv)))]
    model = _model(dict(re.findall(r"^(\w+)=(.*)$", read_text(worker_env), re.MULTILINE)))
    for name, folders in COMPONENTS.items():
        files = [file for folder in folders for file in sorted(_files(f"{model}/{folder}"))]
        stages.append(Stage(name, [_whole(file) for file in files]))
    return [stage for stage in stages if stage.ranges]


def _model(environment: dict) -> str:
    """The folder of the model that the worker loads."""
    if "FLUX_MODEL_DIR" in environment:
        return environment["FLUX_MODEL_DIR"]
    name = f"models--{environment['FLUX_MODEL_REPO'].replace('/', '--')}"
    return f"{environment['HF_HUB_CACHE']}/{name}/snapshots/{environment['FLUX_MODEL_REVISION']}"


def _libraries(venv: str):
    for python in sorted(os.listdir(f"{venv}/lib")):
        for package in PACKAGES.split():
            for file in _files(f"{venv}/lib/{python}/site-packages/{package}"):
                found = _whole(file)
                if file.endswith(".pyc") or (".so" in file and found.size <= LARGEST_LIBRARY):
                    yield found


def _files(folder: str):
    """Files below a folder; none where it is missing."""
    for path, _, names in os.walk(folder):
        yield from (f"{path}/{name}" for name in names)


def _whole(file: str) -> Range:
    real = os.path.realpath(file)
    found = os.stat(real)
    return Range(real, 0, 0, found.st_size, found.st_mtime_ns)
