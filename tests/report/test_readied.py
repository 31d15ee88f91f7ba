"""What the report says of compiled code and of libraries that no start opens."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from bake.report import readied
from bake.report.run_directory import RunDirectory
from bake.steps.compile_model import FACTS, Compiled
from bake.steps.remove_libraries import FACTS as LIBRARIES

KEY = {"GPU": "NVIDIA L40S sm89", "driver": "580.95.05"}


def run_with(tmp_path: Path, name: str, told: object) -> RunDirectory:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(told))
    return RunDirectory(tmp_path)


@pytest.mark.parametrize(
    ("made", "why", "sentence"),
    [
        (
            [Compiled("1024x1024", 40.4, KEY, 7), Compiled("512x512", 20, KEY, 9)],
            "",
            "compiled for 1024x1024, 512x512 in 60 s, for GPU NVIDIA L40S sm89, driver 580.95.05; workers "
            "with anything else draw eagerly",
        ),
        (
            [],
            "the builder m7i.xlarge has no L40S",
            "nothing is compiled for 1024x1024, 512x512: the builder m7i.xlarge has no L40S; workers draw "
            "eagerly",
        ),
    ],
    ids=["compiled", "nothing"],
)
def test_the_steps_facts_are_told_in_a_sentence(
    tmp_path: Path, made: list[Compiled], why: str, sentence: str
) -> None:
    told = {"asked": ["1024x1024", "512x512"], "compiled": [asdict(one) for one in made], "why_not": why}
    found = readied.compiled(run_with(tmp_path, FACTS, told))
    assert found
    assert found.sentence == sentence


def test_only_unused_libraries_are_listed_with_their_sizes(tmp_path: Path) -> None:
    rows = [
        {"path": "torch/lib/a.so", "bytes": 5, "opened": True, "unused": False, "why": "a start opened it"},
        {"path": "torch/lib/b.so", "bytes": 3, "opened": False, "unused": True, "why": ""},
    ]
    told = {"recorded": "start on cuda", "libraries": rows, "unused": 1, "unused_bytes": 3}
    found = readied.libraries(run_with(tmp_path, LIBRARIES, told | {"removed": True, "why_not": ""}))
    assert found
    assert ([one.path for one in found.libraries], found.bytes) == (["torch/lib/b.so"], 3)
    assert found.sentence == "removed from the image"


def test_runs_without_them_have_none(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert (readied.compiled(run), readied.libraries(run)) == (None, None)
