"""The hydration plan: how a new volume gets what a start reads, and what each way takes and costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bake.account.answers import Unanswered
from bake.account.facts import TypeFacts, WiringFacts
from bake.account.prices import PriceFacts
from bake.account.starts import Started, StartFacts
from bake.account.wiring import Bucket
from bake.hydration import Measured
from bake.planning.hydration import Hydration, Way, at_once, credits_of, rate_price
from bake.planning.hydration_text import section
from bake.planning.plan import Plan
from bake.planning.render import as_dict, as_text
from bake.profile.cold_start import ColdStart

from ..facts import ZONE
from ..instance_types import TYPES
from .test_pure import loaded, planned

PAGE = Path(__file__).parents[3] / "docs/cold-start.md"
WEIGHTS = 33_741e6  # bytes of FLUX.1-dev in bfloat16
RATE = "VolumeInitializationRate 300"
IMAGE = "ami-0aaaaaaaaaaaaaaaa"
FAST = {"throughput": 1000, "iops": 4000}  # so that the instance type's 625 MB/s count
DENIED = Unanswered("AWS answers UnauthorizedOperation")


def plan_of(
    cold: dict[str, Any] | None = None,
    volume: dict[str, Any] | None = None,
    stream: str | None = None,
    **facts: Any,
) -> Plan:
    of = loaded(root_volume=volume or {}, weights={"stream": stream})
    facts.setdefault("wiring", WiringFacts(stream=Bucket("eu-north-1")))
    return planned(of.model_copy(update={"cold_start": ColdStart(**cold or {})}), **facts)


def way(found: Hydration, name: str) -> Way:
    return next(one for one in found.ways if one.name == name)


def measured(mb_per_s: float = 93.1, **more: Any) -> StartFacts:
    found = Measured(mb_per_s, 34_500_000_000, **{"volume": "gp3", **more})
    return StartFacts(Started(IMAGE, "2026-11-29T00:00:00.000Z", found))


def flat(found: Hydration) -> str:
    return " ".join("\n".join(section(found)).split())


def test_the_page_shows_what_the_program_prints() -> None:
    """docs/cold-start.md has one of these plans."""
    found = plan_of({"volume_initialization_rate": 300, "launches_per_hour": 12}, FAST).hydration
    assert "\n".join(section(found)) in PAGE.read_text(encoding="utf-8")


# --- seconds ---------------------------------------------------------------------------------------


def test_a_lazy_volume_is_filled_at_the_published_speed_of_a_deep_queue() -> None:
    """100 to 140 MB/s, the latter no faster than gp3's 125 MiB/s."""
    found = plan_of().hydration
    lazy = way(found, "lazy")
    assert lazy.chosen and found.chosen == lazy
    assert lazy.seconds == pytest.approx(WEIGHTS / 100e6, rel=0.001)
    assert lazy.best == pytest.approx(WEIGHTS / 131.072e6, rel=0.001)
    assert "published figures of first reads at a deep queue" in flat(found)


def test_io2_is_filled_faster() -> None:
    found = plan_of(volume={"type": "io2", "iops": 8000, "throughput": None}).hydration
    assert found.lazy.mb_per_s == 700.0
    assert way(found, "lazy").seconds == pytest.approx(WEIGHTS / 625e6, rel=0.001)  # g6e.xlarge's burst


def test_the_floors_are_bytes_over_what_instance_type_and_network_give() -> None:
    found = plan_of(volume=FAST).hydration
    assert way(found, RATE).seconds == pytest.approx(WEIGHTS / (300 * 1.048576e6), rel=0.001)
    assert way(found, "Fast Snapshot Restore").seconds == pytest.approx(WEIGHTS / 625e6, rel=0.001)
    stream = way(found, "weights.stream")
    assert stream.seconds == pytest.approx(WEIGHTS / (100e6 + 312.5e6), rel=0.001)
    assert stream.best == pytest.approx(WEIGHTS / (140e6 + 2500e6), rel=0.001)
    both = way(found, "weights.stream and rate 300")
    assert both.best == pytest.approx(WEIGHTS / (314.5728e6 + 2500e6), rel=0.001)


def test_s3_gives_weights_alone() -> None:
    """8 GB of libraries come from the volume, however fast the network is."""
    found = plan_of(volume=FAST, starts=measured(100.0, libraries=8_000_000_000)).hydration
    assert way(found, "weights.stream").best == pytest.approx(8e9 / 100e6)


