"""The mirror in S3: presigned URLs work without credentials, and nothing stays open to others."""

from __future__ import annotations

import hashlib
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from moto.server import ThreadedMotoServer

from bake import profile
from bake.account.facts import WiringFacts
from bake.account.wiring import ask_mirror
from bake.aws import Aws
from bake.planning.findings import Findings
from bake.planning.wiring import check_mirror
from bake.weights import mirror as mirrors
from bake.weights.flux import WeightFile
from bake.weights.mirror import Mirror, Place

from ..facts import facts
from ..variables import VARIABLES

pytestmark = pytest.mark.integration
if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud

PROFILES = Path(__file__).parents[3] / "profiles"
BUCKET = "flux-mirror"
PART = 5 << 20  # S3 takes no smaller one, but for the last
A, B, SMALL = (WeightFile(PART + 5, "a" * 64), WeightFile(5, "b" * 64), WeightFile(3, git_oid="c" * 40))


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    found = Aws(region="eu-north-1", worker_region="eu-west-1", endpoint=f"http://{host}:{port}")
    for name, region in ((BUCKET, "eu-north-1"), ("far-away", "eu-west-1")):
        found.presigner(region).create_bucket(
            Bucket=name, CreateBucketConfiguration={"LocationConstraint": region}
        )  # type: ignore[typeddict-item]
    yield found
    server.stop()


