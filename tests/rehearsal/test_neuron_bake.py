"""The inf2 profiles bake a verified Neuron stack on a large enough type; inf2.xlarge is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bake.localcloud import LocalCloud
from bake.localcloud.images.neuron import STUBS
from flux_worker.inference.backend_neuron import EXPERIMENTAL

from .bakes import ROOT, Outcome, rehearse

pytestmark = pytest.mark.root
PROFILES = ["inf2-ubuntu", pytest.param("inf2-amazon-linux", marks=pytest.mark.long)]


# The real weights' sizes are reckoned with, once for each size of images.
DRAWING = """
root_volume:
  size_gib: 300

neuron:
  python_index: ${NEURON_PYTHON_INDEX}
  sizes: [320x256, 272x256]
"""


@pytest.mark.parametrize("name", PROFILES)
def test_inf2_xlarge_is_refused_before_anything_starts(cloud: LocalCloud, tmp_path: Path, name: str) -> None:
    outcome = rehearse(tmp_path, name)
    assert outcome.code == 2
    assert "FLUX.1-dev in bf16 does not fit inf2.xlarge" in outcome.errors
    assert "inf2.24xlarge" in outcome.errors
    assert not (tmp_path / ".bake/runs").exists()


def baked(name: str, changes: str, folder: Path) -> Outcome:
    """What came of a profile on a type that fits, with these changes."""
    profiles = folder / "profiles"
    shutil.copytree(ROOT / "profiles", profiles)
    (profiles / "large.yaml").write_text(
        f"extends: {name}\nattest: false\n\nbuilder:\n  instance_type: inf2.24xlarge\n{changes}"
    )
    outcome = rehearse(folder, "large", profiles=profiles)
    assert outcome.code == 0, outcome.errors
    return outcome


def checks(outcome: Outcome) -> dict[str, str]:
    """Id -> outcome."""
    return {check["about"]["id"]: check["outcome"] for check in outcome.report["checks"]}


def assert_the_stack_is_verified(image: Outcome) -> None:
    stack = {name: outcome for name, outcome in checks(image).items() if "neuron_stack" in name}
    assert len(stack) == len(STUBS)
    assert set(stack.values()) == {"passed"}
    notes = [note["text"] for note in image.report["notes"]]
    assert "the Neuron stack is there already and left alone" in notes
    assert all(
        any(note.startswith(f"{package} {version}") for note in notes) for package, version in STUBS.items()
    )


def test_with_the_sdks_index_it_is_compiled_while_baking_and_draws_on_neuron(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    """Its own environment, compiled sizes and the service that draws them; the compiler is a stand-in."""
    image = baked("inf2-ubuntu", DRAWING, tmp_path)
    assert_the_stack_is_verified(image)
    plan = " ".join(image.of("plan")[0]["text"].split())
    assert "optimum-neuron's compiler copies the model" in plan.partition("How this rehearsal differs")[2]
    assert "experimental" in plan and "The image draws 320x256, 272x256 and no other size" in plan
    assert "draws on the CPU" not in "".join(image.report["warnings"])
    for note in ("backend is neuron, which is experimental", "compiled 320x256", "compiled 272x256"):
        assert any(note in line["text"] for line in image.report["notes"]), note
    for check in (
        "drivers.compiled_for_neuron",
        "drivers.worker_finds_what_is_compiled",
        "drivers.compiler_left_nothing_else",
        "worker.unit_command",
        "worker.command_runs",
        "worker.backend",
    ):
        assert checks(image)[check] == "passed", check
    (drawn,) = image.report["pictures"]
    assert (drawn["width"], drawn["height"], drawn["device"]) == (272, 256, "neuron")
    assert 'local draw "a cat" --width 272 --height 256 --out' in image.of("released")[0]["text"]
    journal = (image.directory / "logs" / "boot-check.journal.log").read_text()
    assert EXPERIMENTAL in journal
    assert '"device": "neuron"' in journal


@pytest.mark.long
def test_without_that_index_the_stack_is_verified_and_the_cpu_draws(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    image = baked("inf2-amazon-linux", "", tmp_path)
    assert_the_stack_is_verified(image)
    assert any("draws on the CPU" in warning for warning in image.report["warnings"])
    assert checks(image)["drivers.compiled_for_neuron"] == "passed"
    assert checks(image)["worker.backend"] == "passed"
    assert image.report["pictures"][0]["device"] == "cpu"
