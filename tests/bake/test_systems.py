"""Each operating system of the table has all that a bake needs; a failure names the place that lacks it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bake import profile
from bake.localcloud import EXAMPLES
from bake.localcloud.images.bases import BASES
from bake.planning.base_image import BaseImage, system_of
from bake.systems import SYSTEMS, ami_variable

ROOT = Path(__file__).parents[2]
PROFILES = ROOT / "profiles"
# How a shell script of provisioning knows a package manager.
COMMANDS = {"apt": "command -v apt-get", "rpm": "command -v dnf"}


def base_sections() -> list[object]:
    return [profile.outline(name, PROFILES).get("base") for name in profile.names(PROFILES)]


@pytest.fixture(params=SYSTEMS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_profiles_may_name_it(name: str) -> None:
    schema = json.loads((PROFILES / "schema.json").read_text())
    assert name in str(schema["$defs"]["Base"]["properties"]["os"]), "run bake profiles --schema"


def test_an_example_profile_is_baked_on_it(name: str) -> None:
    said = [base.get("os") for base in base_sections() if isinstance(base, dict)]
    assert name in said, f"profiles/ has no profile with base.os: {name}"


def test_its_amis_are_known_by_their_names(name: str) -> None:
    image = BaseImage("ami-1", f"Deep Learning AMI ({SYSTEMS[name].oldest})", "x86_64", "/dev/sda1", 8)
    assert system_of(image) == name
    assert [other for other in SYSTEMS if SYSTEMS[other].names.search(SYSTEMS[name].title)] == [name]


def test_a_variable_of_its_own_names_its_base_ami(name: str) -> None:
    variables = {ami_variable(name, accelerator) for accelerator in ("cuda", "neuron")}
    assert variables <= EXAMPLES.keys()
    assert not [other for other in SYSTEMS if other != name and SYSTEMS[other].suffix == SYSTEMS[name].suffix]


def test_provisioning_knows_its_package_manager(name: str) -> None:
    manager = SYSTEMS[name].packages
    assert COMMANDS[manager] in (ROOT / "provision/lib/packages.sh").read_text()


def test_the_checks_know_its_package_manager(name: str) -> None:
    assert f'"{SYSTEMS[name].packages}"' in (ROOT / "bake/checks/probes/packages.py").read_text()


def test_the_local_cloud_has_a_base_of_it(name: str) -> None:
    assert name in BASES, "BASES in bake/localcloud/images/bases.py has no entry for it"