@pytest.fixture
def mirror(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    monkeypatch.setattr(mirrors, "PART_BYTES", PART)
    found = Mirror.open(f"s3://{BUCKET}/weights/flux", aws)
    for item in aws.s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        aws.s3.delete_object(Bucket=BUCKET, Key=item["Key"])
    return found


def ask(method: str, url: str, body: bytes | None = None) -> tuple[bytes, str]:
    """As the builder does: with the URL and nothing else."""
    headers = {"Content-Type": "application/octet-stream"}
    request = urllib.request.Request(url, body, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read(), answer.headers.get("ETag", "")


def opened(aws: Aws) -> list[str]:
    return [one["Key"] for one in aws.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]


def test_a_place_has_a_bucket_and_maybe_a_prefix() -> None:
    assert Place.of("s3://b/p/q") == Place("b", "p/q")
    assert Place.of("s3://b/p/q").key("x") == "p/q/x"
    assert (Place.of("s3://b").key("x"), str(Place.of("s3://b"))) == ("x", "s3://b")


def test_what_is_missing_is_put_in_parts_and_is_there_the_next_time(mirror: Mirror, aws: Aws) -> None:
    document = mirror.document([A, SMALL])
    assert (document["name"], document["get"]) == (f"s3://{BUCKET}/weights/flux", {})
    put = document["put"]["a" * 64]
    assert (put["part_bytes"], len(put["parts"])) == (PART, 2)
    etags = [
        ask("PUT", url, part)[1] for url, part in zip(put["parts"], (bytes(PART), b"world"), strict=True)
    ]
    mirror.complete("a" * 64, etags)
    mirror.abort()
    assert opened(aws) == []
    again = mirror.document([A, SMALL])
    assert again["put"] == {}
    assert ask("GET", again["get"]["a" * 64])[0] == bytes(PART) + b"world"


def test_small_files_have_no_sha256_and_stay_with_the_hub(mirror: Mirror) -> None:
    assert mirror.document([SMALL]) == {"name": str(mirror.place), "get": {}, "put": {}}


def test_an_object_of_another_size_is_not_offered(mirror: Mirror, aws: Aws) -> None:
    aws.s3.put_object(Bucket=BUCKET, Key=mirror.place.key("a" * 64), Body=b"cut")
    document = mirror.document([A])
    assert document["get"] == {}
    assert list(document["put"]) == ["a" * 64]
    mirror.abort()


def test_the_controller_adds_an_object_and_lends_it(mirror: Mirror) -> None:
    content = b"a Python"
    sha256 = hashlib.sha256(content).hexdigest()
    assert mirror.lend(sha256) is None
    mirror.add(sha256, content)
    url = mirror.lend(sha256)
    assert url is not None
    assert ask("GET", url)[0] == content


def test_what_was_not_completed_is_given_up(mirror: Mirror, aws: Aws) -> None:
    mirror.document([A, B])
    assert len(opened(aws)) == 2
    mirror.abort()
    assert opened(aws) == []
    assert mirror.uploads == {}


def test_only_forgotten_uploads_of_the_same_files_are_somebody_elses_no_more() -> None:
    now = datetime.now(UTC)
    old = now - timedelta(days=3)
    uploads = [
        {"Key": "p/a", "Initiated": old},
        {"Key": "p/a", "Initiated": now},
        {"Key": "x", "Initiated": old},
    ]
    assert mirrors.forgotten(uploads, {"p/a"}, now) == uploads[:1]


def test_urls_are_for_the_buckets_own_region() -> None:
    import boto3

    aws = Aws(region="eu-north-1", worker_region="eu-west-1")
    aws.__dict__["_session"] = boto3.Session(aws_access_key_id="x", aws_secret_access_key="x")
    for region in ("eu-north-1", "us-east-1"):
        url = aws.presigner(region).generate_presigned_url("get_object", Params={"Bucket": "b-1", "Key": "k"})
        assert url.startswith(f"https://b-1.s3.{region}.amazonaws.com/k?")
        assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url


@pytest.mark.parametrize(
    ("uri", "problem", "confirmed", "warned"),
    [
        (None, False, False, False),
        (f"s3://{BUCKET}/x", False, True, False),
        ("s3://far-away", False, True, True),
        ("s3://not-there-at-all", True, False, False),
    ],
    ids=["none", "near", "far", "missing"],
)
def test_the_plan_looks_for_the_bucket(
    aws: Aws, plan_profile: Any, uri: str | None, problem: bool, confirmed: bool, warned: bool
) -> None:
    findings = Findings({})
    profile = plan_profile(uri)
    account = facts(region=aws.region, wiring=WiringFacts(mirror=ask_mirror(profile, aws)))
    check_mirror(profile, account, findings)
    found = (bool(findings.problems), bool(findings.checked), bool(findings.warnings))
    assert found == (problem, confirmed, warned)


@pytest.fixture
def plan_profile() -> Any:
    found = profile.load("g6e-ubuntu", PROFILES, VARIABLES)

    def with_mirror(uri: str | None) -> Any:
        return found.model_copy(update={"weights": found.weights.model_copy(update={"mirror": uri})})

    return with_mirror


@pytest.fixture
def lossy(plan_cloud: PlanCloud, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """A mirror in the account whose answers can be lost."""
    monkeypatch.setattr(mirrors, "PART_BYTES", PART)
    aws, bucket = plan_cloud.aws(), f"mirror-{uuid.uuid4().hex[:8]}"
    where: Any = {"LocationConstraint": "eu-north-1"}
    aws.presigner("eu-north-1").create_bucket(Bucket=bucket, CreateBucketConfiguration=where)
    return Mirror.open(f"s3://{bucket}", aws)


def test_a_lost_answer_costs_no_object_and_leaves_no_upload(plan_cloud: PlanCloud, lossy: Mirror) -> None:
    plan_cloud.faults.plant("s3", "CompleteMultipartUpload", "lost")
    plan_cloud.faults.plant("s3", "AbortMultipartUpload", "lost")
    document = lossy.document([A, B])
    etags = [
        ask("PUT", url, part)[1]
        for url, part in zip(document["put"]["a" * 64]["parts"], (bytes(PART), b"world"), strict=True)
    ]
    lossy.complete("a" * 64, etags)
    lossy.abort()
    assert lossy.uploads == {}
    listed = plan_cloud.aws().s3.list_objects_v2(Bucket=lossy.place.bucket)["Contents"]
    assert [item["Key"] for item in listed] == ["a" * 64]
    assert [planted.struck for planted in plan_cloud.faults.listed()] == [1, 1]
