"""The sum with what was measured, and the choices where it does not fit: pure, of numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from bake.agreement import facts
from bake.errors import UsageError
from bake.planning import capacity
from bake.planning import disk as disk_of
from bake.planning.base_image import BaseImage
from bake.planning.capacity import Content, Thing
from bake.planning.disk import Disk
from bake.planning.findings import Findings
from bake.planning.plan import Plan
from bake.planning.render import as_dict, as_text
from bake.planning.weights import WeightFiles
from bake.profile import Profile
from bake.weights import flux
from bake.weights.flux import GIB, WeightFile

from .conftest import Account

WEIGHTS = WeightFiles({path: WeightFile(size) for path, size in flux.SIZES.items()}, "known sizes")
AMAZONS = BaseImage("ami-1", "ubuntu", "x86_64", "/dev/sda1", 75)
SIZE = round(78.5 * GIB)
APART = {"builder": {"instance_type": "m7i.xlarge"}, "worker": {"instance_type": "g6e.xlarge"}}
INT8 = {"precision": "int8", "keep_source": False}


def thing(name: str, gib: float, kind: str = "toolkit", **more: Any) -> Thing:
    return Thing(name, kind, (f"/x/{name}",), round(gib * GIB), **more)


CUDA = [thing("cuda-12.6", 10), thing("cuda-12.8", 10.5), thing("cuda-13.0", 9)]
OTHERS = [thing("pytorch", 6, "environment"), thing("docker-images", 4, "container images")]


def content(used_gib: float, *things: Thing) -> Content:
    used = round(used_gib * GIB)
    return Content(SIZE, used, SIZE - used, tuple(things))


def summed(profile: Profile, found: Content, *removed: Thing) -> Disk:
    return capacity.measured(disk_of.estimate(profile, AMAZONS, WEIGHTS), found, removed)


def choices(plan: Plan, found: Content, *removed: Thing) -> list[str]:
    profile, types = plan.profile, plan.launch.types
    disk = summed(profile, found, *removed)
    assert disk.free < 0
    return capacity.choices(profile, types, WEIGHTS, disk, found)


def test_what_was_measured_takes_the_place_of_what_was_guessed(account: Account) -> None:
    disk = summed(account.profile(), content(48))
    assert disk_of.arithmetic(disk) == [
        "   48.0 GiB  base AMI     measured on the builder",
        "   31.4 GiB  weights      known sizes",
        "    5.1 GiB  worker       its environment, measured",
        "    1.5 GiB  file system  measured: 78.5 GiB of file system; other partitions, its own",
        "    2.0 GiB  kept free    logs, caches",
        "   88.1 GiB  of 80 GiB; 8.1 GiB missing",
    ]
    assert disk.verdict == "does not fit"


def test_blocks_that_only_root_may_write_are_not_free(account: Account) -> None:
    found = dataclasses.replace(content(40), available=SIZE - 44 * GIB)
    assert summed(account.profile(), content(40)).free - summed(account.profile(), found).free == 4 * GIB


def test_what_is_to_be_removed_is_taken_off(account: Account) -> None:
    profile, found = account.profile(), content(48, *CUDA)
    disk = summed(profile, found, CUDA[0])
    assert disk.free - summed(profile, found).free == CUDA[0].bytes
    assert "  -10.0 GiB  removed      base.remove: cuda-12.6, /x/cuda-12.6" in disk_of.arithmetic(disk)


def test_one_toolkit_is_enough_and_the_smallest_that_is(account: Account) -> None:
    lines = choices(account.plan(), content(48.5, *CUDA, OTHERS[1]))
    assert lines[:3] == [
        "base:",
        "  remove: [cuda-13.0]   # gives 9.0 GiB: enough",
        "  # there are also cuda-12.6 (10.0 GiB), cuda-12.8 (10.5 GiB), docker-images (4.0 GiB)",
    ]
    assert lines[-1].startswith("or a larger disk, if you ask for one: root_volume.size_gib of 90 at least")


def test_environments_come_last(account: Account) -> None:
    found = content(45, thing("pytorch", 8, "environment"), *[thing(f"cuda-12.{n}", 3) for n in range(3)])
    assert "  remove: [cuda-12.0, cuda-12.1]   # gives 6.0 GiB: enough" in choices(account.plan(), found)
    both = content(50, thing("pytorch", 8, "environment"), *[thing(f"cuda-12.{n}", 3) for n in range(3)])
    assert "  remove: [pytorch, cuda-12.0]   # gives 11.0 GiB: enough" in choices(account.plan(), both)


def test_the_lines_are_a_profile_s_own(account: Account) -> None:
    """What is offered can be pasted: YAML that the schema takes."""
    lines = choices(account.plan(), content(48, *CUDA))
    first, second = "\n".join(lines[:-1]).split("\nor\n")[:2]
    assert yaml.safe_load(first) == {"base": {"remove": ["cuda-13.0"]}}
    assert yaml.safe_load(second) == {"weights": {**INT8, "scratch": "instance-store"}}


def test_scratch_gives_the_source_where_int8_is_made_anyway(account: Account) -> None:
    lines = choices(account.plan("g5-ubuntu"), content(48, *CUDA))
    assert "  scratch: instance-store   # gives 31.4 GiB: enough" in lines
    assert lines[lines.index("weights:") + 1].startswith("  scratch")


def test_both_together_where_neither_is_enough(account: Account) -> None:
    lines = choices(account.plan(), content(62, *CUDA[:1], *OTHERS))
    assert "  remove: [cuda-12.6, pytorch, docker-images]   # gives 20.0 GiB: 2.1 GiB short" in lines
    assert "  scratch: instance-store   # gives 15.3 GiB: 6.7 GiB short" in lines
    assert "  remove: [cuda-12.6]" in lines
    assert "  scratch: instance-store   # gives 25.3 GiB: enough" in lines


def test_what_is_removed_already_stays_in_the_list(account: Account) -> None:
    lines = choices(account.plan(), content(60, *CUDA), CUDA[0])
    assert "  remove: [cuda-12.6, cuda-12.8]   # gives 10.5 GiB: enough" in lines


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("g5-ubuntu", {"weights": {**INT8, "scratch": "instance-store"}}),
        (
            "g6e-ubuntu",
            {"builder": {"instance_type": "m7i.xlarge"}, "worker": {"instance_type": "g6e.xlarge"}},
        ),
    ],
    ids=["set already", "no instance store"],
)
def test_scratch_is_not_offered_where_it_cannot_be_had(
    account: Account, name: str, changes: dict[str, Any]
) -> None:
    lines = choices(account.plan(name, **changes), content(77, *CUDA))
    assert not any("scratch" in line for line in lines)


def test_neither_another_model_nor_what_must_stay_is_offered(account: Account) -> None:
    stuck = thing("cuda-13.0", 9, blocked="python3 of this machine lies in it")
    base = thing("conda", 20, "environment", needed_by=("pytorch",))
    found = content(48, stuck, base, thing("pytorch", 6, "environment"))
    text = "\n".join(choices(account.plan(), found))
    assert "schnell" not in text
    assert "SDXL" not in text
    assert "cuda-13.0" not in text
    assert "conda" not in text
    assert any("stays: python3 of this machine lies in it" in line for line in capacity.inventory(found))
    assert any("stays: pytorch is built on it" in line for line in capacity.inventory(found))


def test_what_is_built_on_a_thing_may_go_with_it() -> None:
    found = content(48, thing("conda", 20, "environment", needed_by=("pytorch",)), *OTHERS)
    assert capacity.chosen(["conda"], found)[1] == ["conda can't be removed: pytorch is built on it"]
    assert capacity.chosen(["conda", "pytorch"], found)[1] == []


def test_a_size_that_is_not_known_to_the_end_is_a_lower_bound() -> None:
    found = content(48, thing("cuda-12.6", 0.06, complete=False))
    assert capacity.inventory(found) == ["    0.1 GiB at least  cuda-12.6        /x/cuda-12.6"]


def test_another_file_system_is_no_root_volume() -> None:
    found = dataclasses.replace(
        content(10), places={"/home/x": "/home", "/opt": "/opt"}, free={"/opt": 3 * GIB}
    )
    assert capacity.elsewhere(found, {"/home/x": 0, "/opt": 5 * GIB, "/var": 0}) == [
        "/home/x lies on the file system of /home, not on the root volume's own",
        "/opt needs 5.0 GiB; the file system of /opt has 3.0 GiB",
    ]


def test_the_plan_says_what_is_not_known_until_connect(account: Account) -> None:
    plan = account.plan(base={"remove": ("cuda-12.6",)})
    text = as_text(plan)
    assert "without cuda-12.6" in text
    assert any(line.startswith("whether the base AMI has cuda-12.6 (base.remove)") for line in plan.unchecked)
    findings = Findings()
    profile = account.profile()
    disk_of.check(profile, AMAZONS, disk_of.estimate(profile, AMAZONS, WEIGHTS), findings)
    assert findings.unchecked == [
        "what the base AMI holds of its 75 GiB (measured on the builder before a byte is fetched; "
        "if it does not fit, the bake stops there)"
    ]


def test_what_is_to_be_removed_may_make_a_full_base_fit(account: Account) -> None:
    """Of a base whose content EC2 tells, what base.remove gives is known at connect alone."""
    profile = account.profile(base={"remove": ("cuda-12.6",)})
    for image, problems in ((60, 0), (38, 0)):
        base = dataclasses.replace(AMAZONS, content_bytes=image * GIB)
        findings = Findings()
        disk_of.check(profile, base, disk_of.estimate(profile, base, WEIGHTS), findings)
        assert len(findings.problems) == problems
        assert any("less what base.remove gives" in line for line in findings.warnings)


def test_removing_is_agreed_to(account: Account) -> None:
    plan = account.plan(base={"remove": ("cuda-12.8", "cuda-12.6")})
    told = as_dict(plan)["facts"]["base.remove"]
    assert told["value"] == ["cuda-12.8", "cuda-12.6"]
    agreed = {fact.name: fact.value for fact in account.plan().facts}
    del agreed["base.remove"]  # a lock file of before
    guarded = facts.Guarded(plan.facts, {})
    held = facts.Agreement(file=Path("lock.yaml"), agreed=agreed)
    assert [difference.name for difference in facts.compare(guarded, held)] == ["base.remove"]
    assert facts.compare(facts.Guarded(account.plan().facts, {}), held) == []
    order = dataclasses.replace(held, agreed={**agreed, "base.remove": ["cuda-12.6", "cuda-12.8"]})
    assert facts.compare(guarded, order) == []


def test_scratch_takes_the_source_off_the_root_volume(account: Account) -> None:
    plan = account.plan("g5-ubuntu", weights={**INT8, "scratch": "instance-store"})
    lines = disk_of.arithmetic(plan.image.disk)
    assert "    0.0 GiB  weights      31.4 GiB in bf16 lie on the instance store meanwhile" in lines
    assert plan.image.disk.removed == 0
    assert account.plan("g5-ubuntu").image.disk.needed - plan.image.disk.needed == plan.weights.files.bytes
    assert plan.weights.download_cache == "/run/bake-scratch/hub"
    assert plan.weights.cache == "/home/ubuntu/.cache/huggingface/hub"
    text = as_text(plan)
    assert "the bf16 files lie on the builder's instance store meanwhile" in text
    assert "250 GB of instance store take the bf16 files while int8 is made" in text
    assert "g5.xlarge has an instance store of 250 GB for bf16" in plan.checked


def test_scratch_needs_an_instance_store(account: Account) -> None:
    changes: dict[str, Any] = {
        "builder": {"instance_type": "m7i.xlarge"},
        "worker": {"instance_type": "g5.xlarge"},
        "weights": {**INT8, "scratch": "instance-store"},
    }
    with pytest.raises(UsageError) as caught:
        account.plan("g5-ubuntu", **changes)
    said = (
        "weights.scratch: m7i.xlarge (builder.instance_type) has no instance store for 35.4 GB: it has none"
    )
    assert said in caught.value.message
