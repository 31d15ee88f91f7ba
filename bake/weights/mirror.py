"""The weights' mirror in S3: it keeps large files by their sha256 for the next bake.

The builder has no right to the bucket: it gets presigned URLs, which are secrets and travel by stdin. What
the mirror serves is verified like what the Hub serves, so a wrong object costs time and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from bake.aws import Aws, ClientError
from bake.retries import error_code
from bake.weights.flux import WeightFile

# A PUT takes at most 5 GB and the largest file has 10, so upload in parts.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
PART_BYTES = 256 << 20
LASTING = 12 * 3600  # seconds that a URL is valid, or less if the credentials expire earlier
FORGOTTEN = timedelta(days=2)
NO_UPLOAD = "NoSuchUpload"  # completed or aborted already: an answer was lost


@dataclass(frozen=True)
class Place:
    """`s3://bucket/prefix`, as the profile has it."""

    bucket: str
    prefix: str

    @classmethod
    def of(cls, uri: str) -> Place:
        """Split a URI that the schema has checked."""
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        return cls(bucket, prefix)

    def key(self, sha256: str) -> str:
        return f"{self.prefix}/{sha256}" if self.prefix else sha256

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass
class Mirror:
    """One bake's use of a mirror. `uploads` are the open ones: sha256 -> upload id.

    `read_only` is what AWS answered to the first upload, where it may not be written to.
    """

    place: Place
    aws: Aws
    region: str
    uploads: dict[str, str] = field(default_factory=dict)
    read_only: str = ""

    @classmethod
    def open(cls, uri: str, aws: Aws) -> Mirror:
        """Find the bucket; raises AWS's error if it is not a bucket of this account."""
        place = Place.of(uri)
        region = aws.s3.head_bucket(Bucket=place.bucket).get("BucketRegion") or aws.region
        return cls(place, aws, region)

    def document(self, files: Iterable[WeightFile]) -> dict[str, Any]:
        """For the builder: URLs to get the files that the mirror has, and to put those that it lacks."""
        signer = self.aws.presigner(self.region)
        hashed = {file.sha256: file for file in files if file.sha256}
        there = {sha256 for sha256, file in hashed.items() if self._has(signer, sha256, file.bytes)}
        lacking = {sha256: file for sha256, file in sorted(hashed.items()) if sha256 not in there}
        if lacking:
            self._abort_forgotten(signer, {self.place.key(sha256) for sha256 in lacking})
        return {
            "name": str(self.place),
            "get": {sha256: self._get(signer, sha256) for sha256 in sorted(there)},
            "put": self._puts(signer, lacking),
        }

    def lend(self, sha256: str) -> str | None:
        """A URL to get one object of any size; None if there is none."""
        client = self.aws.presigner(self.region)
        return self._get(client, sha256) if self._has(client, sha256) else None

    def add(self, sha256: str, content: bytes) -> None:
        """Store an object from the controller."""
        client = self.aws.presigner(self.region)
        client.put_object(Bucket=self.place.bucket, Key=self.place.key(sha256), Body=content)

    def _has(self, client: Any, sha256: str, size: int | None = None) -> bool:
        try:
            found = client.head_object(Bucket=self.place.bucket, Key=self.place.key(sha256))
        except ClientError as error:
            # Without s3:ListBucket S3 answers 403 for what is not there.
            if error_code(error) in ("404", "NoSuchKey", "403"):
                return False
            raise
        return size is None or bool(found["ContentLength"] == size)

    def _get(self, client: Any, sha256: str) -> str:
        where = {"Bucket": self.place.bucket, "Key": self.place.key(sha256)}
        return str(client.generate_presigned_url("get_object", Params=where, ExpiresIn=LASTING))

    def _puts(self, client: Any, lacking: Mapping[str, WeightFile]) -> dict[str, Any]:
        try:
            return {sha256: self._put(client, sha256, file.bytes) for sha256, file in lacking.items()}
        except ClientError as error:
            self.read_only = error_code(error)
            self.abort()
            return {}

    def _put(self, client: Any, sha256: str, size: int) -> dict[str, Any]:
        where = {"Bucket": self.place.bucket, "Key": self.place.key(sha256)}
        upload = client.create_multipart_upload(**where)["UploadId"]
        self.uploads[sha256] = upload
        parts = [
            client.generate_presigned_url(
                "upload_part",
                Params={**where, "UploadId": upload, "PartNumber": number},
                ExpiresIn=LASTING,
            )
            for number in range(1, max(1, -(-size // PART_BYTES)) + 1)
        ]
        return {"part_bytes": PART_BYTES, "parts": parts}

    def complete(self, sha256: str, etags: Sequence[str]) -> None:
        """Complete an upload from the parts that the builder sent."""
        parts: Any = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        client, key = self.aws.presigner(self.region), self.place.key(sha256)
        try:
            client.complete_multipart_upload(
                Bucket=self.place.bucket,
                Key=key,
                UploadId=self.uploads[sha256],
                MultipartUpload={"Parts": parts},
            )
        except ClientError as error:
            if error_code(error) != NO_UPLOAD:
                raise
            client.head_object(Bucket=self.place.bucket, Key=key)  # the first answer was lost
        del self.uploads[sha256]

    def abort(self) -> None:
        """Abort the open uploads: S3 would keep their parts, invisible and at a price."""
        client = self.aws.presigner(self.region)
        for sha256, upload in list(self.uploads.items()):
            key = self.place.key(sha256)
            try:
                client.abort_multipart_upload(Bucket=self.place.bucket, Key=key, UploadId=upload)
            except ClientError as error:
                if error_code(error) != NO_UPLOAD:
                    raise
            del self.uploads[sha256]

    def _abort_forgotten(self, client: Any, keys: set[str]) -> None:
        """Abort the uploads that a killed bake left, as far as permissions allow."""
        with suppress(ClientError):
            found = client.list_multipart_uploads(Bucket=self.place.bucket, Prefix=self.place.key(""))
            for upload in forgotten(found.get("Uploads", []), keys, datetime.now(UTC)):
                client.abort_multipart_upload(
                    Bucket=self.place.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                )


def forgotten(uploads: Iterable[Mapping[str, Any]], keys: set[str], now: datetime) -> list[Mapping[str, Any]]:
    """The uploads of these keys that are too old to belong to a running bake."""
    return [one for one in uploads if one["Key"] in keys and now - one["Initiated"] > FORGOTTEN]
