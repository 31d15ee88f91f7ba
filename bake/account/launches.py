"""Ask EC2 by DryRuns of RunInstances whether it would launch the profile's instances. Nothing is launched.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bake import creation
from bake.account.answers import Unanswered
from bake.account.images import RUN, Ami
from bake.account.network import TEMPORARY
from bake.aws import Aws, unanswered
from bake.aws_errors import Denial, denial, is_about_credentials
from bake.background import start
from bake.creation import Labels
from bake.errors import BakeError
from bake.launch_request import LaunchRequest
from bake.profile import Profile
from bake.retries import ALLOWED, error_code, is_passing, is_refused


@dataclass(frozen=True)
class LaunchAnswer:
    """What EC2 says of a launch: nothing, or why it would refuse; `denied` where IAM would."""

    code: str = ""
    message: str = ""
    denied: Denial | None = None

    @property
    def allowed(self) -> bool:
        return not self.code


def ask_launches(profile: Profile, aws: Aws, base: Ami) -> Mapping[str, LaunchAnswer | Unanswered]:
    """Ask for each of the profile's types, side by side; the boot check's with the base in place of the AMI.

    The key pair is not there yet, nor a temporary security group: the VPC's default one stands for it.
    """
    names = dict.fromkeys((*profile.builder.types, *profile.worker_types))
    asked = {name: start(lambda name=name: _ask(name, profile, aws, base)) for name in names}  # type: ignore[misc]
    return {name: answer.result() for name, answer in asked.items()}


def _ask(name: str, profile: Profile, aws: Aws, base: Ami) -> LaunchAnswer | Unanswered:
    arguments = _arguments(name, profile, aws, base)
    try:
        answer = aws.ec2.run_instances(**arguments, InstanceType=name, DryRun=True)  # type: ignore[arg-type]
    except Exception as error:
        return _read(error)
    made = ", ".join(one["InstanceId"] for one in answer["Instances"])
    raise BakeError(f"asked whether it would, EC2 has launched {made}", hint="terminate it")


def _arguments(name: str, profile: Profile, aws: Aws, base: Ami) -> dict[str, Any]:
    builder, accelerator = profile.builder, profile.base.accelerator
    role = "builder" if name in builder.types else "boot-check"
    labels = Labels(profile.name, "preflight", "preflight", profile.base.os, accelerator)
    now, rate = aws.now(), profile.cold_start.volume_initialization_rate
    return LaunchRequest(
        image=base.id,
        root_device=base.root_device,
        tags=creation.tags(labels, RUN, f"bake-{RUN}-{role}", now),
        valid_until=now + timedelta(days=1),
        ends_itself=role == "builder",
        security_group=None if builder.security_group == TEMPORARY else builder.security_group,
        initialization_rate=rate if name in profile.worker_types else None,
    ).arguments(profile)


def _read(error: Exception) -> LaunchAnswer | Unanswered:
    if (code := error_code(error)) == ALLOWED:
        return LaunchAnswer()
    if is_about_credentials(error):
        raise error
    if is_refused(error) and not is_passing(error):
        response: Any = getattr(error, "response", {})
        return LaunchAnswer(code, str(response["Error"].get("Message", "")), denial(error))
    if (why := unanswered(error)) is None:
        raise error
    return Unanswered(f"AWS answers {why}")
