"""Apache Libcloud: launch, image, boot from it, clean up. It calls EC2 by GET."""

from __future__ import annotations

import json

import pytest

from .conftest import Desk, needed

pytestmark = [pytest.mark.root, pytest.mark.clients]

# Runs in the clients' environment; prints the address of each node as it is up, and waits for a line.
PROGRAM = """
import json, os, sys, time
from urllib.parse import urlsplit
from libcloud.common.exceptions import BaseHTTPError
from libcloud.compute.providers import get_driver
from libcloud.compute.types import NodeState, Provider

asked = json.load(open(sys.argv[1]))
place = urlsplit(os.environ["AWS_ENDPOINT_URL"])
driver = get_driver(Provider.EC2)(
    os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"], region=os.environ["AWS_REGION"],
    secure=False, host=place.hostname, port=place.port, signature_version="4",
)
size = next(one for one in driver.list_sizes() if one.id == asked["type"])
subnet = driver.ex_list_subnets(subnet_ids=[asked["subnet"]])[0]


def patiently(call, *words, **more):
    # EC2 shows late what it has made, and Libcloud believes the first answer.
    deadline = time.monotonic() + 300
    while True:
        try:
            return call(*words, **more)
        except BaseHTTPError as error:
            if ".NotFound" not in str(error) or time.monotonic() > deadline:
                raise


def launch(image):
    node = patiently(
        driver.create_node, name=asked["name"], image=image, size=size, ex_keyname=asked["name"],
        ex_subnet=subnet, ex_security_group_ids=[asked["group"]],
    )
    [(node, addresses)] = driver.wait_until_running([node], wait_period=0.5, timeout=300)
    print(json.dumps({"node": node.id, "address": addresses[0]}), flush=True)
    sys.stdin.readline()
    return node


driver.import_key_pair_from_string(asked["name"], open(asked["public"]).read())
node = launch(driver.get_image(asked["image"]))
image = patiently(driver.create_image, node, asked["name"] + " image")
while patiently(driver.get_image, image.id).extra["state"] != "available":
    time.sleep(0.5)
assert patiently(driver.destroy_node, node)
second = launch(image)
assert patiently(driver.destroy_node, second)
mappings = patiently(driver.get_image, image.id).extra["block_device_mapping"]
assert driver.delete_image(image)
for mapping in mappings:
    for snapshot in driver.list_snapshots():
        if snapshot.id == mapping["ebs"]["snapshot_id"]:
            assert driver.destroy_volume_snapshot(snapshot)
[pair] = [one for one in driver.list_key_pairs() if one.name == asked["name"]]
assert driver.delete_key_pair(pair)
print(json.dumps({"done": True}), flush=True)
"""


def test_it_makes_an_image_and_boots_from_it(desk: Desk) -> None:
    import subprocess

    found = desk.cloud.environment
    asked = {
        "name": desk.name,
        "type": "g6e.xlarge",
        "image": found["BASE_AMI_ID"],
        "subnet": found["BAKE_SUBNET_ID"],
        "group": found["BAKE_SECURITY_GROUP_ID"],
        "public": f"{desk.key}.pub",
    }
    (desk.folder / "asked.json").write_text(json.dumps(asked))
    (desk.folder / "program.py").write_text(PROGRAM)
    with subprocess.Popen(
        [needed("python"), "program.py", "asked.json"],
        cwd=desk.folder,
        env=desk.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for command, wanted in (
            ("sudo sh -c 'echo made by Libcloud > /etc/made' && sync && cat /etc/made", "made by Libcloud"),
            ("cat /etc/made", "made by Libcloud"),
        ):
            told = json.loads(process.stdout.readline())
            assert desk.ssh(told["address"], command) == wanted
            process.stdin.write("go on\n")
            process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"done": True}
    assert process.returncode == 0
