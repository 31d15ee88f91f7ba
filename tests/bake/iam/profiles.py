"""The profiles whose bakes are recorded, with all that gives a policy statements of its own."""

from __future__ import annotations

from pathlib import Path

from bake import iam, profile
from bake.iam import Subject

ROOT = Path(__file__).parents[3]
# What a recorded need has in place of the local cloud's own values.
VARIABLES = {
    "AWS_REGION": "eu-west-1",
    "SPOT_AWS_REGION": "eu-north-1",
    "BASE_AMI_ID": "ami-0123456789abcdef0",
    "BAKE_SUBNET_ID": "subnet-0123456789abcdef0",
    "BAKE_SECURITY_GROUP_ID": "sg-0123456789abcdef0",
    "BAKE_INSTANCE_PROFILE": "flux-rehearsal",
    "BAKE_REAPER_ROLE": "arn:aws:iam::123456789012:role/bake-reaper",
    "BAKED_AMI_ID": "ami-0fedcba9876543210",
    "HF_TOKEN": "hf_0123456789",
}
ACCOUNT, ROLE = "123456789012", "arn:aws:iam::123456789012:role/flux-rehearsal"
TEMPLATE = "lt-0123456789abcdef0"
PARAMETER, STORE, QUEUE, BUS = "/bake/base", "needs-store", "needs-jobs", "needs"
STREAM = "needs-stream"
NAMESPACE = "Needs"
# The same in a rehearsal; those with names that bakes know are set aside there.
GIVEN = {
    "NEEDS_SSH_FROM": "10.214.0.0/16",
    "NEEDS_QUEUE_URL": f"https://sqs.eu-west-1.amazonaws.com/123456789012/{QUEUE}",
    "NEEDS_SHARE_WITH": "210987654321",
}
PLAIN, FULL, AGAIN, SPOT, REFUSED, ENCRYPTED = (
    *("g6e-ubuntu", "needs-full", "needs-again", "needs-spot", "needs-refused", "needs-encrypted"),
)
TEXTS = {
    # All that gives a policy statements of its own, but a key, and secrets: no rehearsal reads one.
    FULL: f"""
extends: g6e-ubuntu
base: {{ami: null, ssm: {PARAMETER}}}
builder:
  market: spot
  security_group: temporary
  ssh_from: ${{NEEDS_SSH_FROM}}
  reaper: scheduler
  reaper_role: ${{BAKE_REAPER_ROLE}}
  lease_hours: 0.1
weights: {{mirror: "s3://{STORE}/weights", stream: "s3://{STREAM}/flux"}}
worker:
  queue: ${{NEEDS_QUEUE_URL}}
  bucket: {STORE}
  bus: {BUS}
  cloudwatch_namespace: {NAMESPACE}
image: {{share_with: ["${{NEEDS_SHARE_WITH}}"], keep: 1}}
reports: s3://{STORE}/reports
notices: {BUS}
channels: {{stable: {{launch_template: "${{BAKE_LAUNCH_TEMPLATE:-{TEMPLATE}}}"}}}}
""",
    # From an image that was baked: what takes long is there already.
    AGAIN: "extends: g6e-ubuntu\nbase: {ami: '${BAKED_AMI_ID}'}\n",
    SPOT: f"extends: {AGAIN}\nbuilder: {{market: spot}}\n",
    REFUSED: f"extends: {AGAIN}\nchecks: [checks/test_refused.py]\n",
    # Not recorded: the needs are those that EC2's documentation tells.
    ENCRYPTED: "extends: g6e-ubuntu\nroot_volume: {kms_key: '${BAKE_KMS_KEY:-alias/bake}'}\n"
    "weights: {token: 'secretsmanager:flux/hub#token'}\n",
}
KEY = "arn:aws:kms:eu-north-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
CHECK = '''
from bake.checks.declare import check

@check("high", "It is refused.", "Nothing helps.", group="system",
       asks=lambda expect: {"answer": "echo no"})
def test_refused(answers, compare):
    """No image passes."""
    compare.equal(answers["answer"], "yes", answers["answer"].said)
'''


def write(folder: Path) -> Path:
    """Write the project's profiles and these into a new folder."""
    (folder / "checks").mkdir(parents=True)
    for file in (ROOT / "profiles").glob("*.yaml"):
        (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    for name, text in TEXTS.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    (folder / "checks/test_refused.py").write_text(CHECK, encoding="utf-8")
    return folder


def subject(name: str, folder: Path) -> Subject:
    """One of these profiles, in a folder that `write` made, in the account of the recorded needs."""
    secrets: set[str] = set()

    def read(secret: str, key: str) -> str:
        secrets.add(secret)
        return "hf_0123456789"

    found = profile.load(name, folder, {**VARIABLES, **GIVEN}, read)
    key = KEY if found.root_volume.kms_key else None
    return iam.Subject.of(found, ACCOUNT, role=ROLE, kms_key=key, secrets=tuple(sorted(secrets)))
