"""`flux-worker check --aws` finds what a role lacks, by harmless calls (R-CONFIG)."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner, Result

from flux_worker.cli import main
from flux_worker.inference.streaming.manifest import Manifest
from tests.worker.conftest import CREDENTIALS, REGION, Aws
from tests.worker.refusing_proxy import RefusingProxy

NEEDED = (
    *("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"),
    *("s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "events:PutEvents"),
)


@pytest.fixture(scope="module")
def proxy(aws: Aws) -> Iterator[RefusingProxy]:
    with RefusingProxy(aws.endpoint).running() as running:
        yield running


@pytest.fixture
def check(aws: Aws, proxy: RefusingProxy) -> Iterator[Callable[..., Result]]:
    """Runs the command in this process; what it says of rights is in `facts`."""
    proxy.refused.clear()
    proxy.simulated.clear()
    proxy.policies = None

    def run(*options: str, **environment: str) -> Result:
        places = CREDENTIALS | {
            "AWS_ENDPOINT_URL": proxy.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": REGION,
            "FLUX_QUEUE_URL": aws.jobs,
            "FLUX_BUCKET": aws.bucket,
            "FLUX_EVENT_BUS": aws.bus,
        }
        return CliRunner().invoke(main, ["check", "--aws", *options], env=places | environment)

    yield run


def facts(result: Result) -> dict[str, Any]:
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def states(result: Result) -> dict[str, str]:
    return {one["what"]: one["state"] for one in facts(result)["findings"]}


def test_reading_alone_proves_what_it_can(check: Callable[..., Result], aws: Aws) -> None:
    done = check("--json")
    found = states(done)
    assert done.exit_code == 0
    holding = {"s3:ListBucket", "s3:GetObject", "sqs:GetQueueAttributes", "events:DescribeEventBus"}
    assert {what for what, state in found.items() if state == "holds" and ":" in what} == holding | {
        f"the queue {aws.jobs}"
    }
    untold = next(one for one in facts(done)["findings"] if one["what"] == "sqs:ReceiveMessage")
    assert untold["state"] == "untold"
    assert "iam:SimulatePrincipalPolicy" in untold["why"]
    assert aws.client("s3").list_objects_v2(Bucket=aws.bucket)["KeyCount"] == 0


def test_writing_proves_more_and_leaves_nothing_but_an_event(check: Callable[..., Result], aws: Aws) -> None:
    aws.send({"id": "somebodys", "prompt": "a cat"})
    found = states(check("--write", "--json"))
    proved = {*NEEDED} - {"sqs:ReceiveMessage"}
    assert {action: found[action] for action in proved} == dict.fromkeys(proved, "holds")
    assert aws.client("s3").list_objects_v2(Bucket=aws.bucket)["KeyCount"] == 0
    assert aws.event()["detail-type"] == "FluxProbe"
    sqs = aws.client("sqs")
    [message] = sqs.receive_message(QueueUrl=aws.jobs, MessageSystemAttributeNames=["All"])["Messages"]
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    sqs.delete_message(QueueUrl=aws.jobs, ReceiptHandle=message["ReceiptHandle"])


@pytest.mark.parametrize("action", [one for one in NEEDED if one != "sqs:ReceiveMessage"])
def test_what_is_refused_is_named_with_the_statement_that_allows_it(
    check: Callable[..., Result], proxy: RefusingProxy, aws: Aws, action: str
) -> None:
    proxy.refuse(action)
    done = check("--write", "--json")
    assert done.exit_code == 78
    assert states(done)[action] == "missing"
    [statement] = facts(done)["statements"]
    assert statement["Action"] == [action]
    assert (aws.jobs if "sqs" in action else aws.bus if "events" in action else aws.bucket).rpartition("/")[
        2
    ] in statement["Resource"]
    proxy.refused.clear()
    assert f'"{action}"' not in check("--write").stdout


@pytest.mark.parametrize("action", ["sqs:GetQueueAttributes", "events:DescribeEventBus"])
def test_what_a_worker_can_do_without_is_no_failure(
    check: Callable[..., Result], proxy: RefusingProxy, action: str
) -> None:
    proxy.refuse(action)
    done = check("--write", "--json")
    assert done.exit_code == 0
    assert [one["Action"] for one in facts(done)["optional_statements"]] == [[action]]
    assert "May be added to the role's policy:" in check("--write").stdout


IMPLICIT = {"EvalDecision": "implicitDeny"}
SCP = "<AllowedByOrganizations>false</AllowedByOrganizations>"
BOUNDARY = "<AllowedByPermissionsBoundary>false</AllowedByPermissionsBoundary>"


@pytest.mark.parametrize(
    ("answer", "state", "why", "granted"),
    [
        pytest.param({}, "holds", "simulation", False, id="allowed"),
        pytest.param(IMPLICIT, "missing", "no policy of the role", True, id="not-allowed"),
        pytest.param({"EvalDecision": "explicitDeny"}, "missing", "a Deny", False, id="denied"),
        pytest.param(
            IMPLICIT | {"MissingContextValues": "<member>aws:SourceVpc</member>"},
            *("untold", "aws:SourceVpc", False),
            id="condition",
        ),
        pytest.param(
            IMPLICIT | {"OrganizationsDecisionDetail": SCP}, "missing", "organization", False, id="scp"
        ),
        pytest.param(
            IMPLICIT | {"PermissionsBoundaryDecisionDetail": BOUNDARY},
            *("missing", "boundary", False),
            id="boundary",
        ),
    ],
)
def test_iam_is_asked_where_the_role_may(
    check: Callable[..., Result],
    proxy: RefusingProxy,
    answer: dict[str, Any],
    state: str,
    why: str,
    granted: bool,
) -> None:
    proxy.policies = {"sqs:ReceiveMessage": answer}
    done = check("--json")
    receiving = next(one for one in facts(done)["findings"] if one["what"] == "sqs:ReceiveMessage")
    assert receiving["state"] == state
    assert why in receiving["why"]
    assert done.exit_code == (78 if state == "missing" else 0)
    actions = [one["Action"] for one in facts(done)["statements"]]
    assert actions == ([["sqs:ReceiveMessage"]] if granted else [])


def test_iam_is_asked_about_the_role_and_the_very_places(
    check: Callable[..., Result], proxy: RefusingProxy, aws: Aws
) -> None:
    proxy.policies = {}
    found = states(check("--json"))
    assert "untold" not in found.values()
    simulated = [(form["PolicySourceArn"], form["ResourceArns.member.1"]) for form in proxy.simulated]
    assert {source for [source], _ in simulated} == {"arn:aws:iam::123456789012:role/flux-worker"}
    assert f"arn:aws:s3:::{aws.bucket}/images/cat-1.png" in {resource for _, [resource] in simulated}
    assert not any("ResourceArns.member.2" in form for form in proxy.simulated)


def test_the_right_to_publish_metrics_is_asked_for_in_its_namespace_where_there_is_one(
    check: Callable[..., Result], proxy: RefusingProxy
) -> None:
    action = "cloudwatch:PutMetricData"
    proxy.policies = {action: IMPLICIT}
    assert action not in states(check("--json"))
    proxy.simulated.clear()
    done = check("--json", FLUX_CLOUDWATCH_NAMESPACE="Flux")
    assert done.exit_code == 0, "the worker draws without its metric"
    assert facts(done)["optional_statements"] == [
        {
            "Effect": "Allow",
            "Action": [action],
            "Resource": "*",
            "Condition": {"StringEquals": {"cloudwatch:namespace": "Flux"}},
        }
    ]
    form = next(one for one in proxy.simulated if any(action in values for values in one.values()))
    assert form["ContextEntries.member.2.ContextKeyName"] == ["cloudwatch:namespace"]
    assert form["ContextEntries.member.2.ContextKeyValues.member.1"] == ["Flux"]


def test_what_a_call_has_shown_is_not_asked_of_iam(
    check: Callable[..., Result], proxy: RefusingProxy
) -> None:
    """A policy of the bucket may allow what the role's policies do not."""
    proxy.policies = {"s3:PutObject": IMPLICIT, "s3:GetObject": IMPLICIT}
    done = check("--write", "--json")
    assert (done.exit_code, states(done)["s3:PutObject"]) == (0, "holds")


