"""What botocore knows of the credentials' end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from botocore.credentials import Credentials as Fixed
from botocore.credentials import RefreshableCredentials

from bake.account.credentials import read
from bake.aws import Aws

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud


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
