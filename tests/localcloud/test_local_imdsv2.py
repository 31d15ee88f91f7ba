"""Metadata options as on EC2: defaults, an image's ImdsSupport, changes that take effect at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instances import MetadataOptions

from bake.localcloud.api.metadata_options import at_launch, changed, imds_support_of
from bake.localcloud.images.store import ImageStore, StoredImage
from bake.ssh import Session, connect


@pytest.mark.parametrize(
    ("support", "asked", "tokens", "hops"),
    [
        pytest.param(None, {}, "optional", "1", id="ec2"),
        pytest.param("v2.0", {}, "required", "2", id="image"),
        pytest.param("v2.0", {"HttpTokens": "optional"}, "optional", "2", id="call-says-tokens"),
        pytest.param("v2.0", {"HttpPutResponseHopLimit": "1"}, "required", "1", id="call-says-hops"),
        pytest.param(None, {"HttpTokens": "required"}, "required", "1", id="call-alone"),
    ],
)
def test_what_a_launch_does_not_say_is_the_images(
    support: str | None, asked: dict[str, str], tokens: str, hops: str
) -> None:
    options = at_launch(support, asked)
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == (tokens, hops)


@pytest.mark.parametrize(
    "asked",
    [{"HttpTokens": "maybe"}, {"HttpPutResponseHopLimit": "65"}, {"HttpPutResponseHopLimit": 0}],
    ids=str,
)
def test_a_wrong_option_is_refused(asked: dict[str, Any]) -> None:
    options = MetadataOptions()
    with pytest.raises(EC2ClientError):
        at_launch(None, asked)
    with pytest.raises(EC2ClientError):
        changed(options, asked)
    assert (options.http_tokens, options.http_put_response_hop_limit) == ("optional", 1)


def test_a_change_leaves_the_other_options_alone() -> None:
    options = MetadataOptions({"HttpTokens": "required", "InstanceMetadataTags": "enabled"})
    changed(options, {"HttpTokens": None, "HttpPutResponseHopLimit": 3})
    assert (options.http_tokens, options.instance_metadata_tags) == ("required", "enabled")
    assert options.http_put_response_hop_limit == 3


def test_imdsv2_cannot_be_taken_back() -> None:
    assert imds_support_of({"ImdsSupport.Value": "v2.0"}) == "v2.0"
    assert imds_support_of({"Attribute": "imdsSupport", "Value": "v2.0"}) == "v2.0"
    assert imds_support_of({"LaunchPermission.Add.1.UserId": "1"}) is None
    for call in ({"ImdsSupport.Value": "v1.0"}, {"ImdsSupport.Value": ""}, {"Attribute": "imdsSupport"}):
        with pytest.raises(EC2ClientError):
            imds_support_of(call)


def test_an_images_support_is_kept_on_disk_and_older_records_load(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    store.save(StoredImage("ami-1", "n", "", "2026-01-01", "snap-1", "gp3", 3000, 125, imds_support="v2.0"))
    store.disk("snap-1").touch()
    assert [image.imds_support for image in store.images()] == ["v2.0"]
    record = json.loads((tmp_path / "ami-1.json").read_text())
    del record["imds_support"]
    (tmp_path / "ami-1.json").write_text(json.dumps(record))
    assert [image.imds_support for image in store.images()] == [None]


@pytest.fixture(scope="module")
def builder(account: Any) -> Iterator[Any]:
    launched = account.launch(MetadataOptions={})
    yield launched
    account.terminate(launched.id)


@pytest.fixture(scope="module")
def session(builder: Any) -> Iterator[Session]:
    with connect(builder.login) as session:
        yield session


def options_of(account: Any, instance: str) -> tuple[str, int]:
    [group] = account.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    options = group["Instances"][0]["MetadataOptions"]
    return options["HttpTokens"], options["HttpPutResponseHopLimit"]


@pytest.mark.root
def test_a_changed_hop_limit_takes_effect_at_once(builder: Any, account: Any, session: Session) -> None:
    """The machine's kernel drops what has one hop left, as the machine would if it had to pass it on."""
    program = """
import http.client, socket, sys
connection = http.client.HTTPConnection("169.254.169.254", timeout=float(sys.argv[1]))
connection.connect()
connection.sock.setsockopt(socket.IPPROTO_IP, 21, 2)
connection.request("PUT", "/latest/api/token", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
print(connection.getresponse().status)
"""
    assert options_of(account, builder.id) == ("optional", 1)
    assert "timed out" in session.run("python3", "-c", program, "3", check=False).stderr
    account.ec2.modify_instance_metadata_options(InstanceId=builder.id, HttpPutResponseHopLimit=2)
    assert options_of(account, builder.id) == ("optional", 2)
    assert session.run("python3", "-c", program, "60").stdout == "200\n"
    account.ec2.modify_instance_metadata_options(InstanceId=builder.id, HttpTokens="required")
    assert options_of(account, builder.id) == ("required", 2)


@pytest.mark.root
def test_an_image_says_that_its_instances_need_tokens(builder: Any, account: Any, session: Session) -> None:
    ec2 = account.ec2
    session.run("true")  # it is up
    image = account.image_of(builder.id, "needs-tokens", NoReboot=True)
    assert "ImdsSupport" not in ec2.describe_images(ImageIds=[image])["Images"][0]
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        ec2.modify_image_attribute(ImageId=image, ImdsSupport={"Value": "v1.0"})
    ec2.modify_image_attribute(ImageId=image, ImdsSupport={"Value": "v2.0"})
    assert ec2.describe_images(ImageIds=[image])["Images"][0]["ImdsSupport"] == "v2.0"
    attribute = ec2.describe_image_attribute(ImageId=image, Attribute="imdsSupport")
    assert attribute["ImdsSupport"] == {"Value": "v2.0"}
    for asked, expected in (({}, ("required", 2)), ({"HttpTokens": "optional"}, ("optional", 2))):
        launched = account.launch(image, MetadataOptions=asked)
        assert options_of(account, launched.id) == expected
        account.terminate(launched.id)
    ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)


@pytest.mark.root
def test_somebody_elses_image_stays_as_it_is(account: Any) -> None:
    base = account.cloud.environment["BASE_AMI_ID"]
    with pytest.raises(ClientError, match="AuthFailure"):
        account.ec2.modify_image_attribute(ImageId=base, ImdsSupport={"Value": "v2.0"})
