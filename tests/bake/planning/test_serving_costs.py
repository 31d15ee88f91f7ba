"""What serving costs: the arithmetic, and what becomes of prices and seconds that nobody knows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bake import profile
from bake.account.answers import Unanswered
from bake.account.instance_types import InstanceType
from bake.account.price_list import Price
from bake.account.serving_prices import Hour, ServingPrices, products_of
from bake.account.starts import Started
from bake.commands.costs import costs
from bake.errors import UsageError
from bake.hydration import Measured
from bake.localcloud import prices as local
from bake.planning import weights
from bake.planning.serving import calls, cost, render, speed
from bake.planning.serving.cost import Costs, Dollars, Usage
from bake.planning.serving.speed import Seconds
from bake.planning.starts import BOOT
from bake.profile import Profile
from bake.profile.cold_start import ColdStart
from docs.policies import VARIABLES
from flux_worker import worker
from flux_worker.settings import ServeSettings
from tests.bake.instance_types import TYPES

PROFILES, PAGE = (Path(__file__).parents[3] / name for name in ("profiles", "docs/fleet.md"))
DENIED = Unanswered("AWS answers AccessDeniedException")
UNITS: Mapping[str, Price] = {
    "queue": 1e-6,
    "put": 10e-6,
    "get": 2e-6,
    "storage": 0.10,
    "event": 3e-6,
    "alarm": 0.5,
    "metric": 1.0,
    "metric-call": 20e-6,
    "instances-alarm": 0.6,
    "function": 2e-7,
    "function-time": 2e-5,
    "transfer": 0.05,
}
TEN = Usage(seconds=Seconds(10.0, "given", True), image_mb=2.0)


def loaded(name: str = "g6e-ubuntu", **variables: str) -> Profile:
    return profile.load(name, PROFILES, {**VARIABLES, **variables}, lambda *_: "hf_0123456789")


def priced(of: Profile, hour: Hour, volume: Price = 0.073, **units: Price) -> ServingPrices:
    """Prices of a profile's types; `put=None` is one that is not known."""
    there = products_of(of)
    known = {name: {**UNITS, **units}[name] for name in there}
    hours = dict.fromkeys(of.worker_types, hour)
    regions = of.builder.region, of.worker.region
    return ServingPrices(*regions, datetime(2026, 11, 30, tzinfo=UTC), known, there, hours, volume)


def computed(
    usage: Usage = TEN,
    of: Profile | None = None,
    hour: Hour = Hour(3.5, 1.7),  # noqa: B008
    types: Mapping[str, InstanceType] = TYPES,
    **units: Price,
) -> Costs:
    found = loaded() if of is None else of
    return cost.compute(found, priced(found, hour, **units), types, weights.counted(None), usage)


def test_a_job_costs_its_calls_times_their_prices() -> None:
    found = computed()
    assert sum(line.count for line in found.job) == len(calls.CALLS_OF_A_JOB) == 8
    assert found.requests.known == pytest.approx(2 * 1e-6 + 3 * 10e-6 + 2e-6 + 3e-6)
    assert found.renewals == 0
    text = render.as_text(found, "AWS")
    assert "8      in all" in text
    assert "$0.000037  $0.037      $37.00" in text


def test_each_image_more_is_one_put_more_and_they_share_the_rest() -> None:
    one, four = computed(), computed(replace(TEN, images=4, visibility=600))
    assert four.requests.known - one.requests.known == pytest.approx(3 * 10e-6)
    beside = [found.servings[0].image.known - found.servings[0].drawing.known for found in (one, four)]  # type: ignore[union-attr]
    assert beside[0] - beside[1] == pytest.approx(one.requests.known - four.requests.known / 4)


@pytest.mark.parametrize(
    ("seconds", "images", "visibility", "times"),
    [(39.9, 1, 120, 0), (40, 1, 120, 1), (15, 4, 120, 1), (15, 4, 30, 6)],
)
def test_a_job_that_takes_long_is_renewed(seconds: float, images: int, visibility: int, times: int) -> None:
    usage = Usage(images=images, seconds=Seconds(seconds, "given", True), visibility=visibility)
    found = computed(usage)
    assert found.renewals == times
    renewed = [line for line in found.job if "renewed" in line.what]
    assert [line.count for line in renewed] == ([times, times] if times else [])
    assert sum(line.count for line in found.job) == 7 + images + 2 * times


