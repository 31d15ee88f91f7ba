"""The environment variables with which AWS's own tools use the local cloud."""

from __future__ import annotations

import shlex

from bake.localcloud.lifecycle.local_cloud import LocalCloud

# Each would override a variable that is set here, or send calls elsewhere.
# https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html
UNSET = (
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_ENDPOINT_URL_EC2",
    "AWS_ENDPOINT_URL_EVENTBRIDGE",
    "AWS_ENDPOINT_URL_IAM",
    "AWS_ENDPOINT_URL_KMS",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_SECRETS_MANAGER",
    "AWS_ENDPOINT_URL_SERVICE_QUOTAS",
    "AWS_ENDPOINT_URL_SQS",
    "AWS_ENDPOINT_URL_SSM",
    "AWS_ENDPOINT_URL_STS",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
)


def variables(cloud: LocalCloud) -> dict[str, str]:
    """The variables to set; the region is that of the machines."""
    region = cloud.environment["SPOT_AWS_REGION"]
    return {
        "AWS_ACCESS_KEY_ID": cloud.keys.id,
        "AWS_SECRET_ACCESS_KEY": cloud.keys.secret,
        "AWS_ENDPOINT_URL": cloud.endpoint,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def shell_lines(found: dict[str, str]) -> str:
    """Lines for a POSIX shell's `eval`."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in found.items()]
    return "\n".join([f"unset {' '.join(UNSET)}", *exports])
