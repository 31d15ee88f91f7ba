"""The weights' mirror: whether its bucket is there, and near."""

from __future__ import annotations

from bake.aws import Aws
from bake.planning.findings import Findings
from bake.profile import Profile
from bake.weights.mirror import Place


def check(profile: Profile, aws: Aws, findings: Findings) -> None:
    """Look for the bucket of `weights.mirror`; what it holds is looked at when the bake needs it."""
    if profile.weights.mirror is None:
        return
    bucket = Place.of(profile.weights.mirror).bucket
    answer = findings.require(
        "weights.mirror", f"bucket {bucket}", lambda: aws.s3.head_bucket(Bucket=bucket), "404", "NoSuchBucket"
    )
    if answer is None:
        return
    region = answer.get("BucketRegion") or aws.region
    findings.confirm(f"the mirror's bucket {bucket} is in {region}")
    if region != aws.region:
        findings.warn(
            f"the mirror's bucket {bucket} is in {region}, the builder in {aws.region}: what goes from one "
            "region to the other costs money and time"
        )
