"""A whole bake in int8, whose image does not keep the bfloat16 files, and whose worker reads S3 as well."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from bake.iam import Account, document
from bake.iam.worker import read_weights
from bake.localcloud import ImageStore, LocalCloud, Settings

from . import sparse
from .bakes import rehearse
from .instances import client

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
STREAM = "int8-stream"


@pytest.fixture(scope="module")
def bucket(cloud: LocalCloud) -> Iterator[str]:
    """An empty bucket, which the worker's role may read below the prefix."""
    s3, iam = client(cloud, "s3", "SPOT_AWS_REGION"), client(cloud, "iam")
    where = {"LocationConstraint": s3.meta.region_name}
    s3.create_bucket(Bucket=STREAM, CreateBucketConfiguration=where)
    name = cloud.environment["BAKE_INSTANCE_PROFILE"]
    [role] = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
    at = Account(role["Arn"].split(":")[4], s3.meta.region_name, cloud.environment["AWS_REGION"])
    policy = json.dumps(document(list(read_weights(at, f"s3://{STREAM}/flux"))))
    iam.put_role_policy(RoleName=role["RoleName"], PolicyName=STREAM, PolicyDocument=policy)
    yield STREAM
    iam.delete_role_policy(RoleName=role["RoleName"], PolicyName=STREAM)


@pytest.fixture(scope="module")
def directory(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a rehearsal of g5-ubuntu, whose weights are streamed from the bucket too."""
    desk = tmp_path_factory.mktemp("int8")
    (desk / "profiles").mkdir()
    for file in (ROOT / "profiles").glob("*.yaml"):
        (desk / "profiles" / file.name).write_bytes(file.read_bytes())
    (desk / "profiles" / "streamed.yaml").write_text(
        f"extends: g5-ubuntu\nattest: false\nweights: {{stream: 's3://{bucket}/flux'}}\n"
    )
    outcome = rehearse(desk, "streamed", profiles=desk / "profiles")
    assert outcome.code == 0, outcome.errors
    return outcome.directory


@pytest.fixture(scope="module")
def report(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "report.json").read_text())
    return found


def test_the_booted_image_drew_in_int8(directory: Path, report: dict[str, Any]) -> None:
    first, *pair = report["pictures"]
    assert first["precision"] == "int8"
    assert [(one["file"], one["precision"]) for one in pair] == [("bf16.png", "bf16"), ("int8.png", "int8")]
    assert (directory / "first-image.png").read_bytes().startswith(b"\x89PNG")


def test_the_facts_say_what_int8_is_made_of_and_how_near_it_is(
    directory: Path, report: dict[str, Any]
) -> None:
    made, fetched = (
        json.loads((directory / f"facts/{name}.json").read_text()) for name in ("int8", "weights")
    )
    lock = report["plan"]["lock"]
    assert made["provenance"]["revision"] == lock["revision"]
    assert {path: file["bytes"] for path, file in made["provenance"]["inputs"].items()} == {
        path: file["bytes"] for path, file in lock["files"].items()
    }
    assert made["comparison"]["psnr"] > 30
    assert made["comparison"]["drawn_on"] == {"bf16": "cpu", "int8": "cpu"}
    assert made["source_removed"] == fetched["bytes"]
    assert report["weights"]["bytes"] == made["bytes"]
    assert report["weights"]["int8_psnr_db"] == made["comparison"]["psnr"]
    assert all((directory / name).stat().st_size > 1000 for name in ("bf16.png", "int8.png"))


def test_the_bucket_got_what_is_served_and_the_worker_may_read_all_of_it(directory: Path) -> None:
    made, filled = (json.loads((directory / f"facts/{name}.json").read_text()) for name in ("int8", "stream"))
    served = {path for path in made["provenance"]["outputs"] if path.endswith(".safetensors")}
    assert (filled["there"], set(filled["uploaded"]), filled["lacking"]) == ([], served, [])
    rights = json.loads((directory / "logs/boot-check.rights.json").read_text())
    (told,) = [one for one in rights["findings"] if one["what"] == f"the weights in s3://{STREAM}/flux"]
    assert (told["state"], told["why"]) == ("holds", f"all {len(served)} files are there")


def test_the_worker_read_from_both_without_a_complaint(directory: Path) -> None:
    journal = (directory / "logs/boot-check.journal.log").read_text()
    assert "model loaded" in journal
    for complaint in ("the weights come from the volume alone", "wrong content", f"s3://{STREAM}/flux: "):
        assert complaint not in journal


def test_the_bfloat16_weights_are_not_in_the_images_raw_bytes(
    cloud: LocalCloud, cloud_settings: Settings, directory: Path, report: dict[str, Any]
) -> None:
    """Freed blocks are discarded, so that the image shrinks."""
    files = json.loads((directory / "facts/weights.json").read_text())["files"]
    gone, kept = (words(cloud, name) for name in (largest(files, "transformer"), largest(files, "vae")))
    disk = ImageStore(cloud_settings.images).disk(report["image"]["volumes"][0]["snapshot"])
    assert found_in(disk, gone | kept) == kept


def largest(files: dict[str, int], component: str) -> str:
    """The component's largest file."""
    return max((name for name in files if name.startswith(f"{component}/")), key=files.__getitem__)


def words(cloud: LocalCloud, name: str) -> set[bytes]:
    """Bytes that tell a file of the Hub: the first 64 of each matrix of its blocks, which int8 changes."""
    request = urllib.request.Request(
        f"{cloud.hub}/black-forest-labs/FLUX.1-dev/resolve/main/{name}",
        headers={"Authorization": f"Bearer {cloud.environment['HF_TOKEN']}"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        tensors = load(answer.read())
    matrices = [
        tensor
        for key, tensor in tensors.items()
        if "block" in key and key.endswith("weight") and tensor.ndim > 1
    ]
    found = {matrix.flatten()[:32].view(dtype=torch.uint8).numpy().tobytes() for matrix in matrices}
    assert found
    return found


def found_in(disk: Path, wanted: set[bytes]) -> set[bytes]:
    """Which of the words a disk holds; none is longer than 64 bytes."""
    found: set[bytes] = set()
    for chunk in sparse.chunks(disk, 64):
        found |= {word for word in wanted - found if word in chunk}
    return found
