"""Start a local cloud's servers on the bridge address.

Importing this imports moto, which reads its settings from the environment at that moment.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moto.ec2.models import ec2_backends
from werkzeug.exceptions import NotFound
from werkzeug.middleware.shared_data import SharedDataMiddleware

from bake.localcloud.api import (
    announcements,
    auto_scaling,
    clock,
    ec2,
    events,
    iam,
    image_usage,
    interruptions,
    kms,
    lazy_disks,
    lifecycle_states,
    parameter_store,
    s3,
    scheduler,
    tables,
)
from bake.localcloud.api.access import backends, callers
from bake.localcloud.api.access import keys as access_keys
from bake.localcloud.api.access.keys import Keys
from bake.localcloud.api.access.policies import Authoriser, NeedLog
from bake.localcloud.api.clock import CloudClock
from bake.localcloud.api.consistency import installing
from bake.localcloud.api.consistency.schedule import Schedule
from bake.localcloud.api.endpoint import Api
from bake.localcloud.api.faults.faults import AwsFaults, parse_fault
from bake.localcloud.api.imds import Imds, Metadata
from bake.localcloud.api.instances import LocalInstances
from bake.localcloud.api.metadata import metadata_of
from bake.localcloud.api.security_groups import Groups
from bake.localcloud.hub import control as hub_control
from bake.localcloud.hub.server import Hub
from bake.localcloud.images.base import package_urls
from bake.localcloud.images.bases import base_amis, hostile_amis
from bake.localcloud.images.store import ImageStore
from bake.localcloud.lifecycle import fixtures, records
from bake.localcloud.lifecycle.known_images import register
from bake.localcloud.lifecycle.owners import Owners
from bake.localcloud.lifecycle.prepared import Prepared
from bake.localcloud.lifecycle.state import report
from bake.localcloud.network import bridge, names
from bake.localcloud.network.control import Route
from bake.localcloud.network.egress import Egress
from bake.localcloud.network.server import serve, serve_control
from bake.localcloud.packages import python_release
from bake.localcloud.packages.index import WheelIndex
from bake.localcloud.settings import (
    ACCOUNT,
    API_PORT,
    DNS_PORT,
    GATEWAY,
    HUB_PORT,
    IMDS_PORT,
    METADATA_ADDRESS,
    NEURON_PORT,
    PACKAGES_PORT,
    SPOT_REGION,
    WHEELS_PORT,
    Settings,
)

# Instances ask for metadata at another address than the one that answers.
METADATA_NAMES = (METADATA_ADDRESS, f"{METADATA_ADDRESS}:80")
GATEWAY_NAMES = (GATEWAY, f"{GATEWAY}:{PACKAGES_PORT}")


def start(
    settings: Settings, prepared: Prepared, owners: Owners, saved: Path | None = None
) -> tuple[dict[str, Any], Callable[[], None]]:
    """Start all servers; return the cloud's description, and a function that terminates its machines.

    The cloud is a copy of the one that was `saved` in a folder, or else a new one.
    """
    instances, store, faults = LocalInstances(settings), ImageStore(settings.images), AwsFaults()
    keys = Keys(lives=lambda name: name in instances and instances[name].state != "terminated")
    access_keys.write(settings.state, keys.owner)
    time = CloudClock()
    needs = NeedLog()
    authoriser = Authoriser(record=needs.add)
    _install(instances, store, time, authoriser)
    about = _about(settings, _account(settings, prepared, instances, store, time, saved))

    def metadata(address: str) -> Metadata | None:
        instance = instances.at(address)
        return metadata_of(instance.moto, keys) if instance else None

    hub = Hub(prepared.hub, prepared.token)
    egress = Egress(settings, package_urls())
    groups = Groups(instances, is_strict=egress.is_strict)
    instances.network_changed = groups.follow
    groups.follow()  # of a saved cloud's instances
    delayed = installing.install(Schedule(settings.seed, lenient=settings.lenient))
    api = Api(instances, groups, faults, keys, authoriser, delayed)
    routes = {
        ("GET", "/-/health"): lambda request: about,
        ("GET", "/-/calls"): lambda request: api.called,
        ("GET", "/-/status"): lambda request: report(settings, about, instances, store, egress),
        **_owner_routes(owners),
        **_fault_routes(faults),
        **callers.routes(keys, needs),
        **lazy_disks.routes(instances),
        ("POST", "/-/save"): lambda request: records.save(
            Path(request.get_data(as_text=True)), instances, store, time, about["environment"]
        ),
        **clock.routes(time),
        **egress.routes(groups.follow),
        **interruptions.routes(interruptions.Interruptions(instances, time)),
        **announcements.routes(announcements.Announcements(instances, time)),
        **lifecycle_states.routes(),
        **hub_control.routes(hub),
        **image_usage.routes(),
    }
    serve(settings.address, IMDS_PORT, Imds(metadata), "instance metadata", METADATA_NAMES, time.now)
    names.serve(settings.address, DNS_PORT, bridge.name_servers(), egress.heard)
    serve(settings.address, HUB_PORT, hub, "the Hub")
    _serve_packages(settings, prepared)
    serve(settings.address, API_PORT, api, "the API", now=time.now)
    serve_control(settings.control, routes)
    _in_background(api.prepare)
    return about, instances.terminate_all


def _serve_packages(settings: Settings, prepared: Prepared) -> None:
    """Serve the package indexes and Amazon Linux's packages."""
    pythons = {f"/{python_release.FOLDER}": str(python_release.folder(prepared.base))}
    wheels = WheelIndex(prepared.wheel_files)
    index = SharedDataMiddleware(wheels, pythons)
    serve(settings.address, WHEELS_PORT, index, "the wheel index")
    serve(settings.address, NEURON_PORT, WheelIndex(prepared.neuron_files), "the Neuron SDK's index")
    repositories = [("/", str(base.packages)) for base in prepared.bases.values() if base.packages]
    packages = SharedDataMiddleware(NotFound(), repositories)
    serve(settings.address, PACKAGES_PORT, packages, "Amazon Linux's packages", GATEWAY_NAMES)
    _in_background(wheels.prepare)


