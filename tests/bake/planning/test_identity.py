"""What an image is made of: each input gives another plan id, and nothing else does."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bake import resources
from bake.planning import identity
from bake.planning.identity import BY_ANOTHER_NAME, INPUTS, NO_INPUTS, NOT_SHAPING, SHAPING, Identity
from bake.planning.sources import Sources
from bake.profile import Profile, fields
from bake.profile.schema import sections
from bake.weights.flux import WeightFile
from bake.weights.lock import Lock
from bake.worker_source import WorkerSource

from ..variables import VARIABLES
from .test_pure import loaded, planned

BASE = VARIABLES["BASE_AMI_ID"]
CODE = WorkerSource(None, "c" * 40, "t" * 64)
LOCK = Lock("black-forest-labs/FLUX.1-dev", "a" * 40, {"x.json": WeightFile(3, sha256="b" * 64)})


def made_of(profile: Profile | None = None, base: str = BASE, **changes: Any) -> Identity:
    given: dict[str, Any] = {
        "profile": profile or loaded(),
        "base": base,
        "sources": Sources(),
        "code": CODE,
        "own_checks": {},
        "lock": LOCK,
    }
    return identity.of(**{**given, **changes})


FIRST = made_of()


# The schema's fields


def keys() -> Iterator[str]:
    """Every key of a profile, dotted; of a list of mappings the list."""
    yield "name"
    for section, model in sections().items():
        yield from (f"{section}.{key}" for key in model.model_fields)
    yield from fields.top_level()


def is_known(key: str) -> bool:
    known = {*INPUTS, *BY_ANOTHER_NAME, *NO_INPUTS}
    return key in known or key.split(".")[0] in known


@pytest.mark.parametrize("key", list(keys()))
def test_each_key_of_a_profile_is_an_input_or_is_none(key: str) -> None:
    assert is_known(key), f"bake/planning/identity.py does not say whether the image depends on {key}"
    assert sum(key in them for them in (INPUTS, BY_ANOTHER_NAME, NO_INPUTS)) <= 1


def test_a_key_that_nobody_classified_is_noticed() -> None:
    assert not is_known("image.colour")
    assert not is_known("colours")


@pytest.mark.parametrize("key", [key for key in (*INPUTS, *BY_ANOTHER_NAME, *NO_INPUTS) if "." in key])
def test_nothing_is_classified_that_is_no_key(key: str) -> None:
    assert key in set(keys())


OTHERS: dict[str, Any] = {
    "base.os": "amazon-linux",
    "base.accelerator": "cpu",
    "base.remove": ("conda",),
    "builder.region": "eu-west-3",
    "root_volume.size_gib": 99,
    "root_volume.type": "io2",
    "root_volume.iops": 4000,
    "root_volume.throughput": 300,
    "root_volume.kms_key": "alias/flux",
    "weights.repo": "somebody/else",
    "weights.revision": "e" * 40,
    "weights.cache": "/srv/hub",
    "weights.precision": "int8",
    "weights.keep_source": False,
    "weights.scratch": "instance-store",
    "nvidia.driver": "580.95.05",
    "nvidia.repository": "https://example.org/cuda",
    "nvidia.fingerprint": "A" * 40,
    "neuron.repository": "https://example.org/neuron",
    "neuron.fingerprint": "B" * 40,
    "neuron.nogpgcheck": True,
    "neuron.runtime_lib": "2.28.23.0",
    "neuron.dkms": "2.24.7.0",
    "neuron.collectives": "2.28.27.0",
    "neuron.tools": "2.26.14.0",
    "neuron.python_index": "https://example.org/pip",
    "neuron.sizes": ("512x512",),
    "name": "another",
    "builder.instance_type": "g6e.2xlarge",
    "builder.instance_types": ("g6e.xlarge", "g6e.2xlarge"),
    "worker.instance_type": "g6e.4xlarge",
    "worker.instance_types": ("g6e.4xlarge",),
    "builder.market": "spot",
    "builder.subnet": "subnet-0fedcba9876543210",
    "builder.security_group": "temporary",
    "builder.ssh_from": "203.0.113.7/32",
    "builder.address": "private",
    "builder.proxy_command": ("ssh", "-W", "{host}:{port}", "bastion"),
    "builder.instance_profile": "another",
    "builder.cloud_init_wait_minutes": 1,
    "builder.package_wait_minutes": 1,
    "builder.lease_hours": 9.0,
    "builder.reaper": "scheduler",
    "builder.reaper_role": "arn:aws:iam::123456789012:role/reaper",
    "weights.mirror": "s3://mirror",
    "weights.token": "hf_another",
    "worker.region": "us-east-1",
    "worker.queue": "https://sqs.eu-west-1.amazonaws.com/123456789012/another",
    "worker.bucket": "another-bucket",
    "worker.bus": "another",
    "worker.cloudwatch_namespace": "Another",
    "worker.start_hours": 7,
    "worker.source": "https://example.org/worker.git",
    "worker.commit": "d" * 40,
    "image.name": "another {run}",
    "image.share_with": ("123456789012",),
    "image.keep": 7,
    "image.keep_unproven": 7,
    "base.ami": "ami-0fedcba9876543210",
    "base.ssm": "/bases/ubuntu",
    "base.name": "ubuntu-*",
    "base.owner": "self",
    "base.follow": "newest",
    "rebuild.max_age": timedelta(days=1),
    "rebuild.when_updates": "security",
    "base.updates": "security",
    "worker.compile_sizes": ("1024x1024",),
    "worker.remove_unused_libraries": True,
    "checks": ("checks/test_more.py",),
    "waivers": ("any",),
    "fail_on": "low",
    "reports": "s3://reports",
}


def other(key: str) -> Profile:
    """A profile with another value of one key; of Neuron where the key is Neuron's."""
    found = loaded("inf2-ubuntu" if key.startswith("neuron.") else "g6e-ubuntu")
    section, _, inner = key.rpartition(".")
    if not section:
        return found.model_copy(update={key: OTHERS[key]})
    changed = getattr(found, section).model_copy(update={inner: OTHERS[key]})
    return found.model_copy(update={section: changed})


