"""What `bake --profile` and `bake --profile --rehearse` do, once the command line is understood."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bake import plan as planning
from bake import profile as profiles
from bake import run as runs_of
from bake.aws import Aws
from bake.errors import BakeError
from bake.pipeline import bake
from bake.plan import Sources
from bake.progress import Progress, choose_screen
from bake.release import summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bake.localcloud.cloud import LocalCloud
    from bake.profile import Profile


# Well-formed values for what the local cloud will provide: enough to check a profile before it is up.
EXAMPLES = {
    "AWS_REGION": "eu-west-1",
    "SPOT_AWS_REGION": "eu-north-1",
    "BASE_AMI_ID": "ami-00000000",
    "BAKE_SUBNET_ID": "subnet-00000000",
    "BAKE_SECURITY_GROUP_ID": "sg-00000000",
    "BAKE_INSTANCE_PROFILE": "example",
    "HF_TOKEN": "example",
}


def bake_profile(name: str, *, directory: Path, env_file: Path, runs: Path, as_json: bool) -> None:
    """Bake on AWS."""
    profile = profiles.load(name, directory, profiles.environment(env_file))
    with _progress(as_json) as progress:
        _bake(profile, Sources(), progress, runs)


def rehearse_profile(name: str, *, directory: Path, env_file: Path, runs: Path, as_json: bool) -> None:
    """Bake on the local cloud, which is brought up for it unless it is up already."""
    from bake.localcloud import cloud as localcloud

    variables = profiles.environment(env_file)
    # A mistake in the profile shows at once, not after the local cloud was brought up.
    profiles.load(name, directory, {**variables, **EXAMPLES})
    with _progress(as_json) as progress, ExitStack() as stack:
        with progress.step("local cloud"):
            cloud = stack.enter_context(localcloud.running(progress.note))
        profile = profiles.load(name, directory, {**variables, **cloud.environment})
        _bake(profile, sources(cloud), progress, runs, endpoint=cloud.endpoint)


def _bake(
    profile: Profile,
    where: Sources,
    progress: Progress,
    runs: Path,
    *,
    endpoint: str | None = None,
) -> None:
    aws = Aws(
        region=profile.builder.region,
        worker_region=profile.worker.region,
        endpoint=endpoint,
        tally=progress.tally,
    )
    with progress.step("plan"):
        plan = planning.make(profile, aws, where)
    run = runs_of.new(runs, progress)
    (run.directory / "plan.json").write_text(json.dumps(planning.as_dict(plan), indent=2) + "\n")
    progress.emit("plan", text=planning.as_text(plan), plan=planning.as_dict(plan))
    progress.emit("run", id=run.id, directory=str(run.directory))
    release = bake(plan, aws, run)
    text = summary(release, rehearsal=endpoint is not None)
    progress.emit("released", image=release.image.id, directory=str(release.directory), text=text)


def sources(cloud: LocalCloud) -> Sources:
    """The local cloud's stand-ins for the Hub and the package index."""
    index_host = cloud.wheels.split("/")[2].split(":")[0]
    return Sources(
        requirements=cloud.requirements,
        tools=cloud.tools_requirements,
        python=cloud.python,
        builder={
            "HF_ENDPOINT": cloud.hub,
            "PIP_INDEX_URL": cloud.wheels,
            "PIP_TRUSTED_HOST": index_host,
            "UV_DEFAULT_INDEX": cloud.wheels,
            "UV_INSECURE_HOST": index_host,
        },
        worker={"AWS_ENDPOINT_URL": cloud.endpoint},
        differences=cloud.differences,
    )


@contextmanager
def _progress(as_json: bool) -> Iterator[Progress]:
    progress = Progress(choose_screen(as_json=as_json))
    try:
        yield progress
    except BakeError as error:
        progress.emit("failed", message=error.message, hint=error.hint)
        raise
    finally:
        progress.close()
