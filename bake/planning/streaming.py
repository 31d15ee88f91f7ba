"""Check `weights.stream`: the bucket that workers read beside their volume, and the way there."""

from __future__ import annotations

from bake.account.facts import AccountFacts
from bake.account.routes import Routes
from bake.planning.findings import Findings
from bake.planning.weights import WeightFiles
from bake.profile import Profile
from bake.weights.flux import resident_bytes
from bake.weights.mirror import Place

_PATH = "weights.stream"
ENDPOINTS = "https://docs.aws.amazon.com/vpc/latest/privatelink/vpc-endpoints-s3.html"


def check(profile: Profile, files: WeightFiles, facts: AccountFacts, findings: Findings) -> None:
    """Check that the bucket is in the instances' region, and that they reach S3 without paying for it.

    What the bucket holds is not looked at: the bake puts there what it lacks.
    """
    if profile.weights.stream is None:
        return
    size = f"{resident_bytes(files.files, profile.weights.precision) / 1e9:.1f} GB"
    _check_bucket(Place.of(profile.weights.stream).bucket, size, facts, findings)
    _check_regions(profile, findings)
    _check_way(profile, size, facts, findings)


def _check_bucket(bucket: str, size: str, facts: AccountFacts, findings: Findings) -> None:
    found = findings.required(_PATH, f"bucket {bucket}", facts.wiring.stream)
    if found is None:
        return
    if found.region == facts.region:
        findings.confirm(f"the bucket {bucket}, from which workers read weights, is in {found.region}")
        return
    findings.problem(
        _PATH,
        f"the bucket {bucket} is in {found.region}, the instances in {facts.region}",
        f"each start would read up to {size} from another region, which is slow and paid by the gigabyte",
        f"name a bucket in {facts.region}",
    )


def _check_regions(profile: Profile, findings: Findings) -> None:
    """The same user data goes with the copies of the AMI, and so does the bucket's name."""
    if copied := profile.publish.regions:
        findings.warn(
            f"{_PATH}: the AMI is copied to {', '.join(copied)}: workers there should read from a bucket of "
            "their own region; give them user data of a profile that names one, or none"
        )


def _check_way(profile: Profile, size: str, facts: AccountFacts, findings: Findings) -> None:
    """A gateway endpoint costs nothing; a NAT gateway takes its price for every gigabyte."""
    subnet, asked = profile.builder.subnet, facts.preflight.routes
    if elsewhere := [one for one in profile.fleet.subnets or () if one != subnet]:
        findings.not_checked(
            f"the way to S3 of the fleet's subnets {', '.join(elsewhere)}", f"only that of {subnet} is asked"
        )
    found = findings.answered(f"the way from {subnet} to S3", asked) if asked is not None else None
    if found is None:
        return
    if found.endpoints is None:
        findings.not_checked(f"whether {subnet} has a gateway endpoint for S3", "nobody told its endpoints")
    elif "s3" in found.endpoints:
        findings.confirm(f"{subnet} has an endpoint for S3, by which workers read weights")
    else:
        findings.warn(_without(subnet, size, found))


def _without(subnet: str, size: str, routes: Routes) -> str:
    text = f"{_PATH}: {subnet} has no gateway endpoint for S3"
    advice = f"a gateway endpoint in its route table costs nothing: {ENDPOINTS}"
    target = routes.ipv4.target if routes.ipv4 is not None else ""
    if target.startswith("igw-"):
        return f"{text}: workers reach S3 by their public addresses; {advice}"
    if target.startswith("nat-"):
        price = "$0.045 a GB in most regions"
        return f"{text}: each start takes up to {size} through {target}, at {price}, and shares it; {advice}"
    way = f"through {target}, if that leads there" if target else "nowhere: only the volume will be read"
    return f"{text}: each start takes up to {size} {way}; {advice}"
