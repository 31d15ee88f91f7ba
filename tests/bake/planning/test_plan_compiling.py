"""What the plan says of compiled blocks and of libraries that no start opens: done, or why not."""

from __future__ import annotations

from typing import Any

import pytest

from bake.errors import UsageError
from bake.layout import SETTINGS
from bake.planning import compiling, drivers
from bake.planning.hardware import Types
from bake.planning.plan import Plan
from bake.planning.render import as_text
from bake.planning.sources import Sources
from bake.resources import PROVISION
from bake.steps.provision import render

from .conftest import Account

SIZES = {"compile_sizes": ("1024x1024", "768x1344")}
REMOVE = {"remove_unused_libraries": True}
CPU = {"instance_type": "m7i.xlarge"}
ENV = PROVISION / "rootfs" / "etc" / "flux-worker" / "worker.env.j2"


def worker_env(plan: Plan) -> str:
    """The file that the image gets."""
    return render(ENV.read_text(), {**SETTINGS, **plan.provision.settings})


def warnings(plan: Plan, key: str) -> list[str]:
    return [text for text in plan.warnings if text.startswith(f"worker.{key}")]


def test_on_the_workers_own_type_it_is_compiled_and_the_image_turns_it_on(account: Account) -> None:
    plan = account.plan(worker=SIZES)
    assert plan.provision.drivers.compiles == ("1024x1024", "768x1344")
    assert "cuda; compiled on the builder for 1024x1024, 768x1344" in as_text(plan)
    assert not warnings(plan, "compile_sizes")
    lines = worker_env(plan).splitlines()
    assert {"FLUX_COMPILE=regional", "FLUX_COMPILE_CACHE=/opt/flux-worker/compiled"} <= set(lines)


def test_without_sizes_nothing_is_said_of_them(account: Account) -> None:
    plan = account.plan()
    assert plan.provision.drivers.compiles == ()
    assert "ompiled" not in worker_env(plan).replace("Where an image for Neuron has what was compiled", "")
    assert "FLUX_COMPILE" not in worker_env(plan)
    assert not warnings(plan, "")


def test_on_a_builder_without_a_gpu_the_plan_and_the_image_say_that_nothing_is(account: Account) -> None:
    plan = account.plan(builder=CPU, worker={"instance_type": "g6e.xlarge", **SIZES, **REMOVE})
    why = "the builder m7i.xlarge has no L40S"
    assert warnings(plan, "compile_sizes") == [
        f"worker.compile_sizes: nothing is compiled, since {why}: workers draw eagerly"
    ]
    assert warnings(plan, "remove_unused_libraries") == [
        f"worker.remove_unused_libraries: nothing is removed, since {why}: what a start opens is not seen"
    ]
    assert f"# Nothing is compiled: {why}." in worker_env(plan).splitlines()
    assert "FLUX_COMPILE=" not in worker_env(plan)


def test_a_builder_with_another_gpu_compiles_nothing(account: Account) -> None:
    plan = account.plan("g5-ubuntu", worker={"instance_type": "g6e.xlarge", **SIZES})
    [said] = warnings(plan, "compile_sizes")
    assert "the builder g5.xlarge has A10G" in said
    assert "and the workers L40S" in said


def test_of_workers_with_several_gpus_those_like_the_builder_are_served(account: Account) -> None:
    types = ["g6e.xlarge", "g6.xlarge"]
    plan = account.plan("g6-ubuntu", worker={"instance_types": types, **SIZES})
    assert plan.provision.drivers.compiles
    assert warnings(plan, "compile_sizes") == ["worker.compile_sizes: workers with L40S draw eagerly"]


def test_where_instances_have_no_gpu_as_in_a_rehearsal_that_is_why(account: Account) -> None:
    plan = account.plan(worker=SIZES)
    types = Types(plan.launch.types, plan.launch.worker_types)
    found = drivers.decide(plan.profile, Sources().requirements, types, ())
    assert (found.compiles, found.lacks) == ((), "instances here have no GPU")
    assert compiling.lacks(plan.profile, types) == ""


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (SIZES, r"worker\.compile_sizes: nothing is compiled so for accelerator: neuron\n.*neuron\.sizes"),
        (REMOVE, r"worker\.remove_unused_libraries: is for accelerator: cuda alone, not neuron"),
    ],
)
def test_neuron_has_its_own_sizes(account: Account, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        account.plan("inf2-ubuntu", builder={"instance_type": "inf2.24xlarge"}, worker=asked)


def test_each_size_takes_its_time_and_only_where_it_is_compiled(account: Account) -> None:
    none, one, two = (
        account.plan(worker={"compile_sizes": sizes}).estimates.builder_seconds
        for sizes in ((), ("1024x1024",), SIZES["compile_sizes"])
    )
    assert two - one == pytest.approx(one - none)
    assert one - none > compiling.COMPILING
    elsewhere = [
        account.plan(builder=CPU, worker={"instance_type": "g6e.xlarge", **asked}).estimates.builder_seconds
        for asked in ({}, SIZES)
    ]
    assert elsewhere[0] == elsewhere[1]


def test_the_builders_type_is_an_input_where_it_decides_what_is_compiled(account: Account) -> None:
    ids = {
        (name, bool(asked)): account.plan(
            builder={"instance_type": name}, worker={"instance_type": "g6e.xlarge", **asked}
        ).id
        for name in ("g6e.xlarge", "m7i.xlarge")
        for asked in ({}, SIZES)
    }
    assert ids["g6e.xlarge", False] == ids["m7i.xlarge", False]
    assert ids["g6e.xlarge", True] != ids["m7i.xlarge", True]
