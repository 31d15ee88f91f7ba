"""What a plan asks AWS about what would be refused later; nothing is created, and no answer is no failure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from botocore.credentials import Credentials as Fixed
from botocore.credentials import RefreshableCredentials

from bake import iam
from bake.account.answers import Unanswered
from bake.account.credentials import read
from bake.account.launches import ask_launches
from bake.account.network import ask_group
from bake.account.rights import Rights, ask_rights, questions_of
from bake.account.routes import Route, Routes, ask_routes
from bake.aws import Aws
from bake.errors import UsageError
from bake.iam import Subject
from bake.planning.render import as_dict, as_text

from ..facts import AMI

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud

DRY = {"match": "DryRun=true", "times": None}
PASS_ROLE = (
    "You are not authorized to perform this operation. User: arn:aws:sts::123456789012:assumed-role/b/ci "
    "is not authorized to perform: iam:PassRole on resource: arn:aws:iam::123456789012:role/flux because no "
    "identity-based policy allows the iam:PassRole action. Encoded authorization failure message: AbC"
)
OTHER_GROUP = PASS_ROLE.replace("iam:PassRole", "ec2:RunInstances").replace(
    "arn:aws:iam::123456789012:role/flux", "arn:aws:ec2:eu-north-1:123456789012:security-group/sg-1"
)
TEMPORARY = {"security_group": "temporary", "ssh_from": "192.0.2.7/32"}


# --- the launch --------------------------------------------------------------------------------


def asked(cloud: PlanCloud, **builder: Any) -> dict[str, Any]:
    """The parameters of the plan's RunInstances."""
    sent: list[dict[str, Any]] = []
    aws = cloud.aws()
    aws.ec2.meta.events.register("before-call.ec2.RunInstances", lambda params, **_: sent.append(params))
    profile = cloud.profile(builder=builder)
    ask_launches(profile, aws, AMI)
    return dict(sent[0]["body"])


def test_the_launch_is_asked_as_it_will_be_made(plan_cloud: PlanCloud) -> None:
    before = plan_cloud.aws().ec2.describe_instances()["Reservations"]
    sent = asked(plan_cloud, market="spot")
    assert sent["DryRun"] == "true"
    assert sent["InstanceType"] == "g6e.xlarge"
    assert sent["SubnetId"] == plan_cloud.variables["BAKE_SUBNET_ID"]
    assert sent["SecurityGroupId.1"] == plan_cloud.variables["BAKE_SECURITY_GROUP_ID"]
    assert sent["BlockDeviceMapping.1.Ebs.VolumeSize"] == 80
    assert sent["MetadataOptions.HttpTokens"] == "required"
    assert sent["InstanceMarketOptions.MarketType"] == "spot"
    kinds = {value for key, value in sent.items() if key.endswith(".ResourceType")}
    assert kinds == {"instance", "volume", "network-interface", "spot-instances-request"}
    assert "bake:run" in sent.values()
    assert plan_cloud.aws().ec2.describe_instances()["Reservations"] == before


def test_no_key_pair_and_no_temporary_group_is_made_for_the_question(plan_cloud: PlanCloud) -> None:
    sent = asked(plan_cloud, **TEMPORARY)
    assert not [key for key in sent if key.startswith(("KeyName", "SecurityGroup"))]
    plan = plan_cloud.plan(builder=TEMPORARY)
    assert "port 22" not in [one.question for one in plan.preflight]
    assert plan_cloud.aws().ec2.describe_key_pairs()["KeyPairs"] == []


def test_a_launch_that_is_allowed_is_told(plan_cloud: PlanCloud) -> None:
    plan = plan_cloud.plan()
    answers = {one.question: one.answer for one in plan.preflight}
    assert answers["a launch of g6e.xlarge"] == "EC2 would make it (DryRun)"
    assert "Preflight, asked of AWS without creating anything:\n  - a launch of g6e.xlarge" in as_text(plan)
    assert as_dict(plan)["preflight"][0] == {
        "question": "a launch of g6e.xlarge",
        "answer": "EC2 would make it (DryRun)",
    }


