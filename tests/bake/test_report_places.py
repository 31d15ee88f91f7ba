"""Reports in S3: what goes there and how, and that only the one that the tags name comes back."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from bake.aws import Aws
from bake.errors import BakeError, UsageError
from bake.report.kept import REPORT
from bake.report.places import SUMS, Place, download, upload
from tests.bake.conftest import HOME, PlanCloud
from tests.report.samples import GOOD

PNG = b"\x89PNG a picture"
REPORT_WITH_PICTURE = GOOD.model_copy(
    update={
        "pictures": (
            GOOD.pictures[0].model_copy(
                update={"file": "first-image.png", "sha256": hashlib.sha256(PNG).hexdigest()}
            ),
        )
    }
)


def run_directory(folder: Path) -> Path:
    """A finished run with its sums."""
    files = {
        REPORT: REPORT_WITH_PICTURE.model_dump_json().encode(),
        "report.html": b"<!doctype html>",
        "first-image.png": PNG,
        "logs/seal.log": b"removed\n",
        "wheels/flux_worker-1-py3-none-any.whl": b"PK",
        "plan.json": b"{}",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "resume.jsonl").write_text("{}\n")
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items())]
    (folder / SUMS).write_text("".join(lines))
    return folder


@pytest.fixture
def aws(plan_cloud: PlanCloud) -> Aws:
    return plan_cloud.aws()


@pytest.fixture
def bucket(aws: Aws) -> str:
    name = f"reports-{uuid.uuid4().hex[:12]}"
    aws.s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": HOME})
    return name


def there(aws: Aws, bucket: str) -> list[str]:
    return [one["Key"] for one in aws.s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_everything_but_wheels_and_notes_to_itself_goes_there(aws: Aws, bucket: str, tmp_path: Path) -> None:
    directory = run_directory(tmp_path / "run")
    url, sha256 = upload(aws, directory, f"s3://{bucket}/images/")
    folder = f"images/{GOOD.run.profile}/{GOOD.run.id}"
    assert url == f"s3://{bucket}/{folder}"
    assert sha256 == hashlib.sha256((directory / REPORT).read_bytes()).hexdigest()
    names = {SUMS, "first-image.png", "logs/seal.log", "plan.json", REPORT, "report.html"}
    assert set(there(aws, bucket)) == {f"{folder}/{name}" for name in names}
    head = aws.s3.head_object(Bucket=bucket, Key=f"{folder}/report.html")
    assert head["ContentType"] == "text/html"


def test_the_buckets_own_key_encrypts(aws: Aws, bucket: str, tmp_path: Path) -> None:
    """S3 takes the bucket's default where a call names no key; one that does would overrule its owner."""
    key = "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": default}]}
    aws.s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=rules)
    url, _ = upload(aws, run_directory(tmp_path), f"s3://{bucket}")
    head = aws.s3.head_object(Bucket=bucket, Key=f"{Place.of(url).prefix}/{REPORT}")
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key)


def test_the_report_itself_goes_last(
    aws: Aws, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, order = aws.s3.put_object, []

    def noted(**arguments: Any) -> Any:
        order.append(arguments["Key"].rpartition("/")[2])
        return put(**arguments)

    monkeypatch.setattr(aws.s3, "put_object", noted)
    upload(aws, run_directory(tmp_path), f"s3://{bucket}")
    assert order[-1] == REPORT


def test_a_file_that_has_changed_since_goes_nowhere(aws: Aws, bucket: str, tmp_path: Path) -> None:
    directory = run_directory(tmp_path)
    (directory / "first-image.png").write_bytes(b"another")
    with pytest.raises(BakeError, match=r"first-image\.png is not what SHA256SUMS says"):
        upload(aws, directory, f"s3://{bucket}")
    assert not [key for key in there(aws, bucket) if key.endswith(REPORT)]


def test_the_report_comes_back_with_its_pictures_and_only_once(aws: Aws, bucket: str, tmp_path: Path) -> None:
    url, sha256 = upload(aws, run_directory(tmp_path / "run"), f"s3://{bucket}/x")
    kept = tmp_path / "fetched"
    assert download(aws, url, sha256, kept) == REPORT_WITH_PICTURE
    assert sorted(file.name for file in kept.iterdir()) == ["first-image.png", REPORT]
    assert (kept / "first-image.png").read_bytes() == PNG
    aws.s3.delete_object(Bucket=bucket, Key=f"{Place.of(url).prefix}/{REPORT}")
    assert download(aws, url, sha256, kept) == REPORT_WITH_PICTURE
    (kept / REPORT).write_text("{}")
    with pytest.raises(BakeError, match="there is no s3://"):
        download(aws, url, sha256, kept)


def replaced(aws: Aws, url: str, name: str, content: bytes) -> None:
    place = Place.of(url) / name
    aws.s3.put_object(Bucket=place.bucket, Key=place.prefix, Body=content)


def test_another_report_is_refused_and_not_kept(aws: Aws, bucket: str, tmp_path: Path) -> None:
    url, sha256 = upload(aws, run_directory(tmp_path / "run"), f"s3://{bucket}")
    good = json.loads(REPORT_WITH_PICTURE.model_dump_json())
    replaced(aws, url, REPORT, json.dumps({**good, "warnings": []}).encode())
    with pytest.raises(BakeError, match="is not the report that the AMI's tags name"):
        download(aws, url, sha256, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_another_picture_is_refused_and_a_missing_one_is_missing(
    aws: Aws, bucket: str, tmp_path: Path
) -> None:
    url, sha256 = upload(aws, run_directory(tmp_path / "run"), f"s3://{bucket}")
    replaced(aws, url, "first-image.png", b"another")
    with pytest.raises(BakeError, match="is not the picture of the report"):
        download(aws, url, sha256, tmp_path / "fetched")
    assert not (tmp_path / "fetched" / REPORT).exists()
    place = Place.of(url) / "first-image.png"
    aws.s3.delete_object(Bucket=place.bucket, Key=place.prefix)
    assert download(aws, url, sha256, tmp_path / "fetched") == REPORT_WITH_PICTURE


@pytest.mark.parametrize("name", ["../../outside.png", "/etc/outside.png"])
def test_a_picture_outside_of_its_folder_is_refused(aws: Aws, bucket: str, tmp_path: Path, name: str) -> None:
    picture = GOOD.pictures[0].model_copy(update={"file": name})
    content = GOOD.model_copy(update={"pictures": (picture,)}).model_dump_json().encode()
    url = f"s3://{bucket}/x"
    replaced(aws, url, REPORT, content)
    with pytest.raises(BakeError, match="outside of its folder"):
        download(aws, url, hashlib.sha256(content).hexdigest(), tmp_path / "fetched")


@pytest.mark.parametrize(
    "url", ["https://example.com/x", "s3://", "s3:///x", "s3://Upper/x", "bucket/x", "s3://a"]
)
def test_a_place_is_a_bucket_and_a_folder(url: str) -> None:
    with pytest.raises(UsageError, match="is no place in S3"):
        Place.of(url)


def test_a_place_is_spelt_in_one_way() -> None:
    assert str(Place.of("s3://bucket") / "a" / "b") == "s3://bucket/a/b"
    assert str(Place.of("s3://bucket/x/y//") / "b") == "s3://bucket/x/y/b"