@pytest.mark.parametrize(
    ("variable", "value", "missing"),
    [
        ("FLUX_QUEUE_URL", "/123456789012/no-such-queue", "the queue"),
        ("FLUX_BUCKET", "no-such-bucket-of-mine", "the bucket no-such-bucket-of-mine"),
        ("FLUX_EVENT_BUS", "no-such-bus", "the event bus no-such-bus"),
    ],
)
def test_a_place_that_is_absent_is_named(
    check: Callable[..., Result], proxy: RefusingProxy, variable: str, value: str, missing: str
) -> None:
    done = check("--json", **{variable: f"{proxy.url}{value}" if value.startswith("/") else value})
    assert done.exit_code == 78
    [place] = [what for what, state in states(done).items() if state == "missing"]
    assert place.startswith(missing)
    assert facts(done)["statements"] == []


def test_an_absent_dead_letter_queue_is_named(check: Callable[..., Result], aws: Aws) -> None:
    sqs = aws.client("sqs")
    name = f"{aws.bucket}-dead"
    dead = sqs.create_queue(QueueName=name)["QueueUrl"]
    policy = {"deadLetterTargetArn": f"arn:aws:sqs:{REGION}:123456789012:{name}", "maxReceiveCount": 1}
    jobs = sqs.create_queue(QueueName=f"{name}-jobs", Attributes={"RedrivePolicy": json.dumps(policy)})
    shown = check(FLUX_QUEUE_URL=jobs["QueueUrl"])
    assert shown.exit_code == 0
    assert "after 1 receives" in shown.stdout
    assert "never runs again" in shown.stdout
    sqs.delete_queue(QueueUrl=dead)
    gone = check("--json", FLUX_QUEUE_URL=jobs["QueueUrl"])
    assert (
        gone.exit_code,
        next(one for one in facts(gone)["findings"] if one["state"] == "missing")["what"],
    ) == (
        78,
        "dead-letter queue",
    )