def test_the_right_to_pass_the_role_is_missing(plan_cloud: PlanCloud) -> None:
    plan_cloud.faults.plant(
        "ec2", "RunInstances", "refuse", code="UnauthorizedOperation", message=PASS_ROLE, **DRY
    )
    with pytest.raises(UsageError) as caught:
        plan_cloud.plan()
    assert caught.value.message.splitlines()[0] == (
        "builder.instance_profile: whoever bakes may not launch g6e.xlarge: iam:PassRole is not allowed on "
        "arn:aws:iam::123456789012:role/flux: no identity-based policy allows the iam:PassRole action"
    )
    assert "bake iam --profile g6e-ubuntu" in caught.value.message


def test_a_denial_that_aws_has_encoded_comes_with_the_command_that_reads_it(plan_cloud: PlanCloud) -> None:
    text = "You are not authorized to perform this operation. Encoded authorization failure message: AbC-1_x"
    plan_cloud.faults.plant(
        "ec2", "RunInstances", "refuse", code="UnauthorizedOperation", message=text, **DRY
    )
    with pytest.raises(UsageError, match="--encoded-message AbC-1_x") as caught:
        plan_cloud.plan()
    assert caught.value.message.startswith("builder.instance_type: whoever bakes may not launch g6e.xlarge")


def test_a_denial_of_the_group_that_stands_in_is_not_believed(plan_cloud: PlanCloud) -> None:
    fault = {"code": "UnauthorizedOperation", "message": OTHER_GROUP, **DRY}
    plan_cloud.faults.plant("ec2", "RunInstances", "refuse", **fault)  # type: ignore[arg-type]
    plan = plan_cloud.plan(builder=TEMPORARY)
    assert any("whether whoever bakes may launch g6e.xlarge" in text for text in plan.unchecked)
    with pytest.raises(UsageError, match=r"may not launch g6e\.xlarge: ec2:RunInstances is not"):
        plan_cloud.plan()


@pytest.mark.parametrize(
    ("code", "message", "setting"),
    [
        ("InvalidParameterCombination", "Iops is not supported for gp3 of this size", "root_volume.iops"),
        ("Unsupported", "The requested configuration is not supported.", "builder.instance_type"),
        ("InvalidParameterValue", "iamInstanceProfile.name is invalid", "builder.instance_profile"),
        ("InvalidSubnet.Conflict", "no", "builder.subnet"),
        ("InvalidKMSKey.InvalidState", "no", "root_volume.kms_key"),
        ("InvalidAMIID.Unavailable", "no", "base.ami"),
    ],
)
def test_what_ec2_would_refuse_is_told_at_its_setting(
    plan_cloud: PlanCloud, code: str, message: str, setting: str
) -> None:
    plan_cloud.faults.plant("ec2", "RunInstances", "refuse", code=code, message=message, **DRY)
    with pytest.raises(UsageError) as caught:
        plan_cloud.plan()
    first, *more = caught.value.message.splitlines()
    assert first == f"{setting}: EC2 would refuse a launch of g6e.xlarge: {code}: {message}"
    assert "https://docs.aws.amazon.com/" in more[0]


def test_a_full_quota_may_pass_and_is_warned_of(plan_cloud: PlanCloud) -> None:
    plan_cloud.faults.plant("ec2", "RunInstances", "refuse", code="VcpuLimitExceeded", message="8", **DRY)
    assert (
        "builder.instance_type: g6e.xlarge would not start now: VcpuLimitExceeded: 8"
        in plan_cloud.plan().warnings
    )


