"""Who calls in a rehearsal: roles of the local cloud that may do what `bake iam` prints, and nothing else.

As on AWS, a call that no statement allows is refused. `bake local …` and `bake local env` are the cloud's
administrator, and so are tests that prepare something.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bake import iam, localcloud
from bake.account.answers import Unanswered
from bake.account.roles import ask_key_arn, ask_worker_role
from bake.aws import AccessKey, Aws

if TYPE_CHECKING:
    from bake.iam import Statement
    from bake.localcloud import LocalCloud
    from bake.profile import Profile

SWEEPER, PRUNER, VERIFIER = "bake-sweep", "bake-prune", "bake-verify"
NAME = 64  # characters of a role's name


def as_baker(cloud: LocalCloud | None, profile: Profile) -> dict[str, Any]:
    """The arguments that tell `Aws` where calls go and who makes them: whoever bakes this profile.

    No arguments for AWS itself.
    """
    if cloud is None:
        return {}
    return _signed(cloud, f"bake-{profile.name}"[:NAME], iam.statements("caller", _subject(cloud, profile)))


def as_promoter(cloud: LocalCloud | None, profile: Profile) -> dict[str, Any]:
    """The same for whoever promotes this profile's images, rolls channels back and revokes."""
    if cloud is None:
        return {}
    subject = iam.Subject.of(profile, cloud.account)
    return _signed(cloud, f"bake-promote-{profile.name}"[:NAME], iam.statements("promoter", subject))


def as_roller(cloud: LocalCloud | None, profile: Profile) -> dict[str, Any]:
    """The same for whoever rolls this profile's channels out over Auto Scaling groups."""
    if cloud is None:
        return {}
    statements = iam.statements("rollout", _subject(cloud, profile))
    return _signed(cloud, f"bake-rollout-{profile.name}"[:NAME], statements)


def as_sweeper(
    cloud: LocalCloud | None, region: str, worker_region: str, copied: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The same for whoever sweeps in these regions, or looks at what there is without a profile."""
    if cloud is None:
        return {}
    account = iam.Account(cloud.account, region, worker_region, copied=copied)
    return _signed(cloud, SWEEPER, iam.of_sweep(account))


def as_verifier(cloud: LocalCloud | None, region: str, worker_region: str) -> dict[str, Any]:
    """The same for whoever verifies what an AMI in this region holds."""
    if cloud is None:
        return {}
    return _signed(cloud, VERIFIER, iam.of_verifying(iam.Account(cloud.account, region, worker_region)))


def as_pruner(cloud: LocalCloud | None, regions: tuple[str, ...]) -> dict[str, Any]:
    """The same for whoever prunes AMIs in these regions."""
    if cloud is None:
        return {}
    account = iam.Account(cloud.account, regions[0], regions[0], copied=regions)
    return _signed(cloud, PRUNER, iam.of_prune(account))


def _signed(cloud: LocalCloud, role: str, statements: Iterable[Statement]) -> dict[str, Any]:
    return {"endpoint": cloud.endpoint, "endpoint_key": _key(cloud, role, statements)}


def _key(cloud: LocalCloud, role: str, statements: Iterable[Statement]) -> AccessKey:
    """Credentials of a role with just these rights; a lenient cloud's caller is its administrator."""
    if cloud.lenient:
        return cloud.keys
    ask = localcloud.over_socket(localcloud.Settings.load())
    return localcloud.take_role(ask, role, [iam.document(statements)])


def _subject(cloud: LocalCloud, profile: Profile) -> iam.Subject:
    """A profile in the local cloud's account, with the ARNs that its administrator sees."""
    aws = Aws(
        region=profile.builder.region,
        worker_region=profile.worker.region,
        endpoint=cloud.endpoint,
        endpoint_key=cloud.keys,
    )
    role, key = ask_worker_role(profile, aws), ask_key_arn(profile, aws)
    if profile.attest is None:  # as rehearsals do
        profile = profile.model_copy(update={"attest": True})
    return iam.Subject.of(
        profile,
        cloud.account,
        role=role if isinstance(role, str) else _namesake(cloud.account, profile),
        kms_key=None if isinstance(key, Unanswered) else key,
    )


def _namesake(account: str, profile: Profile) -> str:
    """The ARN of a role that is called like the instance profile, where there is no role to find."""
    return f"arn:aws:iam::{account}:role/{profile.builder.instance_profile}"