def test_an_image_costs_its_share_of_the_hour_and_all_that_goes_with_it() -> None:
    on_demand, spot = computed().servings
    gib = loaded().root_volume.size_gib
    hour = 3.5 + 0.073 * gib / 730
    assert on_demand.drawing is not None and on_demand.image is not None and spot.image is not None
    assert on_demand.drawing.known == pytest.approx(hour * 10 / 3600)
    beside = 37e-6 + 0.10 * 2e-3 + 0.05 * 2e-3
    assert on_demand.image.known == pytest.approx(hour * 10 / 3600 + beside)
    assert spot.image.known < on_demand.image.known


def test_four_gpus_draw_four_images_in_the_time_of_one() -> None:
    of = loaded()
    of = of.model_copy(update={"worker": of.worker.model_copy(update={"instance_type": "g6e.12xlarge"})})
    one, four = computed().servings[0], computed(of=of).servings[0]
    assert (four.type, four.devices) == ("g6e.12xlarge", 4)
    assert four.drawing is not None and one.drawing is not None
    assert four.drawing.known == pytest.approx(one.drawing.known / 4)
    waiting = sum(line.dollars.known for line in computed().idle)
    assert four.idle.known - one.idle.known == pytest.approx(3 * waiting)


def test_in_one_region_nothing_is_moved() -> None:
    found = computed(of=loaded(AWS_REGION="eu-north-1"))
    assert found.moved == Dollars()
    assert "moved: nothing, bucket and instances are in one region" in render.as_text(found, "AWS")


@pytest.mark.parametrize("price", [None, DENIED], ids=["not-listed", "denied"])
def test_a_price_that_is_not_known_is_never_made_up(price: Price) -> None:
    found = computed(put=price)
    assert found.requests.without == ("S3 PUT",)
    text, told = render.as_text(found, "AWS"), render.as_dict(found, "AWS")
    assert "at least $0.000007" in text
    assert "  without: S3 PUT" in text
    why = "AWS answers AccessDeniedException" if price else "AWS's price list has none"
    assert f"  - S3 PUT: {why}" in text
    assert told["prices"]["put"]["dollars"] is None
    assert told["prices"]["put"]["why"] == why
    assert told["types"][0]["image"]["without"] == ["S3 PUT"]


def test_where_no_price_is_known_no_dollar_is_shown() -> None:
    units = dict.fromkeys(UNITS, DENIED)
    found = computed(hour=Hour(DENIED, None), volume=DENIED, **units)
    text = render.as_text(found, "AWS")
    assert "$" not in text.replace("$0.00", "")  # what is free
    assert found.servings[0].image is not None and found.servings[0].image.nothing
    assert found.at_zero.nothing


def test_seconds_that_nobody_measured_or_published_are_not_known() -> None:
    """g5's int8 on an A10G."""
    found = computed(Usage(), of=loaded("g5-ubuntu"))
    assert [one.image for one in found.servings] == [None, None]
    assert found.renewals is None
    text = render.as_text(found, "AWS")
    assert "nobody measured or published them: give --seconds-per-image or --record" in text
    assert "and 2 more for each 40 s that its images take, which is not known" in text
    assert render.as_dict(found, "AWS")["types"][0]["image"] == {"dollars": None, "without": []}


def test_published_seconds_say_that_they_are() -> None:
    found = computed(Usage())
    [seconds] = {one.seconds for one in found.servings}
    assert seconds is not None and not seconds.measured
    assert seconds.value == pytest.approx(28 * 0.532)
    assert "published, not measured here" in render.as_text(found, "AWS")


def test_a_type_that_ec2_did_not_describe_has_its_hour_alone() -> None:
    found = computed(types={})
    assert (found.servings[0].devices, found.servings[0].cold_seconds) == (None, None)
    assert "not known" in render.as_text(found, "AWS")
    assert found.servings[0].hour.known == 3.5


def test_a_cold_start_is_a_boot_and_the_weights_from_a_new_volume() -> None:
    one = computed().servings[0]
    assert one.cold_seconds is not None and one.cold is not None
    assert BOOT + 330 < one.cold_seconds < BOOT + 340  # 33.7 GB at 100 MB/s
    assert one.cold.known == pytest.approx((one.hour.known + one.volume.known) * one.cold_seconds / 3600)


def test_a_cold_start_is_what_the_newest_image_measured() -> None:
    measured = Measured(200.0, 34_000_000_000, 0, boot=20.0, imports=10.0, first_draw=6.0, volume="gp3")
    started = Started("ami-0123456789abcdef0", "2026-11-30T00:00:00.000Z", measured)
    of = loaded()
    of = of.model_copy(update={"root_volume": of.root_volume.model_copy(update={"throughput": 500})})
    found = cost.compute(of, priced(of, Hour(3.5, 1.7)), TYPES, weights.counted(None), TEN, started)
    assert found.servings[0].cold_seconds == pytest.approx(36 + 33_741e6 / 200e6, rel=0.001)
    assert "(the boot check of ami-0123456789abcdef0 measured it)" in " ".join(
        render.as_text(found, "AWS").split()
    )