def _in_background(*works: Callable[[], None]) -> None:
    """Do now what somebody would wait for later."""
    for work in works:
        threading.Thread(target=work, daemon=True).start()


def _install(instances: LocalInstances, store: ImageStore, time: CloudClock, authoriser: Authoriser) -> None:
    """Change moto where it is not as AWS is; before the first request."""
    clock.install(time)
    ec2.install(instances, store, time)
    s3.install()
    scheduler.install(time, authoriser)
    events.install(authoriser.inventory)
    iam.install()
    parameter_store.install()
    auto_scaling.install()
    kms.install()
    backends.install()
    tables.install()


def _about(settings: Settings, environment: dict[str, str]) -> dict[str, Any]:
    """What the cloud tells of itself."""
    return {
        "id": uuid.uuid4().hex,
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(),
        "environment": environment,
        "trust_guests": settings.trust_guests,
        "seed": settings.seed,
        "lenient": settings.lenient,
        "vcpus": settings.vcpus,
    }


def _account(
    settings: Settings,
    prepared: Prepared,
    instances: LocalInstances,
    store: ImageStore,
    time: CloudClock,
    saved: Path | None,
) -> dict[str, str]:
    """Make what the account has at the start, or restore it; return the environment for profiles."""
    if saved is not None:
        return records.restore(saved, instances, store, time) | {"HF_TOKEN": prepared.token}
    environment = fixtures.create(settings, prepared)
    amis = [*base_amis(prepared.bases), *hostile_amis(prepared.bases)]
    register(ec2_backends[ACCOUNT][SPOT_REGION], amis)
    return environment


def _owner_routes(owners: Owners) -> dict[tuple[str, str], Route]:
    """Routes for the owners of the cloud."""

    def add(request: Any) -> dict[str, bool]:
        return {"up": owners.add(int(request.args["pid"]))}

    def keep(request: Any) -> dict[str, bool]:
        return {"up": owners.keep()}

    def release(request: Any) -> dict[str, bool]:
        return {"last": owners.release(int(request.args["pid"]))}

    def living(request: Any) -> list[int]:
        return owners.living()

    return {
        ("GET", "/-/owners"): living,
        ("POST", "/-/owners"): add,
        ("DELETE", "/-/owners"): release,
        ("POST", "/-/keep"): keep,
    }


def _fault_routes(faults: AwsFaults) -> dict[tuple[str, str], Route]:
    """Routes for faults of AWS calls; the faults end with this process."""

    def add(request: Any) -> dict[str, Any]:
        return faults.add(parse_fault(request.get_data())).model_dump()

    def listed(request: Any) -> list[dict[str, Any]]:
        return [planted.model_dump() for planted in faults.listed()]

    def clear(request: Any) -> dict[str, int]:
        return {"ended": faults.clear()}

    return {
        ("POST", "/-/faults"): add,
        ("GET", "/-/faults"): listed,
        ("DELETE", "/-/faults"): clear,
    }