def test_a_key_of_the_accounts_own_needs_a_right(
    check: Callable[..., Result], proxy: RefusingProxy, aws: Aws
) -> None:
    queue = aws.client("sqs").create_queue(
        QueueName=f"{aws.bucket}-kms", Attributes={"KmsMasterKeyId": "1234abcd-12ab-34cd-56ef-1234567890ab"}
    )["QueueUrl"]
    proxy.policies = {"kms:Decrypt": IMPLICIT}
    [statement] = facts(check("--json", FLUX_QUEUE_URL=queue))["statements"]
    assert statement["Action"] == ["kms:Decrypt"]
    assert statement["Resource"].endswith(":key/1234abcd-12ab-34cd-56ef-1234567890ab")


def test_a_refused_key_is_named_and_not_the_object(
    check: Callable[..., Result], proxy: RefusingProxy
) -> None:
    key = f"arn:aws:kms:{REGION}:123456789012:key/1234abcd"
    proxy.refuse(
        "s3:PutObject",
        message=f"User: x is not authorized to perform: kms:GenerateDataKey on resource: {key} b",
    )
    done = check("--write", "--json")
    assert facts(done)["statements"] == [
        {"Effect": "Allow", "Action": ["kms:GenerateDataKey"], "Resource": key}
    ]


def test_a_bucket_in_another_region_is_said(check: Callable[..., Result], aws: Aws) -> None:
    name = f"{aws.bucket}-north"
    north = boto3.client(
        "s3",
        endpoint_url=aws.endpoint,
        region_name="eu-north-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    north.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-north-1"})
    done = check(FLUX_BUCKET=name)
    assert done.exit_code == 0
    assert f"note     the bucket {name}: is in eu-north-1, but AWS_REGION is eu-west-1" in done.stdout


