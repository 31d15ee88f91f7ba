"""Records of moto's that pickle alone can't keep."""

from __future__ import annotations

import pickle

from moto.ssm.models import SimpleSystemManagerBackend

from bake.localcloud.api import pickling
from bake.localcloud.api.parameter_store import ParameterStore


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


def test_a_parameter_keeps_its_versions_and_who_wrote_them() -> None:
    pickling.ours(ParameterStore)
    store = ParameterStore("eu-west-1", "123456789012")
    for value in ("a", "b"):
        store.put_parameter("/kept", "why", value, "String", "", "", True, [], "text")
    copy = pickle.loads(pickling.dumps(store))
    assert [one.value for one in copy.get_parameter_history("/kept", None)[0]] == ["a", "b"]
    assert copy.get_parameter("/kept").last_modified_user == "arn:aws:iam::123456789012:root"
    assert copy.put_parameter("/kept", "", "c", "String", "", "", True, [], "text").version == 3