def before(key: str) -> Identity:
    return made_of(loaded("inf2-ubuntu")) if key.startswith("neuron.") else FIRST


@pytest.mark.parametrize("key", INPUTS)
def test_another_value_of_an_input_is_another_image(key: str) -> None:
    found = made_of(other(key))
    assert found.id != before(key).id
    assert found.short["profile"] != before(key).short["profile"]


@pytest.mark.parametrize("key", [key for key in (*NO_INPUTS, *BY_ANOTHER_NAME) if key in OTHERS])
def test_another_value_of_anything_else_is_the_same_image(key: str) -> None:
    assert made_of(other(key)) == before(key)


def test_the_sizes_that_neuron_would_draw_are_no_input_without_it() -> None:
    assert made_of(loaded(neuron={"sizes": ("512x512",)})) == FIRST


def test_the_order_of_what_is_removed_does_not_matter() -> None:
    one, two = (made_of(loaded(base={"remove": names})) for names in (("a", "b"), ("b", "a")))
    assert one == two != FIRST


# What is no key of the profile


def copied(tmp_path: Path, name: str, text: str = "# another\n") -> Path:
    """A copy of a lock with a line more."""
    file = tmp_path / name
    file.write_text((resources.LOCKS / name).read_text(encoding="utf-8") + text, encoding="utf-8")
    return file


@pytest.mark.parametrize(("key", "name"), [("requirements", "worker.txt"), ("tools", "tools.txt")])
def test_another_lock_is_another_image(tmp_path: Path, key: str, name: str) -> None:
    found = made_of(sources=replace(Sources(), **{key: copied(tmp_path, name)}))
    assert found.id != FIRST.id
    assert found.inputs[key] != FIRST.inputs[key]


def test_another_interpreter_is_another_image(tmp_path: Path) -> None:
    file = tmp_path / "python.json"
    [(name, entry)] = json.loads((resources.LOCKS / "python.json").read_text()).items()
    file.write_text(json.dumps({name: {**entry, "sha256": "0" * 64}}))
    assert made_of(sources=replace(Sources(), interpreter=file)).id != FIRST.id
    assert made_of(sources=replace(Sources(), python="3.12")).id != FIRST.id


def test_the_neuron_lock_counts_where_the_worker_draws_on_neuron(tmp_path: Path) -> None:
    file = tmp_path / "neuron.txt"
    file.write_text("torch-neuronx==2.9\n")
    draws = loaded("inf2-ubuntu", neuron={"python_index": "https://example.org/pip"})
    first = made_of(draws, sources=replace(Sources(), neuron=file))
    other_file = tmp_path / "other.txt"
    other_file.write_text("torch-neuronx==2.10\n")
    assert made_of(draws, sources=replace(Sources(), neuron=other_file)).id != first.id
    assert made_of(sources=replace(Sources(), neuron=file)) == FIRST


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"base": "ami-0fedcba9876543210"}, id="base AMI"),
        pytest.param({"code": replace(CODE, tree="u" * 64)}, id="worker's code"),
        pytest.param({"own_checks": {"checks/test_more.py": "1" * 64}}, id="own check"),
        pytest.param({"lock": replace(LOCK, revision="9" * 40)}, id="weights' revision"),
        pytest.param(
            {"lock": replace(LOCK, files={"x.json": WeightFile(4, sha256="b" * 64)})}, id="a weight"
        ),
        pytest.param({"lock": None}, id="no lock"),
        pytest.param({"sources": replace(Sources(), builder={"BAKE_MIRROR": "x"})}, id="rehearsal"),
    ],
)
def test_each_other_input_is_another_image(changes: dict[str, Any]) -> None:
    assert made_of(**changes).id != FIRST.id


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"code": replace(CODE, url="https://example.org/a.git", commit="1" * 40)}, id="repository"
        ),
        pytest.param({"code": replace(CODE, changed=True)}, id="a commit of the same files"),
        pytest.param({"sources": replace(Sources(), hub="http://127.0.0.1:1")}, id="Hub"),
        pytest.param({"sources": replace(Sources(), sizes={"x.json": 1})}, id="sizes"),
        pytest.param({"sources": replace(Sources(), worker={"X": "1"}, disk="sparse")}, id="machines"),
    ],
)
def test_where_the_same_comes_from_does_not_matter(changes: dict[str, Any]) -> None:
    assert made_of(**changes) == FIRST


