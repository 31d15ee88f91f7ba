"""The local cloud's EC2 and Auto Scaling in this process, so that a test can say how a refresh goes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.localcloud.ebs_account import EbsAccount, ebs_account

from .fleet import Fleet


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EbsAccount]:
    with ebs_account(tmp_path_factory.mktemp("rollout")) as found:
        yield found


@pytest.fixture
def fleet(account: EbsAccount) -> Fleet:
    return Fleet(account)
