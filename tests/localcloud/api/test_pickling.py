"""Records of moto's that pickle alone can't keep."""

from __future__ import annotations

import pickle

from moto.ssm.models import SimpleSystemManagerBackend

from bake.localcloud.api import pickling


def test_ssms_records_are_kept_and_go_on() -> None:
    backend = SimpleSystemManagerBackend("eu-west-1", "123456789012")
    backend._resource_tags["Parameter"]["image"]["bake:run"] = "x"
    backend._parameters["image"] = []
    copy = pickle.loads(pickling.dumps(backend))
    assert copy._resource_tags["Parameter"]["image"] == {"bake:run": "x"}
    assert copy._resource_tags["Document"]["new"] == {}
    assert dict(copy._parameters) == {"image": []}
    assert copy._parameters["other"] == []
    assert (copy._parameters.account_id, copy._parameters.region_name) == ("123456789012", "eu-west-1")
