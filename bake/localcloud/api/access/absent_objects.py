"""Answer for objects that are not there as S3 does: 404 only to callers who may list the bucket.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from werkzeug.test import run_wsgi_app

from bake.localcloud.api.access.keys import Principal
from bake.localcloud.api.access.needs import Need
from bake.localcloud.api.access.operation_request import OperationRequest
from bake.localcloud.api.access.policies import Authoriser


def may_be_absent(requested: OperationRequest) -> bool:
    """Whether a call reads an object, which may not be there; a copy reads its source."""
    return requested.service == "s3" and bool(_read(requested))


def _read(requested: OperationRequest) -> str:
    """The bucket of the object that a call reads; "" if it reads none."""
    read = [one for one in requested.needs if one.action.startswith("s3:GetObject")]
    return _bucket(read[0]) if read else ""


def _bucket(need: Need) -> str:
    return need.resource.removeprefix("arn:aws:s3:::").partition("/")[0]


def answer(
    app: Any,
    environ: dict[str, Any],
    start_response: Any,
    requested: OperationRequest,
    principal: Principal,
    authoriser: Authoriser,
) -> Iterable[bytes]:
    """Pass a call on; Refused where the object is absent and the caller may not know."""
    content, status, headers = run_wsgi_app(app, environ)
    bucket, buckets = _read(requested), {_bucket(need) for need in requested.needs}
    if status.startswith("404") and all(map(authoriser.inventory.has_bucket, buckets)):
        authoriser.authorise(principal, [Need("s3:ListBucket", f"arn:aws:s3:::{bucket}")], requested.region)
    start_response(status, headers.to_wsgi_list())
    return content