def test_a_network_that_is_not_known_makes_up_no_seconds() -> None:
    types = {**TYPES, "g6e.xlarge": replace(TYPES["g6e.xlarge"], network_baseline=0.0, network_peak=0.0)}
    facts = TypeFacts(types, {"g6e.xlarge": (ZONE,)}, {}, PriceFacts({"g6e.xlarge": 2.0}, 0.05))
    plan = plan_of(stream="s3://weights/flux", types=replace(facts, quotas={"g|gr|vt": DENIED}))
    assert plan.hydration.chosen.seconds is None
    assert "weights.stream not known" in flat(plan.hydration)
    assert plan.estimates.start.load == pytest.approx(WEIGHTS / 100e6, rel=0.001)  # from the volume alone


@pytest.mark.parametrize(
    ("cold", "stream", "chosen"),
    [
        ({}, None, "lazy"),
        ({"volume_initialization_rate": 300}, None, RATE),
        ({"volume_initialization_rate": 125}, None, "VolumeInitializationRate 125"),
        ({}, "s3://weights/flux", "weights.stream"),
        ({"volume_initialization_rate": 300}, "s3://weights/flux", "weights.stream and rate 300"),
    ],
)
def test_the_way_that_the_profile_asks_for_is_marked(
    cold: dict[str, Any], stream: str | None, chosen: str
) -> None:
    plan = plan_of(cold, stream=stream)
    assert [one.name for one in plan.hydration.ways if one.chosen] == [chosen]
    [marked] = [line for line in section(plan.hydration) if line.strip().startswith(">")]
    assert f">  {chosen} " in marked
    assert as_dict(plan)["hydration"]["chosen"] == chosen


# --- what was measured -----------------------------------------------------------------------------


def test_what_the_newest_image_measured_is_what_the_plan_takes() -> None:
    plan = plan_of(starts=measured(50.0, libraries=2_000_000_000))
    lazy = way(plan.hydration, "lazy")
    assert lazy.seconds == lazy.best == pytest.approx((WEIGHTS + 2e9) / 50e6, rel=0.001)
    assert f"measured: 50 MB/s over 34.5 GB, by the boot check of {IMAGE}" in flat(plan.hydration)
    assert "33.7 GB of weights, 2.0 GB of libraries" in flat(plan.hydration)
    assert as_dict(plan)["hydration"]["lazy"]["image"] == IMAGE


def test_a_measured_start_has_its_own_boot_and_imports() -> None:
    found = measured(50.0, boot=21.0, imports=11.0, first_draw=5.0)
    start = plan_of(starts=found).estimates.start
    assert start.seconds == pytest.approx(21 + 11 + WEIGHTS / 50e6 + 5, rel=0.001)
    shown = " ".join(as_text(plan_of(starts=found)).split())
    assert "boot 21 s, imports 11 s, first drawing 5 s" in shown
    assert f"measured by the boot check of {IMAGE}" in shown


@pytest.mark.parametrize(
    "other", [measured(50.0, volume="io2"), measured(250.0, rate=300), StartFacts(), StartFacts(DENIED)]
)
def test_what_was_measured_otherwise_tells_nothing_of_a_lazy_volume(other: StartFacts) -> None:
    assert plan_of(starts=other).hydration.lazy.image == ""


def test_a_rate_that_was_measured_is_taken_as_it_was() -> None:
    cold = {"volume_initialization_rate": 300}
    found = plan_of(cold, FAST, starts=measured(250.0, rate=300)).hydration
    assert way(found, RATE).seconds == pytest.approx(WEIGHTS / 250e6, rel=0.001)
    other = plan_of({"volume_initialization_rate": 200}, FAST, starts=measured(250.0, rate=300)).hydration
    assert way(other, "VolumeInitializationRate 200").seconds == pytest.approx(
        WEIGHTS / (200 * 1.048576e6), rel=0.001
    )


def test_what_nobody_answered_is_not_checked() -> None:
    expected = "whether a start of an earlier image was measured (AWS answers UnauthorizedOperation)"
    assert expected in plan_of(starts=StartFacts(DENIED)).unchecked


# --- dollars ---------------------------------------------------------------------------------------


def test_a_rate_costs_by_the_snapshots_data() -> None:
    plan = plan_of({"volume_initialization_rate": 300, "launches_per_hour": 12})
    chosen = plan.hydration.chosen
    assert chosen.launch_dollars == pytest.approx(plan.image.disk.stored / (1 << 30) * 0.0036)
    told = next(one for one in as_dict(plan)["hydration"]["ways"] if one["chosen"])
    assert told["dollars_an_hour"] == pytest.approx(12 * chosen.launch_dollars)
    assert told["dollars_a_month"] == pytest.approx(730 * 12 * chosen.launch_dollars)
    assert told["waiting_dollars"] == pytest.approx(2.0 * chosen.seconds / 3600)  # type: ignore[operator]


