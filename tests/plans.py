"""Plans with something changed, as `make` would have made them: every part follows."""

from __future__ import annotations

from dataclasses import replace

from bake.planning.drivers import Drivers
from bake.planning.parts import ImagePlan, ProvisionPlan, WeightsPlan
from bake.planning.plan import Plan
from bake.planning.reaching import Reach
from bake.planning.sources import Sources
from bake.profile import Profile
from bake.wiring import stream_settings


def changed(
    plan: Plan,
    profile: Profile | None = None,
    *,
    sources: Sources | None = None,
    drivers: Drivers | None = None,
) -> Plan:
    """The plan with another profile, other sources or other drivers. Nothing is asked or checked again."""
    profile, sources = profile or plan.profile, sources or plan.sources
    drivers = drivers or plan.provision.drivers
    weights = WeightsPlan.of(profile, plan.weights.files, plan.weights.lock)
    return replace(
        plan,
        profile=profile,
        sources=sources,
        launch=replace(
            plan.launch,
            settings={
                **sources.worker,
                **drivers.launched_with,
                **stream_settings(profile.weights.stream),
            },
            reach=Reach.of(profile, sources),
        ),
        weights=weights,
        provision=ProvisionPlan.of(profile, sources, plan.provision.worker, drivers),
        verify=replace(plan.verify, drivers=drivers),
        image=ImagePlan.of(profile, plan.image.disk),
    )
