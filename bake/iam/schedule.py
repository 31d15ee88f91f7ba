"""What EventBridge Scheduler may do with the role `builder.reaper_role`: end what bakes launched."""

from __future__ import annotations

from collections.abc import Iterator

from bake.iam.statement import Statement, Trust
from bake.iam.subject import ANY_RUN, OURS, Account

SERVICE = "scheduler.amazonaws.com"


def statements(account: Account) -> Iterator[Statement]:
    """The statements of the role; one serves all profiles of a region."""
    yield Statement(
        "EndWhatBakesLaunched",
        "an instance that hangs when its lease is over, and the spot request that would replace it",
        ("ec2:TerminateInstances", "ec2:CancelSpotInstanceRequests"),
        account.ec2("instance", "spot-instances-request"),
        ANY_RUN,
    )


def trust(account: Account) -> Trust:
    """The Scheduler takes the role, for the schedules of bakes alone."""
    return Trust(SERVICE, account.id, (account.arn("scheduler", f"schedule-group/{OURS}"),))
