"""A client for EC2's instance metadata service, version 2 (with session tokens)."""

from __future__ import annotations

import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from urllib.parse import urlsplit

_TOKEN_SECONDS = 21_600  # six hours, as long as there is
_IPV4 = "http://169.254.169.254"
_IPV6 = "http://[fd00:ec2::254]"


class MetadataUnavailable(Exception):
    """The metadata service does not answer, or answers with an error."""


class Imds:
    """Reads instance metadata, without a proxy. Thread-safe."""

    def __init__(self, environment: Mapping[str, str] = os.environ, *, patience: float = 2.0) -> None:
        ipv6 = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "").lower() == "ipv6"
        usual = _IPV6 if ipv6 else _IPV4
        self.endpoint = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", usual).rstrip("/")
        # Permanent, unlike a service that is not there yet.
        self.disabled = environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
        self.disabled |= urlsplit(self.endpoint).scheme not in ("http", "https")
        self._patience = patience
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = 0.0

    def get(self, path: str) -> str | None:
        """The content of `/latest/meta-data/<path>`; None if it is missing. Raises MetadataUnavailable."""
        for renewed in (False, True):
            headers = {"X-aws-ec2-metadata-token": self._fresh_token(renew=renewed)}
            status, text = self._ask("GET", f"/latest/meta-data/{path}", headers)
            if status != 401:
                break  # otherwise the token is invalid, as after the instance was moved
        if status == 404:
            return None
        if status != 200:
            raise MetadataUnavailable(f"{self.endpoint} answers {status} to {path}")
        return text.strip()

    def _fresh_token(self, *, renew: bool) -> str:
        with self._lock:
            if renew or time.monotonic() > self._renew_at:
                headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
                status, text = self._ask("PUT", "/latest/api/token", headers)
                if status != 200:
                    raise MetadataUnavailable(f"{self.endpoint} answers {status} to a request for a token")
                self._token, self._renew_at = text, time.monotonic() + _TOKEN_SECONDS / 2
            return self._token

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        if self.disabled:
            raise MetadataUnavailable(
                "AWS_EC2_METADATA_DISABLED or AWS_EC2_METADATA_SERVICE_ENDPOINT forbids it"
            )
        request = urllib.request.Request(self.endpoint + path, method=method, headers=headers)  # noqa: S310
        try:
            with self._opener.open(request, timeout=self._patience) as answer:
                return answer.status, answer.read(65_536).decode()
        except urllib.error.HTTPError as error:
            error.close()
            return error.code, ""
        except (OSError, HTTPException, UnicodeDecodeError) as error:
            raise MetadataUnavailable(f"{self.endpoint} does not answer: {error}") from error
