"""What a rehearsal uses of the local cloud in place of AWS, the Hub and the package indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bake.planning.sources import Sources
from bake.systems import SYSTEMS, ami_variable
from bake.weights import flux

if TYPE_CHECKING:
    from bake.localcloud.lifecycle.local_cloud import LocalCloud

# Well-formed values in place of the local cloud's, to check a profile before the cloud is up.
EXAMPLES = {
    "AWS_REGION": "eu-west-1",
    "SPOT_AWS_REGION": "eu-north-1",
    **{ami_variable(system, kind): "ami-00000000" for system in SYSTEMS for kind in ("cuda", "neuron")},
    "BAKE_SUBNET_ID": "subnet-00000000",
    "BAKE_PRIVATE_SUBNET_ID": "subnet-00000001",
    "BAKE_SECURITY_GROUP_ID": "sg-00000000",
    "BAKE_INSTANCE_PROFILE": "example",
    "BAKE_LAUNCH_TEMPLATE": "lt-00000000",
    "BAKE_REAPER_ROLE": "arn:aws:iam::123456789012:role/example",
    "HF_TOKEN": "example",
    "NEURON_PYTHON_INDEX": "https://example.com/simple",
}
# The user's own queue, bucket, buses, mirror and place for reports do not exist on the local cloud, their key
# signs no rehearsal, and their bastion does not lead there.
NOT_REHEARSED = dict.fromkeys(
    (
        "FLUX_QUEUE_URL",
        "FLUX_BUCKET",
        "FLUX_EVENT_BUS",
        "FLUX_MIRROR",
        "BAKE_REPORTS",
        "BAKE_NOTICES",
        "BAKE_SIGNING_KEY",
        "BAKE_PROXY_COMMAND",
    ),
    "",
)


def sources(cloud: LocalCloud, system: str = "ubuntu") -> Sources:
    """The local cloud's stand-ins for the Hub and the package indexes."""
    index_host = cloud.wheels.split("/")[2].split(":")[0]
    return Sources(
        requirements=cloud.requirements,
        tools=cloud.tools_requirements,
        neuron=cloud.neuron_requirements,
        python=cloud.python,
        interpreter=cloud.interpreter,
        builder={
            "BAKE_DRIVER_MINIMUM": "",  # no stand-in has a driver, whatever torch was built for
            "BAKE_UPDATES_INDEX": "optional",  # a stand-in's distribution may publish none
            "HF_ENDPOINT": cloud.hub,
            "PIP_INDEX_URL": cloud.wheels,
            "PIP_TRUSTED_HOST": index_host,
            "UV_DEFAULT_INDEX": cloud.wheels,
            "UV_INSECURE_HOST": index_host,
        },
        worker={"AWS_ENDPOINT_URL": cloud.endpoint},
        differences=(cloud.bases[system], *cloud.differences),
        hub=cloud.hub,
        disk="loop",
        scratch="tmpfs",
        devices=frozenset({"neuron"}),  # as stand-ins; of a GPU there is none
        not_rehearsed=frozenset({"aws"}),  # neither Session Manager nor Instance Connect is here
        sizes=flux.SIZES,  # the plan is about the real weights, however small the stand-ins are
    )
