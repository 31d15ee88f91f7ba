"""An environment for the example profiles: well-formed values, all made up."""

from __future__ import annotations

VARIABLES = {
    "AWS_REGION": "eu-west-1",
    "SPOT_AWS_REGION": "eu-north-1",
    "BASE_AMI_ID": "ami-0123456789abcdef0",
    "BAKE_SUBNET_ID": "subnet-0123456789abcdef0",
    "BAKE_SECURITY_GROUP_ID": "sg-0123456789abcdef0",
    "BAKE_INSTANCE_PROFILE": "flux-worker",
    "HF_TOKEN": "hf_neverShownAnywhere",
}
