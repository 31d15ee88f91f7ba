"""Settings, from the environment only (R-CONFIG); all problems are reported at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ConfigurationError

MODEL = "black-forest-labs/FLUX.1-dev"


def _only_model(repo: str) -> str:
    if repo != MODEL:
        raise ValueError(f"this worker draws with {MODEL} and no other model")
    return repo


def _commit(revision: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ValueError("must be a commit: 40 hexadecimal digits, so that the model can never change unseen")
    return revision


def _folder(path: Path | None) -> Path | None:
    if path and not path.is_dir():
        raise ValueError("is not a folder")
    return path


def _queue_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or not parts.path.strip("/"):
        raise ValueError("must be a queue's URL, like https://sqs.eu-west-1.amazonaws.com/123456789012/jobs")
    return url


def _matching(pattern: str, what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be {what}")
        return value

    return AfterValidator(check)


class ModelSettings(BaseModel):
    """Where the model is. Enough for `flux-worker draw`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: Annotated[str, AfterValidator(_only_model), Field(alias="FLUX_MODEL_REPO")] = MODEL
    revision: Annotated[str, AfterValidator(_commit), Field(alias="FLUX_MODEL_REVISION")]
    cache: Annotated[Path | None, AfterValidator(_folder), Field(alias="HF_HUB_CACHE")] = None
    """None: huggingface_hub's own default, `~/.cache/huggingface/hub`."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables. Raises ConfigurationError naming every one that is missing or wrong."""
        names = [str(field.alias) for field in cls.model_fields.values()]
        values = {name: environment[name].strip() for name in names if environment.get(name, "").strip()}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigurationError(_report(error)) from error


class ServeSettings(ModelSettings):
    """Everything `flux-worker serve` needs."""

    queue_url: Annotated[str, AfterValidator(_queue_url), Field(alias="FLUX_QUEUE_URL")]
    bucket: Annotated[
        str,
        _matching(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "an S3 bucket's name"),
        Field(alias="FLUX_BUCKET"),
    ]
    event_bus: Annotated[
        str,
        _matching(
            r"[/.\-_A-Za-z0-9]{1,256}|arn:aws[\w-]*:events:[\w-]+:\d{12}:event-bus/.+", "a bus's name or ARN"
        ),
        Field(alias="FLUX_EVENT_BUS"),
    ]
    region: Annotated[
        str,
        _matching(r"[a-z]{2,4}(-[a-z]+)+-\d+", "a region, like eu-west-1"),
        Field(alias="AWS_REGION"),
    ]
    prefix: Annotated[
        str,
        _matching(r"[A-Za-z0-9!_.*'()-][A-Za-z0-9!_.*'()/-]{0,255}", "a prefix of S3 keys, like images/"),
        Field(alias="FLUX_S3_PREFIX"),
    ] = "images/"
    visibility_seconds: Annotated[int, Field(ge=3, le=43_200, alias="FLUX_VISIBILITY_SECONDS")] = 120
    """How long a message stays hidden after a worker's last sign of life."""

    @model_validator(mode="after")
    def _queue_in_region(self) -> Self:
        host = re.fullmatch(
            r"sqs\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?", urlsplit(self.queue_url).hostname or ""
        )
        if host and host[1] != self.region:
            raise ValueError(f"FLUX_QUEUE_URL is in {host[1]}, but AWS_REGION is {self.region}")
        return self


def _report(error: ValidationError) -> str:
    lines = [
        _line(str(e["loc"][0]) if e["loc"] else "", e["type"], e["msg"], e["input"]) for e in error.errors()
    ]
    return "\n".join(["The environment is not right:", *(f"  {line}" for line in lines)])


def _line(name: str, kind: str, message: str, value: object) -> str:
    message = message.removeprefix("Value error, ")
    if not name:
        return message
    return f"{name} is not set" if kind == "missing" else f"{name}={value}: {message}"
