"""Which profiles are baked: every problem of every profile comes at once, before anything starts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bake.commands.many.selection import pick
from bake.errors import UsageError
from bake.request import BakeRequest
from tests.bake.variables import VARIABLES

PROFILES = Path(__file__).parents[4] / "profiles"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two profiles that can be baked, and the variables that they name."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    for name in ("g6e-ubuntu", "g5-ubuntu"):
        shutil.copy(PROFILES / f"{name}.yaml", tmp_path)
    return tmp_path


def request(folder: Path, *, rehearsal: bool = False) -> BakeRequest:
    return BakeRequest("", folder, folder / ".env.local", rehearsal)


def refusal(folder: Path, *names: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        pick(request(folder), names, everything=not names)
    return caught.value


def test_profiles_keep_the_order_in_which_they_are_named(folder: Path) -> None:
    names = ("g6e-ubuntu", "g5-ubuntu")
    assert pick(request(folder), names, everything=False).names == names


def test_all_are_those_of_the_folder(folder: Path) -> None:
    (folder / "_base.yaml").write_text("builder: {market: spot}\n")
    assert pick(request(folder), (), everything=True).names == ("g5-ubuntu", "g6e-ubuntu")


def test_what_is_wrong_is_told_of_all_profiles_at_once(folder: Path) -> None:
    text = (folder / "g6e-ubuntu.yaml").read_text()
    (folder / "broken.yaml").write_text(text.replace("root_volume:", "root_volum:"))
    (folder / "g5-ubuntu.lock.yaml").write_text("agred: {}\n")
    told = refusal(folder, "g6e-ubuntu", "nope", "broken", "g6e-ubuntu", "g5-ubuntu").message
    assert "--profile g6e-ubuntu is given more than once" in told
    assert "no profile named 'nope'" in told
    assert "root_volum: unknown key" in told
    assert "g5-ubuntu.lock.yaml:1:1" in told
    assert told.endswith("nothing was started")


def test_a_missing_variable_is_told_once_where_it_stands(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the two profiles extends the other."""
    monkeypatch.delenv("BAKE_SUBNET_ID")
    error = refusal(folder)
    assert error.message.count("BAKE_SUBNET_ID is not set") == 1
    assert error.hint == "set the missing variables in the environment or in .env.local"


def test_a_rehearsal_needs_no_variable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name)
    found = pick(request(folder, rehearsal=True), (), everything=True)
    assert found.names == ("g5-ubuntu", "g6e-ubuntu")


NEURON = "extends: g6e-ubuntu\nbase: {accelerator: neuron}\nweights: {precision: int8}\n"


def test_what_this_version_cant_bake_is_left_out_of_all_and_told(folder: Path) -> None:
    (folder / "neuron.yaml").write_text(NEURON)
    found = pick(request(folder), (), everything=True)
    assert found.names == ("g5-ubuntu", "g6e-ubuntu")
    assert found.left_out == {
        "neuron": "this version bakes cuda, and neuron in bf16, not neuron in int8",
    }


def test_what_this_version_cant_bake_is_refused_by_name(folder: Path) -> None:
    (folder / "neuron.yaml").write_text(NEURON)
    assert "neuron: this version bakes" in refusal(folder, "g6e-ubuntu", "neuron").message


def test_a_folder_where_nothing_can_be_baked_is_told(folder: Path) -> None:
    (folder / "neuron.yaml").write_text(NEURON)
    (folder / "g6e-ubuntu.yaml").rename(folder / "_g6e.yaml")
    (folder / "g5-ubuntu.yaml").unlink()
    (folder / "neuron.yaml").write_text(NEURON.replace("g6e-ubuntu", "_g6e"))
    assert "neuron: this version bakes" in refusal(folder).message
    (folder / "neuron.yaml").unlink()
    error = refusal(folder)
    assert "there are no profiles" in error.message and "bake init" in str(error.hint)
