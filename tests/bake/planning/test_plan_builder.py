"""Baking on a builder without the accelerator: only where the profile says what the image is for."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from bake import profile
from bake.account.network import Subnet
from bake.account.quotas import Quota
from bake.errors import UsageError
from bake.planning import estimates
from bake.planning.plan import Plan
from bake.planning.render import as_dict, as_text
from bake.planning.sources import Sources
from bake.weights import flux

from ..conftest import PROFILES
from .conftest import Account

CHEAP = {"instance_type": "m7i.xlarge"}
FOR_G6E = {"instance_type": "g6e.xlarge"}
INDEX = "https://neuron.example.com/simple"
SDK = Sources(sizes=flux.SIZES, neuron=Sources().requirements)  # any lock does for a plan


def refusal(account: Account, name: str = "g6e-ubuntu", **changes: dict[str, Any]) -> list[str]:
    with pytest.raises(UsageError) as caught:
        account.plan(name, **changes)
    return caught.value.message.splitlines()


@pytest.fixture
def plan(account: Account) -> Plan:
    return account.plan(builder=CHEAP, worker=FOR_G6E)


def test_without_a_word_of_the_workers_such_a_builder_is_refused(account: Account) -> None:
    assert refusal(account, builder=CHEAP) == [
        "builder.instance_type: m7i.xlarge has no NVIDIA GPU, which accelerator: cuda needs",
        "    to bake on it an image for another type, name that one in worker.instance_type: what needs the "
        "NVIDIA GPU is checked when the image boots there. `bake approve` agrees to it",
    ]


def test_what_the_image_is_for_is_held_against_the_model(plan: Plan) -> None:
    assert [kind.name for kind in plan.launch.types] == ["m7i.xlarge"]
    assert [kind.name for kind in plan.launch.worker_types] == ["g6e.xlarge"]
    assert [(memory.instance_type, memory.verdict) for memory in plan.verify.memory] == [
        ("g6e.xlarge", "fits")
    ]
    assert (plan.provision.drivers.on_builder, plan.provision.drivers.drawn_on) == (False, "cuda")
    assert plan.provision.settings["BAKE_DEVICE"] == "no"


def test_a_builder_with_the_accelerator_is_checked_with_it(account: Account) -> None:
    plan = account.plan()
    assert plan.provision.settings["BAKE_DEVICE"] == "yes"
    assert plan.verify.builder_memory == ()
    larger = account.plan(builder={"instance_type": "g6e.4xlarge"}, worker=FOR_G6E)
    assert larger.provision.settings["BAKE_DEVICE"] == "yes"
    assert not [warning for warning in larger.warnings if "no NVIDIA GPU" in warning]


def test_where_no_machine_has_a_gpu_none_is_asked_for(account: Account) -> None:
    """A local cloud's instance has its type's name, and no GPU."""
    local = Sources(sizes=flux.SIZES, devices=frozenset({"neuron"}))
    plan = account.decide(account.profile(), local)
    assert (plan.provision.settings["BAKE_DEVICE"], plan.provision.drivers.drawn_on) == ("no", "cpu")


@pytest.mark.parametrize(
    ("devices", "name", "index", "backend", "drawn_on"),
    [
        pytest.param(("cuda", "neuron"), "g6e-ubuntu", None, "cuda", "cuda", id="a GPU on AWS"),
        pytest.param(("cuda", "neuron"), "inf2-ubuntu", INDEX, "neuron", "neuron", id="Neuron on AWS"),
        pytest.param(("cuda", "neuron"), "inf2-ubuntu", None, "cpu", "cpu", id="nothing compiled for Neuron"),
        pytest.param(("neuron",), "g6e-ubuntu", None, "cuda", "cpu", id="a GPU in a rehearsal"),
        pytest.param(("neuron",), "inf2-ubuntu", INDEX, "neuron", "neuron", id="Neuron in a rehearsal"),
        pytest.param(("neuron",), "inf2-ubuntu", None, "cpu", "cpu", id="nothing compiled, in a rehearsal"),
    ],
)
def test_the_image_says_what_it_draws_on_and_a_launch_without_that_says_cpu(
    account: Account, devices: tuple[str, ...], name: str, index: str | None, backend: str, drawn_on: str
) -> None:
    large: dict[str, dict[str, Any]] = {
        "builder": {"instance_type": "inf2.24xlarge"},
        "neuron": {"python_index": index},
        "root_volume": {"size_gib": 200},
    }
    changes = large if name == "inf2-ubuntu" else {}
    local = replace(SDK, devices=frozenset(devices), worker={"AWS_ENDPOINT_URL": "http://10.0.0.1"})
    plan = account.decide(account.profile(name, **changes), local)
    told = {} if backend == drawn_on else {"FLUX_BACKEND": "cpu"}
    assert (plan.provision.settings["WORKER_BACKEND"], plan.provision.drivers.drawn_on) == (backend, drawn_on)
    assert plan.launch.settings == {"AWS_ENDPOINT_URL": "http://10.0.0.1", **told}
    shown = {**as_dict(plan)["drivers"]}
    assert (shown["backend"], shown["drawn_on"]) == (backend, drawn_on)
    row = f"{backend}; launched with FLUX_BACKEND=cpu, for no instance here has it" if told else backend
    assert re.search(rf"^  backend +{row}$", as_text(plan), re.MULTILINE)


def test_the_text_shows_both_types_and_what_waits(plan: Plan) -> None:
    text = as_text(plan)
    assert re.search(r"builder +m7i\.xlarge in eu-north-1, on-demand\n", text)
    assert re.search(r"workers +g6e\.xlarge: what the image is for, and its boot check\n", text)
    for part in (
        "m7i.xlarge: 4 vCPUs, 16,384 MiB\n",
        "g6e.xlarge: 4 vCPUs, 32,768 MiB, L40S with 45,776 MiB; 250 GB",
        "✓ g6e.xlarge in bf16: fits",
        "✓ m7i.xlarge as builder: fits\n      9,571 MiB  of 16,384 MiB host RAM; 6,813 MiB to spare\n",
        "✓ m7i.xlarge is offered in eu-north-1b",
        "✓ g6e.xlarge is offered in eu-north-1b",
    ):
        assert part in text
    (warning,) = plan.warnings
    assert warning == (
        "the builder (m7i.xlarge) has no NVIDIA GPU: the bake checks only the driver's files there, and "
        "the boot check tests the image on g6e.xlarge"
    )
    told = json.loads(json.dumps(as_dict(plan)))
    assert [kind["name"] for kind in told["worker_instance_types"]] == ["g6e.xlarge"]


def test_both_are_facts_to_be_agreed_to(plan: Plan, account: Account) -> None:
    facts = {fact.name: fact.value for fact in plan.facts}
    assert (facts["instance_types"], facts["worker_instance_types"]) == (["m7i.xlarge"], ["g6e.xlarge"])
    assert {fact.name: fact.value for fact in account.plan().facts}["worker_instance_types"] is None


def test_the_place_of_the_workers_types_is_named(account: Account, tmp_path: Any) -> None:
    for file in PROFILES.glob("*.yaml"):
        (tmp_path / file.name).write_text(file.read_text())
    text = "builder:\n  instance_type: m7i.xlarge\nworker:\n  instance_types: [g6e.xlarge]\n"
    (tmp_path / "cheap.yaml").write_text(f"extends: g6e-ubuntu\n{text}")
    found, origins = profile.load_with_origins("cheap", tmp_path, account.variables)
    plan = account.decide(found, Sources(sizes=flux.SIZES), origins)
    (fact,) = (fact for fact in plan.facts if fact.name == "worker_instance_types")
    assert fact.origin.endswith("cheap.yaml:5")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"worker": {"instance_type": "t3.micro"}},
            "worker.instance_type: t3.micro has no NVIDIA GPU, which accelerator: cuda needs",
            id="no GPU for the workers either",
        ),
        pytest.param(
            {"worker": {"instance_type": "g6e.tiny"}},
            "worker.instance_type: g6e.tiny is not offered in eu-north-1",
            id="a type that is not there",
        ),
        pytest.param(
            {"worker": {"instance_type": "g6.xlarge"}},
            "weights.precision: FLUX.1-dev in bf16 does not fit g6.xlarge",
            id="the model does not fit the workers",
        ),
        pytest.param(
            {"builder": {"instance_type": "m7i.large"}},
            "builder.instance_type: m7i.large has 8,192 MiB of RAM; a bake takes 9,571 MiB",
            id="too small a builder",
        ),
        pytest.param(
            {"builder": {"instance_type": None, "instance_types": ("g6e.xlarge", "m7i.xlarge")}},
            "builder.instance_types: m7i.xlarge has no NVIDIA GPU, and the others have one",
            id="some with, some without",
        ),
        pytest.param(
            {"builder": {"instance_type": "m7g.xlarge"}},
            "builder.instance_type: {ami} is x86_64, but m7g.xlarge runs arm64",
            id="another architecture",
        ),
        pytest.param(
            {"worker": {"instance_type": None, "instance_types": ("g6e.xlarge", "g5.xlarge")}},
            "weights.precision: FLUX.1-dev in bf16 does not fit g5.xlarge",
            id="one of the workers' types too small",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    account: Account, changes: dict[str, dict[str, Any]], expected: str
) -> None:
    lines = refusal(account, **{"builder": CHEAP, "worker": FOR_G6E, **changes})
    assert lines[0] == expected.format(ami=account.variables["BASE_AMI_ID"])


def test_workers_must_be_had_where_the_builder_stands(account: Account) -> None:
    network = {"subnet": "subnet-c"}
    account.subnets["subnet-c"] = Subnet("vpc-1", "eu-north-1c", 9)
    lines = refusal(account, builder={**CHEAP, **network}, worker=FOR_G6E)
    assert lines[0] == (
        f"worker.instance_type: g6e.xlarge is not offered in eu-north-1c, the zone of {network['subnet']}"
    )


def test_the_int8_comparison_on_a_cpu_is_said_and_reckoned_with(account: Account) -> None:
    cheap = account.plan("g5-ubuntu", builder=CHEAP, worker={"instance_type": "g5.xlarge"})
    on_gpu = account.plan("g5-ubuntu")
    (warning,) = cheap.warnings
    assert warning.endswith("drawn on its CPU, about 7 min beside reading the weights")
    assert "int8 draws an image on its CPU" in as_text(cheap)
    drawing = estimates.cpu_drawing_seconds(cheap.launch.types[0])
    assert 300 < drawing < 600
    # m7i.xlarge reads faster than g5.xlarge from the same volume, so it is not just the sum.
    assert cheap.estimates.boot_check_seconds == on_gpu.estimates.boot_check_seconds
    assert cheap.estimates.limit == "the volume's limit"


def test_a_smaller_gpu_that_bakes_must_draw_int8_too(account: Account) -> None:
    lines = refusal(
        account,
        "g5-ubuntu",
        builder={"instance_type": "g4dn.xlarge"},
        worker={"instance_type": "g5.xlarge"},
    )
    assert lines[0] == (
        "builder.instance_type: int8 is drawn once on the builder, and does not fit g4dn.xlarge"
    )


def test_a_quota_without_room_for_the_workers_names_their_setting(account: Account) -> None:
    account.quotas = {"a|c|d|h|i|m|r|t|z": Quota("Standard", 16, 0), "g|gr|vt": Quota("G and VT", 0, 0)}
    lines = refusal(account, builder=CHEAP, worker=FOR_G6E)
    assert lines[0].startswith(
        "worker.instance_type: g6e.xlarge has 4 vCPUs, but the account's on-demand quota"
    )


def test_neuron_is_compiled_on_a_type_without_devices(account: Account) -> None:
    variables = {"python_index": INDEX}
    changes: dict[str, dict[str, Any]] = {
        "builder": {"instance_type": "r7i.2xlarge"},
        "worker": {"instance_type": "inf2.24xlarge"},
        "neuron": variables,
        "root_volume": {"size_gib": 200},
    }
    plan = account.decide(account.profile("inf2-ubuntu", **changes), SDK)
    assert [memory.where for memory in plan.verify.memory] == ["4 x Inferentia2"]
    assert (plan.provision.drivers.on_builder, plan.provision.drivers.drawn_on) == (False, "neuron")
    assert any("the builder (r7i.2xlarge) has no Neuron device" in warning for warning in plan.warnings)
    (memory,) = plan.verify.builder_memory
    assert memory.needed == 3072 + 22700
    assert "the compiler for Neuron reads its transformer of 23.8 GB" in memory.why
    changes["builder"] = CHEAP
    with pytest.raises(UsageError, match=r"m7i\.xlarge has 16,384 MiB of RAM; a bake takes 25,772 MiB"):
        account.decide(account.profile("inf2-ubuntu", **changes), SDK)
