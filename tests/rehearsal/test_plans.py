"""Every profile gets the right verdict from a plan on the local cloud."""

from __future__ import annotations

from pathlib import Path

import pytest

from bake import aws as clients
from bake import profile
from bake.aws import Aws
from bake.errors import UsageError
from bake.localcloud import LocalCloud, sources
from bake.request import ask_and_plan

pytestmark = pytest.mark.root
PROFILES = Path(__file__).parents[2] / "profiles"
NAMES = profile.names(PROFILES)


@pytest.mark.parametrize("name", NAMES)
def test_each_profile_gets_its_verdict(cloud: LocalCloud, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The local cloud loads a service when it is first asked: on a busy host that takes longer, and warns.
    monkeypatch.setitem(clients.BRIEFLY, "patience", 120)
    found, origins = profile.load_with_origins(name, PROFILES, dict(cloud.environment))
    aws = Aws(
        region="eu-north-1", worker_region="eu-west-1", endpoint=cloud.endpoint, endpoint_key=cloud.keys
    )
    if found.base.accelerator == "neuron":
        with pytest.raises(UsageError, match=r"does not fit inf2\.xlarge"):
            ask_and_plan(found, aws, sources(cloud, found.base.os), origins)
    else:
        plan = ask_and_plan(found, aws, sources(cloud, found.base.os), origins)
        assert plan.verify.memory[0].verdict == ("fits" if name.startswith("g6e") else "tight")
        assert plan.image.disk.verdict == "fits"
        # The local cloud tells what is written on a base that is built; Amazon Linux's may not be yet.
        assert not plan.image.disk.at_most or found.base.os == "amazon-linux"
        assert not plan.warnings