def test_a_rate_is_among_what_a_cold_start_is_without() -> None:
    of = loaded()
    of = of.model_copy(update={"cold_start": ColdStart(volume_initialization_rate=300)})
    cold = computed(of=of).servings[0].cold
    assert cold is not None and cold.without == ("VolumeInitializationRate (bake plan tells it)",)


def test_without_instances_alarms_cost_and_what_counts_the_jobs() -> None:
    found = computed()
    counting = 730 * 60 * (20e-6 + 2e-7 + 0.125 * 2e-5 + 1e-6)
    expected = 2 * 0.5 + 9 * 0.6 + 1.0 + counting
    assert found.at_zero.known == pytest.approx(expected)
    assert f"with no instance (desired 0): ${expected:.2f} a month" in render.as_text(found, "AWS")
    assert sum(line.dollars.known for line in found.standing) == pytest.approx(expected + 1.0)  # Ready


def test_the_calls_are_those_of_the_workers_own_settings() -> None:
    assert calls.LONG_POLL_SECONDS == worker.LONG_POLL_SECONDS
    [option] = [one for one in costs.params if one.name == "visibility_seconds"]
    assert option.default == calls.VISIBILITY_SECONDS
    assert ServeSettings.model_fields["visibility_seconds"].default == calls.VISIBILITY_SECONDS


def test_the_page_shows_what_the_program_prints() -> None:
    """docs/fleet.md has the output of a rehearsal, with the local cloud's prices."""
    [shown] = re.findall(r"```output\n(what serving .*?)\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    units: Mapping[str, Price] = {
        "queue": local.QUEUE_REQUEST,
        "put": local.PUT,
        "get": local.GET,
        "storage": local.BUCKET_MONTH,
        "event": local.EVENT,
        "alarm": local.ALARM_MONTH,
        "metric": local.METRIC_MONTH,
        "metric-call": local.METRIC_CALL,
        "instances-alarm": local.ALARM_MONTH,
        "function": local.FUNCTION_REQUEST,
        "function-time": local.FUNCTION_TIME,
        "transfer": local.TRANSFER,
    }
    hour = Hour(4 * local.VCPU_HOUR, 4 * local.SPOT_VCPU_HOUR)
    found = computed(Usage(), hour=hour, volume=local.VOLUME_MONTH, **units)
    asked = re.search(r"asked (\S+)", shown)
    assert asked is not None
    prices = replace(found.prices, asked=datetime.fromisoformat(asked[1]))
    assert render.as_text(replace(found, prices=prices), "REHEARSAL") == shown


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, "price not known"),
        (0, "$0.00"),
        (1234.5, "$1,234.50"),
        (1, "$1.00"),
        (0.41096, "$0.411"),
        (0.02, "$0.02"),
        (0.000037, "$0.000037"),
        (4e-7, "$0.0000004"),
        (0.9999, "$1.00"),
    ],
)
def test_amounts_never_show_powers_of_ten(amount: float | None, shown: str) -> None:
    assert render.dollars(amount) == shown


def record(seconds: float, images: int = 1, **job: Any) -> dict[str, Any]:
    return {
        "job": {"id": "cat", "width": 1024, "height": 768, "images": images, **job},
        "model": {"device": "NVIDIA L40S"},
        "seconds": {"draw": seconds, "step": 0.5, "queue": None},
    }


def test_records_tell_the_mean_of_all_their_images() -> None:
    drawn = speed.of_records({"a.json": record(10), "b.json": record(32, 2, height=1024)})
    assert drawn.seconds.value == pytest.approx(14)
    assert drawn.pixels == 1024 * 1024
    assert drawn.seconds.source == "measured: the mean of 3 images in 2 records, on NVIDIA L40S"


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {},
        record(0),
        record(-1),
        record(float("nan")),
        record(float("inf")),
        record("ten"),  # type: ignore[arg-type]
        record(1, True),
        {**record(1), "seconds": {}},
        {**record(1), "model": {}},
        {**record(1), "job": "cat"},
    ],
    ids=repr,
)
def test_what_is_no_record_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"--record b\.json is no record of a job"):
        speed.of_records({"a.json": record(1), "b.json": wrong})
