"""Answers of moto that are made side by side."""

from __future__ import annotations

import pytest
from moto.core.responses import BaseResponse
from moto.ec2.responses import EC2Response

from bake.localcloud.api.access import backends


def test_what_one_answer_leaves_out_another_still_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BaseResponse, "__init__", BaseResponse.__init__)  # as it was, after the test
    backends.install()
    one, other = EC2Response(), EC2Response()
    seen = dict(other.RESPONSE_KEY_PATH_TO_TRANSFORMER)
    for _ in other.RESPONSE_KEY_PATH_TO_TRANSFORMER:  # as a thread that is writing its answer
        one._exclude_from_response("ImageSet.Image.Tags")
    assert "ImageSet.Image.Tags" in one.RESPONSE_KEY_PATH_TO_TRANSFORMER
    assert seen == other.RESPONSE_KEY_PATH_TO_TRANSFORMER == EC2Response().RESPONSE_KEY_PATH_TO_TRANSFORMER
