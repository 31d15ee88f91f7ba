"""The image to come: its name must be free, and the user data that boots it must be small enough."""

from __future__ import annotations

from collections.abc import Mapping

from bake.aws import Aws
from bake.errors import BakeError
from bake.planning.findings import Findings
from bake.profile import Profile

# What run ids look like, for anything that must be measured before there is a run.
RUN = "20260101-000000-abcdef"


def check_name(profile: Profile, aws: Aws, findings: Findings) -> None:
    """An AMI's name is unique in its account and region; with `{run}` in it, it always is."""
    if "{run}" in profile.image.name:
        return
    name = profile.image.name.format(profile=profile.name)
    answer = findings.ask(
        f"whether an AMI is called {name} already",
        lambda: aws.ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": [name]}]),
    )
    if answer is None:
        return
    if not answer["Images"]:
        findings.confirm(f"no AMI is called {name} yet")
    else:
        findings.problem(
            "image.name",
            f"{answer['Images'][0]['ImageId']} is called {name!r} already, and a name is there once",
            "put {run} into the name: it differs from bake to bake",
        )


def check_user_data(profile: Profile, extra: Mapping[str, str], findings: Findings) -> None:
    """Measure the largest user data of a bake, the boot check's (R-USERDATA)."""
    # Here, not above: the steps are built on the plan.
    from bake.steps.boot_check import INSTANCE_ENV, Wiring
    from bake.steps.launch import USER_DATA_LIMIT, KeyPair, user_data

    name = f"bake-{RUN}"
    queue = f"https://sqs.{profile.worker.region}.amazonaws.com/123456789012/{name}-results"
    wiring = Wiring(queue, queue, name, name)
    files = {INSTANCE_ENV: wiring.environment(profile.worker.region, extra)}
    try:
        size = len(user_data(KeyPair.generate(), files).encode())
    except BakeError as error:
        findings.problem("worker", error.message)
        return
    findings.confirm(f"the user data has {size:,} bytes of the {USER_DATA_LIMIT:,} that EC2 takes")
