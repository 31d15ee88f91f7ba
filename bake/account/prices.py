"""Ask AWS for prices; the code has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from bake.account.answers import Unanswered, ask
from bake.account.price_list import Price, dollars, products, usage
from bake.aws import Aws
from bake.profile import Profile

# EC2 keeps 90 days of spot prices: an older one is not of this world.
SPOT_MEMORY = timedelta(days=90)
EC2 = "AmazonEC2"


@dataclass(frozen=True)
class PriceFacts:
    """Dollars: an hour of each type, a GB-month of snapshot. None where the API knows no price.

    `block` and `block_list` are a GetSnapshotBlock and a ListSnapshotBlocks, where the image is attested.
    `fast_restore` is an hour of Fast Snapshot Restore of a snapshot in a zone. A price list that did not
    answer is not asked again: then later types are missing in `hours`.
    """

    hours: Mapping[str, Price] = field(default_factory=dict)
    snapshot: Price = None
    block: Price = None
    block_list: Price = None
    fast_restore: Price = None


def ask_prices(profile: Profile, zone: Callable[[], str | None], aws: Aws) -> PriceFacts:
    """Ask for the first types that bake and work, and for snapshots.

    `zone` waits for the subnet's zone; it is called for spot prices alone.
    """
    hours: dict[str, Price] = {}
    for name in dict.fromkeys((profile.builder.types[0], profile.worker_types[0])):
        if profile.builder.market == "spot":
            hours[name] = spot_hour(name, zone(), aws)
        else:
            hours[name] = on_demand_hour(name, aws)
            if isinstance(hours[name], Unanswered):
                return PriceFacts(hours)
    snapshot = snapshot_month(aws)
    restore = snapshot if isinstance(snapshot, Unanswered) else fast_restore_hour(aws)
    if not profile.attest:
        return PriceFacts(hours, snapshot, fast_restore=restore)
    return PriceFacts(hours, snapshot, *direct_reads(aws), fast_restore=restore)


def spot_hour(name: str, zone: str | None, aws: Aws) -> Price:
    """Dollars of an hour on the spot market; the zone's, or the region's highest."""
    history = ask(
        lambda: aws.ec2.describe_spot_price_history(
            InstanceTypes=[name],  # type: ignore[list-item]
            ProductDescriptions=["Linux/UNIX"],
            StartTime=datetime.now(UTC),
            **({"AvailabilityZone": zone} if zone else {}),  # type: ignore[arg-type]
        )["SpotPriceHistory"]
    )
    if isinstance(history, Unanswered):
        return history
    recent = [item for item in history if item["Timestamp"] > datetime.now(UTC) - SPOT_MEMORY]
    return max((float(item["SpotPrice"]) for item in recent), default=None)


def on_demand_hour(name: str, aws: Aws) -> Price:
    """Dollars of an hour on demand."""
    return _product(
        aws,
        instanceType=name,
        operatingSystem="Linux",
        tenancy="Shared",
        preInstalledSw="NA",
        capacitystatus="Used",
    )


def volume_month(kind: str, aws: Aws) -> Price:
    """Dollars of a GB-month of volumes of a type; IOPS and throughput that are bought beside it cost more."""
    return _product(aws, productFamily="Storage", volumeApiName=kind)


def snapshot_month(aws: Aws) -> Price:
    """Dollars of a GB-month of snapshots."""
    return _product(aws, productFamily="Storage Snapshot", storageMedia="Amazon S3")


def fast_restore_hour(aws: Aws) -> Price:
    """Dollars of an hour in which a snapshot has Fast Snapshot Restore in one zone."""
    return _product(aws, productFamily="Fast Snapshot Restore")


def direct_reads(aws: Aws) -> tuple[Price, Price]:
    """Dollars of one block, and of one list of blocks, by the EBS direct APIs."""
    found = products(aws, EC2, regionCode=aws.region, productFamily="EBS direct API Requests")
    if isinstance(found, Unanswered):
        return found, found

    def of(what: str) -> Price:
        """Its usage type ends so; what it begins with is the region's."""
        named = (one for one in found if usage(one).endswith(f"EBS:directAPI.snapshot.{what}"))
        return next((price for one in named if (price := dollars(one))), None)

    return of("Get"), of("List")


def _product(aws: Aws, **attributes: str) -> Price:
    """The dollars of EC2's first product in the builder's region with these attributes that has a price."""
    found = products(aws, EC2, regionCode=aws.region, **attributes)
    if isinstance(found, Unanswered):
        return found
    return next((price for one in found if (price := dollars(one))), None)