def test_a_launch_that_is_not_answered_fails_no_plan(
    plan_cloud: PlanCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bake.aws.PLANNING", 0.5)
    plan_cloud.faults.plant("ec2", "RunInstances", "error", **DRY)
    plan = plan_cloud.plan()
    assert any(text.startswith("a launch of g6e.xlarge (AWS answers ") for text in plan.unchecked)


# --- the way out -------------------------------------------------------------------------------


@pytest.fixture
def vpc(plan_cloud: PlanCloud) -> Iterator[SimpleNamespace]:
    """A VPC with a subnet and no route out of it."""
    ec2 = plan_cloud.aws().ec2
    made = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    own: Any = [{"Name": "vpc-id", "Values": [made]}]
    table = ec2.describe_route_tables(Filters=own)["RouteTables"][0]["RouteTableId"]
    subnet = ec2.create_subnet(VpcId=made, CidrBlock="10.9.1.0/24", AvailabilityZone="eu-north-1b")
    found = SimpleNamespace(ec2=ec2, id=made, table=table, subnet=subnet["Subnet"]["SubnetId"])
    yield found


def planned(cloud: PlanCloud, vpc: SimpleNamespace) -> Any:
    return cloud.plan(builder={**TEMPORARY, "subnet": vpc.subnet})


def test_a_subnet_without_a_route_is_refused_with_the_choices(
    plan_cloud: PlanCloud, vpc: SimpleNamespace
) -> None:
    with pytest.raises(UsageError) as caught:
        planned(plan_cloud, vpc)
    first, needs, *choices = caught.value.message.splitlines()
    assert first == f"builder.subnet: {vpc.subnet} has no route to the internet"
    assert "pypi.org" in needs
    assert "huggingface.co" in needs
    text = "\n".join(choices)
    for choice in ("internet gateway", "NAT gateway", "weights.mirror", "https://docs.aws.amazon.com/vpc/"):
        assert choice in text


def test_an_internet_gateway_takes_public_addresses_alone(
    plan_cloud: PlanCloud, vpc: SimpleNamespace
) -> None:
    gateway = vpc.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    vpc.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc.id)
    vpc.ec2.create_route(RouteTableId=vpc.table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    with pytest.raises(
        UsageError, match=f"leads to the internet by {gateway}, which takes packets of public"
    ):
        planned(plan_cloud, vpc)
    vpc.ec2.modify_subnet_attribute(SubnetId=vpc.subnet, MapPublicIpOnLaunch={"Value": True})
    told = {one.question: one.answer for one in planned(plan_cloud, vpc).preflight}
    answer = f"0.0.0.0/0 to {gateway}, with a public address; no endpoints"
    assert told["the way out of the subnet"] == answer


def test_a_nat_gateway_needs_no_public_address(plan_cloud: PlanCloud, vpc: SimpleNamespace) -> None:
    address = vpc.ec2.allocate_address(Domain="vpc")["AllocationId"]
    nat = vpc.ec2.create_nat_gateway(SubnetId=vpc.subnet, AllocationId=address)["NatGateway"]["NatGatewayId"]
    own = vpc.ec2.create_route_table(VpcId=vpc.id)["RouteTable"]["RouteTableId"]
    vpc.ec2.associate_route_table(RouteTableId=own, SubnetId=vpc.subnet)
    vpc.ec2.create_route(RouteTableId=own, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=nat)
    region = plan_cloud.aws().region
    vpc.ec2.create_vpc_endpoint(
        VpcId=vpc.id, ServiceName=f"com.amazonaws.{region}.s3", RouteTableIds=[own], VpcEndpointType="Gateway"
    )
    vpc.ec2.create_vpc_endpoint(
        VpcId=vpc.id,
        ServiceName=f"com.amazonaws.{region}.dynamodb",
        RouteTableIds=[vpc.table],  # another table's
        VpcEndpointType="Gateway",
    )
    found = ask_routes(vpc.subnet, vpc.id, plan_cloud.aws())
    assert isinstance(found, Routes)
    assert found.ipv4 == Route(nat)
    assert found.endpoints == ("s3",)
    assert f"0.0.0.0/0 to {nat}; endpoints of s3" in [
        one.answer for one in planned(plan_cloud, vpc).preflight
    ]


@pytest.mark.parametrize("call", ["DescribeRouteTables", "DescribeVpcEndpoints"])
def test_who_may_not_ask_for_routes_may_plan(plan_cloud: PlanCloud, call: str) -> None:
    plan_cloud.faults.plant("ec2", call, "refuse", code="UnauthorizedOperation", times=None)
    plan = plan_cloud.plan()
    subnet = plan_cloud.variables["BAKE_SUBNET_ID"]
    noted = f"the routes of {subnet} (AWS answers UnauthorizedOperation)" in plan.unchecked
    assert noted == (call == "DescribeRouteTables")


# --- port 22 -----------------------------------------------------------------------------------

TEN, SIX = {"IpRanges": [{"CidrIp": "10.0.0.0/8"}]}, {"Ipv6Ranges": [{"CidrIpv6": "2001:db8::/64"}]}


@pytest.mark.parametrize(
    ("rules", "admits"),
    [
        ([], False),
        ([{"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, **TEN}], False),
        ([{"IpProtocol": "udp", "FromPort": 0, "ToPort": 65535, **TEN}], False),
        ([{"IpProtocol": "tcp", "FromPort": 20, "ToPort": 30, **TEN}], True),
        ([{"IpProtocol": "-1", **TEN}], True),
        ([{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, **SIX}], True),
    ],
)
def test_a_group_that_admits_ssh_from_somewhere(plan_cloud: PlanCloud, rules: Any, admits: bool) -> None:
    ec2 = plan_cloud.aws().ec2
    [subnet] = ec2.describe_subnets(SubnetIds=[plan_cloud.variables["BAKE_SUBNET_ID"]])["Subnets"]
    name = f"ssh-{datetime.now(UTC).timestamp()}"
    group = ec2.create_security_group(GroupName=name, Description="rules", VpcId=subnet["VpcId"])["GroupId"]
    if rules:
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rules)
    found = ask_group(plan_cloud.profile(builder={"security_group": group}), plan_cloud.aws())
    assert found is not None
    assert found.ssh is admits
    warnings = plan_cloud.plan(builder={"security_group": group}).warnings
    assert (
        any(text.startswith(f"builder.security_group: {group} lets nobody in") for text in warnings) != admits
    )
    ec2.delete_security_group(GroupId=group)


# --- rights ------------------------------------------------------------------------------------

ROLE = "arn:aws:iam::123456789012:role/flux"


class Iam:
    """An IAM that simulates: what is denied, and which keys it misses."""

    def __init__(self, *denied: str, missing: tuple[str, ...] = ()) -> None:
        self.denied, self.missing = denied, missing
        self.asked: list[dict[str, Any]] = []

    def get_role(self, RoleName: str) -> Any:
        return {"Role": {"Arn": f"arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/{RoleName}"}}

    def get_paginator(self, name: str) -> Any:
        assert name == "simulate_principal_policy"
        return SimpleNamespace(paginate=self._simulate)

    def _simulate(self, **asked: Any) -> Iterator[Any]:
        self.asked.append(asked)
        yield {
            "EvaluationResults": [
                {
                    "EvalActionName": action,
                    "EvalDecision": "implicitDeny" if action in (*self.denied, *self.missing) else "allowed",
                    "MissingContextValues": ["aws:SourceVpc"] if action in self.missing else [],
                }
                for action in asked["ActionNames"]
            ]
        }


def account(
    iam_: Any, caller: str = "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Bake_1/me"
) -> Aws:
    aws = Aws(region="eu-north-1", worker_region="eu-west-1", endpoint="http://127.0.0.1:9")
    aws.__dict__["iam"] = iam_
    aws.__dict__["sts"] = SimpleNamespace(get_caller_identity=lambda: {"Arn": caller})
    return aws


def test_rights_are_asked_for_the_role_behind_a_session_and_for_the_workers(plan_cloud: PlanCloud) -> None:
    simulation = Iam("ec2:CreateImage", "sqs:ReceiveMessage", missing=("ec2:StopInstances",))
    found = ask_rights(plan_cloud.profile(), account(simulation), lambda: ROLE)
    assert isinstance(found.caller, Rights)
    assert isinstance(found.worker, Rights)
    assert found.caller.principal.endswith("role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_Bake_1")
    assert {one.partition(" on ")[0] for one in found.caller.denied} == {
        "ec2:CreateImage",
        "sqs:ReceiveMessage",
    }
    assert [one.partition(" on ")[0] for one in found.worker.denied] == ["sqs:ReceiveMessage"]
    assert found.worker.principal == ROLE


def test_what_is_asked_is_what_bake_iam_allows(plan_cloud: PlanCloud) -> None:
    """Each question, put to the policies themselves, is allowed: its resource and context are theirs."""
    from bake.localcloud.api.access.evaluation import evaluate
    from bake.localcloud.api.access.needs import Need

    subject = Subject.of(plan_cloud.profile(), "123456789012", role=ROLE)
    for audience in ("caller", "worker"):
        statements = iam.statements(audience, subject)  # type: ignore[arg-type]
        questions = list(questions_of(statements))
        assert questions
        assert [
            (action, one)
            for one in questions
            for action in one.actions
            if not evaluate([iam.document(statements)], Need(action, one.resource, dict(one.context))).allowed
        ] == []


@pytest.mark.parametrize(
    "caller", ["arn:aws:iam::123456789012:root", "arn:aws:sts::123456789012:federated-user/me"]
)
def test_who_can_not_be_simulated_is_not_checked(plan_cloud: PlanCloud, caller: str) -> None:
    found = ask_rights(plan_cloud.profile(), account(Iam(), caller), lambda: None)
    assert isinstance(found.caller, Unanswered)
    assert caller in found.caller.why
    assert found.worker is None


def test_a_denial_by_simulation_is_a_warning_that_names_the_actions(
    plan_cloud: PlanCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    rights = ask_rights(
        plan_cloud.profile(), account(Iam("ec2:CreateImage", "events:PutEvents")), lambda: ROLE
    )
    monkeypatch.setattr("bake.account.preflight.ask_rights", lambda *_: rights)
    warnings = plan_cloud.plan().warnings
    assert any("may not ec2:CreateImage on " in text and "--for caller" in text for text in warnings)
    of_worker = [
        text for text in warnings if text.startswith("builder.instance_profile: by IAM's simulation")
    ]
    assert len(of_worker) == 1
    assert "events:PutEvents" in of_worker[0]


def test_who_may_not_simulate_may_plan(plan_cloud: PlanCloud) -> None:
    plan_cloud.faults.plant("iam", "SimulatePrincipalPolicy", "refuse", code="AccessDenied", times=None)
    plan = plan_cloud.plan()
    assert "the rights of the worker, by IAM's simulation (AWS answers AccessDenied)" in plan.unchecked


# --- credentials -------------------------------------------------------------------------------

END = datetime(2026, 6, 1, 1, tzinfo=UTC)
OIDC = "OIDC, a role taken with a web identity's token"


def renewing(method: str) -> Any:
    return RefreshableCredentials("AKIA", "secret", "token", END, lambda: None, method)


@pytest.mark.parametrize(
    ("found", "kind", "source"),
    [
        (Fixed("AKIA", "secret", None, "shared-credentials-file"), "static", "~/.aws/credentials"),
        (Fixed("AKIA", "secret", "token", "shared-credentials-file"), "unknown", "~/.aws/credentials"),
        (Fixed("AKIA", "secret", "token", "env"), "unknown", "the environment"),
        (renewing("env"), "fixed", "the environment"),
        (renewing("sso"), "renewed", "SSO"),
        (renewing("assume-role"), "renewed", "a role that the profile takes"),
        (renewing("assume-role-with-web-identity"), "renewed", OIDC),
        (renewing("iam-role"), "renewed", "the role of this instance"),
    ],
)
def test_what_botocore_knows_of_the_credentials(found: Any, kind: str, source: str) -> None:
    told = read(found)
    assert (told.kind, told.source) == (kind, source)
    assert told.expires == (END if kind in ("fixed", "renewed") else None)


def test_the_environments_own_expiry_is_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As tools export it: botocore would call it renewable, and reads the same text again."""
    end = datetime.now(UTC) + timedelta(hours=1)
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-that-nobody-uses")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token")
    aws = Aws(region="eu-north-1", worker_region="eu-west-1")
    assert read(aws.credentials).kind == "unknown"
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", end.isoformat())
    told = read(Aws(region="eu-north-1", worker_region="eu-west-1").credentials)
    assert (told.kind, told.expires) == ("fixed", end)


def test_a_rehearsals_keys_are_nobodys(plan_cloud: PlanCloud) -> None:
    assert plan_cloud.aws().credentials is None
    assert "credentials" not in [one.question for one in plan_cloud.plan().preflight]