@pytest.mark.parametrize(("rate", "dollars"), [(100, 0.0024), (200, 0.0024), (201, 0.0036), (300, 0.0036)])
def test_a_rate_has_one_of_two_prices(rate: int, dollars: float) -> None:
    assert rate_price(rate) == dollars


def test_fast_snapshot_restore_costs_by_the_hour_whatever_is_launched() -> None:
    """By the price list; else as published."""
    prices = PriceFacts(dict.fromkeys(TYPES, 2.0), 0.05, fast_restore=0.9)
    listed = plan_of({"launches_per_hour": 12}, types=_priced(prices)).hydration
    assert way(listed, "Fast Snapshot Restore").an_hour(12) == 0.9
    assert way(plan_of().hydration, "Fast Snapshot Restore").hour_dollars == 0.75


def _priced(prices: PriceFacts) -> TypeFacts:
    return TypeFacts(TYPES, dict.fromkeys(TYPES, (ZONE,)), {"g|gr|vt": DENIED}, prices)


def test_without_launches_an_hour_dollars_are_those_of_a_launch() -> None:
    plan = plan_of()
    assert "a month" not in "\n".join(section(plan.hydration)).splitlines()[1]
    assert {one["dollars_an_hour"] for one in as_dict(plan)["hydration"]["ways"]} == {None}


def test_an_hour_whose_price_nobody_knows_is_not_known() -> None:
    plan = plan_of(types=_priced(PriceFacts({"g6e.xlarge": DENIED})))
    lines = section(plan.hydration)
    assert all(line.endswith("not known") for line in lines[2 : 2 + len(plan.hydration.ways)])


@pytest.mark.parametrize(("size", "volumes"), [(80, 10), (128, 8), (1000, 1), (4000, 1)])
def test_fast_snapshot_restore_has_credits_by_the_volumes_size(size: int, volumes: int) -> None:
    assert credits_of(size) == volumes


# --- findings --------------------------------------------------------------------------------------


def warnings(*args: Any, **more: Any) -> list[str]:
    return [one for one in plan_of(*args, **more).warnings if one.startswith("cold_start")]


def test_a_rate_faster_than_the_volume_is_read_is_warned_of() -> None:
    assert warnings({"volume_initialization_rate": 300}) == [
        "cold_start.volume_initialization_rate: 300 MiB/s is more than the volume's throughput (gp3) lets an "
        "instance read: 131 MB/s; 125 would do and cost $0.0024 a GiB in place of $0.0036"
    ]
    assert warnings({"volume_initialization_rate": 125}) == []
    assert warnings({"volume_initialization_rate": 300}, FAST) == []


def test_more_launches_than_a_region_fills_at_once_are_warned_of() -> None:
    assert at_once(300) == 16
    [fleet] = _fleet(17)
    assert (
        "300 MiB/s allow 16 launches at once" in fleet and "the fleet may launch 17 (fleet.max_size)" in fleet
    )
    assert _fleet(16) == []
    [hourly] = warnings({"volume_initialization_rate": 300, "launches_per_hour": 500}, FAST)
    assert "500 launches an hour (cold_start.launches_per_hour) are 24 at a time" in hourly


def _fleet(size: int) -> list[str]:
    of = loaded(root_volume=FAST, fleet={"max_size": size})
    plan = planned(of.model_copy(update={"cold_start": ColdStart(volume_initialization_rate=300)}))
    return [one for one in plan.warnings if one.startswith("cold_start")]


def test_a_rate_in_place_of_fast_snapshot_restore_is_warned_of() -> None:
    facts = StartFacts(None, ("eu-north-1a", "eu-north-1b"))
    [told] = warnings({"volume_initialization_rate": 300}, FAST, starts=facts)
    assert "has Fast Snapshot Restore in eu-north-1a, eu-north-1b" in told
    assert "both are paid for" in told
    unknown = plan_of({"volume_initialization_rate": 300}, starts=StartFacts(None, DENIED)).unchecked
    assert "whether the newest image has Fast Snapshot Restore (AWS answers UnauthorizedOperation)" in unknown


def test_a_start_that_will_be_late_is_told_before_the_bake() -> None:
    [late] = warnings({"max_seconds": 120})
    assert late.startswith("cold_start.max_seconds: 120 s, and the plan expects 427 s (lazy)")
    assert warnings({"max_seconds": 430}) == []
