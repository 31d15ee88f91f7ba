"""Ask everything that a plan needs to know, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bake.account.baked import ask_images
from bake.account.facts import AccountFacts, IdentityFacts, NetworkFacts, TypeFacts, WiringFacts
from bake.account.hub import ask_hub
from bake.account.images import ask_base, ask_name
from bake.account.instance_types import ask_types, ask_zones
from bake.account.keys import ask_keys
from bake.account.network import Subnet, ask_group, ask_instance_profile, ask_subnet
from bake.account.preflight import Before, ask_preflight
from bake.account.prices import ask_prices
from bake.account.proxy import ask_program
from bake.account.publishing import ask_publishing
from bake.account.quotas import ask_quotas
from bake.account.signing import ask_signing_key
from bake.account.starts import ask_starts
from bake.account.wiring import (
    ask_bucket,
    ask_bus,
    ask_mirror,
    ask_notices,
    ask_queue,
    ask_reports,
    ask_stream,
)
from bake.account.worker_code import ask_code
from bake.aws import Aws
from bake.background import start
from bake.profile import Profile


@dataclass(frozen=True)
class Hub:
    """The Hub to ask; without `endpoint` the real one."""

    endpoint: str | None = None


def ask(
    profile: Profile, aws: Aws, requirements: Path, hub: Hub | None, base_ami: str | None = None
) -> AccountFacts:
    """Ask AWS, Git and the Hub (unless it is None). This takes as long as the longest chain of questions.

    `base_ami` is the id of the agreed base AMI.

    Each question is a thread; within one, what depends on an answer is asked after it. The first error that
    is no answer, in the order below, is raised.
    """
    base = start(lambda: ask_base(profile, aws, base_ami))
    types = start(lambda: ask_types(profile, aws))
    subnet = start(lambda: ask_subnet(profile, aws))
    group = start(lambda: ask_group(profile, aws))
    instance_profile = start(lambda: ask_instance_profile(profile, aws))
    wiring = start(lambda: _ask_wiring(profile, aws))
    taken = start(lambda: ask_name(profile, aws))
    keys = start(lambda: ask_keys(profile, aws))
    files = start(lambda: ask_hub(profile, hub.endpoint) if hub else None)
    signing = start(lambda: ask_signing_key(profile, aws))
    quotas = start(lambda: ask_quotas(profile, aws))
    code = start(lambda: ask_code(profile, requirements))
    zones = start(lambda: ask_zones(profile, aws))
    prices = start(lambda: ask_prices(profile, lambda: _zone(subnet.result()), aws))
    preflight = start(lambda: ask_preflight(profile, aws, Before(base, subnet, group, instance_profile)))
    publishing = start(lambda: ask_publishing(profile, aws))
    starts = start(lambda: ask_starts(profile, aws))
    in_order = (base, types, subnet, group, instance_profile, wiring, taken, keys, files)
    for question in (*in_order, signing, quotas, code, zones, prices, preflight, publishing, starts):
        question.result()
    return AccountFacts(
        region=aws.region,
        worker_region=aws.worker_region,
        asked=aws.now(),
        base=base.result(),
        types=TypeFacts(types.result(), zones.result(), quotas.result(), prices.result()),
        network=NetworkFacts(
            subnet.result(), group.result(), instance_profile.result(), ask_program(profile)
        ),
        wiring=wiring.result(),
        taken=taken.result(),
        keys=keys.result(),
        hub=files.result(),
        code=code.result(),
        signing=signing.result(),
        preflight=preflight.result(),
        publishing=publishing.result(),
        starts=starts.result(),
    )


def _ask_wiring(profile: Profile, aws: Aws) -> WiringFacts:
    queue = start(lambda: ask_queue(profile, aws))
    bucket = start(lambda: ask_bucket(profile, aws))
    bus = start(lambda: ask_bus(profile, aws))
    mirror = start(lambda: ask_mirror(profile, aws))
    stream = start(lambda: ask_stream(profile, aws))
    reports = start(lambda: ask_reports(profile, aws))
    notices = ask_notices(profile, aws)
    return WiringFacts(
        queue=queue.result(),
        bucket=bucket.result(),
        bus=bus.result(),
        mirror=mirror.result(),
        stream=stream.result(),
        reports=reports.result(),
        notices=notices,
    )


def ask_identity(profile: Profile, aws: Aws, requirements: Path, base_ami: str | None) -> IdentityFacts:
    """Ask only what decides whether a bake would make another image: in six calls of AWS at most.

    `base_ami` is the id of the agreed base AMI.
    """
    base = start(lambda: ask_base(profile, aws, base_ami))
    images = start(lambda: ask_images(profile, aws))
    code = start(lambda: ask_code(profile, requirements))
    return IdentityFacts(base.result(), code.result(), images.result(), aws.now())


def _zone(subnet: Subnet | None) -> str | None:
    return subnet.zone if subnet else None