def test_the_port_of_a_local_mirror_does_not_matter() -> None:
    one, two = (
        made_of(sources=replace(Sources(), builder={"BAKE_MIRROR": f"http://127.0.0.1:{port}"}))
        for port in (1, 2)
    )
    assert one == two


# The files of bake itself


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what bake reads of itself."""
    for name in ("PROVISION", "CHECKS", "PACKAGE"):
        folder: Path = getattr(resources, name)
        ignored = shutil.ignore_patterns("__pycache__", "localcloud", "_data")
        shutil.copytree(folder, tmp_path / name, ignore=ignored, dirs_exist_ok=True)
        monkeypatch.setattr(identity, name, tmp_path / name)
    assert made_of() == FIRST
    return tmp_path


@pytest.mark.parametrize(
    ("file", "group"),
    [
        ("PROVISION/seal.yaml", "provision"),
        ("PROVISION/scripts/20-worker.sh", "provision"),
        ("PROVISION/rootfs/etc/udev/rules.d/60-bake-read-ahead.rules", "provision"),
        ("PROVISION/prefetch/download.py", "provision"),
        ("CHECKS/test_disk.py", "checks"),
        ("CHECKS/probes/power.py", "checks"),
        *((f"PACKAGE/{name}", "bake") for name in SHAPING),
    ],
)
def test_another_file_that_shapes_the_image_is_another_image(checkout: Path, file: str, group: str) -> None:
    with (checkout / file).open("a", encoding="utf-8") as end:
        end.write("\n# another\n")
    found = made_of()
    assert [name for name in FIRST.parts if found.parts[name] != FIRST.parts[name]] == [group]
    assert found.id != FIRST.id


def test_a_file_more_and_another_mode_are_another_image(checkout: Path) -> None:
    (checkout / "PROVISION/scripts/20-worker.sh").chmod(0o600)
    other_mode = made_of()
    (checkout / "PROVISION/rootfs/etc/more").write_text("")
    assert len({FIRST.id, other_mode.id, made_of().id}) == 3


@pytest.mark.parametrize(
    "file", ["PROVISION/launch/gpu.sh", "PROVISION/locks/worker.in", "PACKAGE/steps/publish.py"]
)
def test_another_file_that_shapes_nothing_is_the_same_image(checkout: Path, file: str) -> None:
    (checkout / file).write_text("# another\n")
    assert made_of() == FIRST


def test_each_step_shapes_the_image_or_does_not() -> None:
    there = {file.stem for file in (resources.PACKAGE / "steps").glob("*.py")}
    shaping = {Path(name).stem for name in SHAPING if name.startswith("steps/")}
    assert not shaping & set(NOT_SHAPING)
    assert there == shaping | set(NOT_SHAPING)
    assert all((resources.PACKAGE / name).is_file() for name in SHAPING)


# What is told of it


def test_a_plan_has_the_same_identity() -> None:
    plan = planned()
    assert plan.identity.parts["base"] == {"ami": BASE}
    assert plan.id == plan.identity.id == made_of(code=CODE, lock=None).id


def test_the_tag_says_what_each_group_is_within_the_limits_of_tags() -> None:
    told = made_of(own_checks={"a.py": "1" * 64}).tag
    assert len(told) <= 256
    assert re.fullmatch(r"[A-Za-z0-9 _.:/=+@-]+", told)
    assert told.startswith(f"base={BASE} worker=tttttttt profile=")


def test_the_parts_are_texts_without_a_secret() -> None:
    text = json.dumps(FIRST.parts)
    assert "hf_" not in text
    assert {type(value) for found in FIRST.parts.values() for value in found.values()} == {str}