def test_no_credentials_are_a_matter_of_the_environment(check: Callable[..., Result]) -> None:
    done = check(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", AWS_CONFIG_FILE="/none", HOME="/none")
    assert done.exit_code == 78
    assert "missing  credentials: no credentials for sts:GetCallerIdentity" in done.stdout


def test_what_cannot_be_reached_may_pass(check: Callable[..., Result]) -> None:
    done = check(AWS_ENDPOINT_URL="http://127.0.0.1:1", AWS_MAX_ATTEMPTS="1")
    assert done.exit_code == 1
    assert "http://127.0.0.1:1 is not reachable for sqs:GetQueueAttributes" in done.stdout


def test_a_worker_needs_no_sts(check: Callable[..., Result], proxy: RefusingProxy) -> None:
    """A subnet without a way out may have endpoints for SQS, S3 and EventBridge alone."""
    proxy.refuse("sts:GetCallerIdentity", None)
    done = check("--write", "--json")
    assert (done.exit_code, states(done)["s3:PutObject"]) == (0, "holds")


def test_secrets_that_were_read_are_named(
    check: Callable[..., Result], proxy: RefusingProxy, aws: Aws
) -> None:
    name = f"{aws.bucket}/check"
    aws.client("secretsmanager").create_secret(Name=name, SecretString=json.dumps({"bus": aws.bus}))
    done = check("--json", FLUX_EVENT_BUS=f"secretsmanager:{name}#bus")
    assert states(done)["secretsmanager:GetSecretValue"] == "holds"


def test_writing_is_for_aws_alone() -> None:
    assert CliRunner().invoke(main, ["check", "--write"]).exit_code == 2


def test_neither_torch_nor_the_model_is_needed(aws: Aws) -> None:
    program = """
import sys
from flux_worker.cli import main
main(["check", "--aws", "--write"], standalone_mode=False)
assert not {"torch", "diffusers", "transformers", "huggingface_hub"} & set(sys.modules)
"""
    environment = CREDENTIALS | {
        "PATH": os.environ["PATH"],
        "AWS_ENDPOINT_URL": aws.endpoint,
        "AWS_REGION": REGION,
        "FLUX_QUEUE_URL": aws.jobs,
        "FLUX_BUCKET": aws.bucket,
        "FLUX_EVENT_BUS": aws.bus,
    }
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def weights(aws: Aws, tmp_path: Path) -> dict[str, str]:
    """Settings of a worker whose weights are in a bucket, but for one file of two."""
    folder = tmp_path / "model"
    folder.mkdir()
    digests = {}
    for name in ("a.safetensors", "b.safetensors"):
        (folder / name).write_bytes(name.encode())
        digests[name] = hashlib.sha256(name.encode()).hexdigest()
    Manifest.of(folder, digests).write(tmp_path / "ranges.json")
    key = f"weights/{digests['a.safetensors']}"
    aws.client("s3").put_object(Bucket=aws.bucket, Key=key, Body=b"a.safetensors")
    return {"FLUX_STREAM": f"s3://{aws.bucket}/weights", "FLUX_STREAM_RANGES": str(tmp_path / "ranges.json")}


def of_weights(done: Result) -> dict[str, Any]:
    """The finding about the weights in the bucket."""
    assert done.exit_code == 0  # whatever it is
    (found,) = [one for one in facts(done)["findings"] if "weights" in one["what"] + one["why"]]
    return found  # type: ignore[no-any-return]


def test_weights_that_a_bucket_lacks_are_named(
    check: Callable[..., Result], aws: Aws, weights: dict[str, str]
) -> None:
    found = of_weights(check("--json", **weights))
    assert (found["state"], found["what"]) == ("note", f"the weights in s3://{aws.bucket}/weights")
    assert found["why"] == "b.safetensors are not there, and come from the volume alone"
    key = f"weights/{hashlib.sha256(b'b.safetensors').hexdigest()}"
    aws.client("s3").put_object(Bucket=aws.bucket, Key=key, Body=b"b.safetensors")
    found = of_weights(check("--json", **weights))
    assert (found["state"], found["why"]) == ("holds", "all 2 files are there")


def test_weights_that_may_not_be_read_are_optional_with_the_statement_that_allows_it(
    check: Callable[..., Result], proxy: RefusingProxy, aws: Aws, weights: dict[str, str]
) -> None:
    proxy.refuse("s3:HeadBucket")  # as the proxy calls every HEAD
    done = check("--json", **weights)
    found = of_weights(done)
    assert (found["state"], found["optional"]) == ("missing", True)
    (statement,) = facts(done)["optional_statements"]
    assert statement["Resource"] == f"arn:aws:s3:::{aws.bucket}/weights/*"
    assert statement["Action"] == ["s3:GetObject"]
    assert "(without it" not in check(**weights).stdout.partition("weights in")[2].partition("\n")[0]


def test_without_a_manifest_the_weights_are_not_looked_at(
    check: Callable[..., Result], weights: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "ranges.json").unlink()
    found = of_weights(check("--json", **weights))
    assert (found["state"], found["why"][:14]) == ("note", "not looked at,")
