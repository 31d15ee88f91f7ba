"""Settings from the environment only (R-CONFIG), with all problems reported at once."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from . import redaction
from .errors import ConfigurationError, WorkerError
from .model_facts import FACTS
from .secretsmanager import SecretUnreadable, resolve_references

MODEL = FACTS.repo
DEFAULT_METRICS_PORT = 9471
MOST_WORKERS = 99  # far more than any instance type has GPUs
BackendChoice = Literal["auto", "cuda", "cpu", "neuron"]
_REGION = r"[a-z]{2,4}(-[a-z]+)+-\d+"
_BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_S3_PLACE = rf"s3://{_BUCKET}(/(?!\.\.?(/|$))[A-Za-z0-9._-]+)*"


def region_of(host: str) -> str | None:
    """The region in the name of an SQS host; None if it has none.

    Each partition has its own domain: amazonaws.com, amazonaws.com.cn, amazonaws.eu, … The service precedes
    or follows the region, also for FIPS, dual-stack and VPC endpoints; older endpoint names have `queue`, and
    that of us-east-1 has no region.
    """
    labels = host.lower().split(".")
    if labels[0] == "queue" and "amazonaws" in labels:
        return "us-east-1"
    pairs = itertools.pairwise(labels)
    found = (
        after if before in ("sqs", "sqs-fips") else before
        for before, after in pairs
        if before in ("sqs", "sqs-fips") or after == "queue"
    )
    return next((label for label in found if re.fullmatch(_REGION, label)), None)


def _only_model(repo: str) -> str:
    if repo != MODEL:
        raise ValueError(f"this worker supports only {MODEL}")
    return repo


def _commit(revision: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ValueError(
            "must be a commit (40 hexadecimal digits), so that the model cannot change unnoticed"
        )
    return revision


def _folder(path: Path | None) -> Path | None:
    if path and not path.is_dir():
        raise ValueError("is not a folder")
    return path


def _queue_url(url: str) -> str:
    if re.search(r"[\x00-\x20\x7f]", url):  # urlsplit drops line breaks, the request would not
        raise ValueError("must be a queue's URL, without blanks, line breaks and control characters")
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("must be a queue's URL, without user name and password")
    if parts.scheme not in ("http", "https") or not parts.netloc or not parts.path.strip("/"):
        raise ValueError("must be a queue's URL, like https://sqs.eu-west-1.amazonaws.com/123456789012/jobs")
    return url


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


def _matching(pattern: str, what: str) -> AfterValidator:
    def check(value: str | None) -> str | None:
        if value is not None and not re.fullmatch(pattern, value):
            raise ValueError(f"must be {what}")
        return value

    return AfterValidator(check)


class _Settings(BaseModel):
    """Read from environment variables, each of which may be `secretsmanager:NAME#KEY`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables. Raises ConfigurationError that names every missing or wrong one.

        Raises WorkerError if all is right but a secret cannot be read now: a retry may help.
        """
        names = [str(field.alias) for field in cls.model_fields.values()]
        given = {name: environment[name].strip() for name in names if environment.get(name, "").strip()}
        read, failed = resolve_references(given, environment.get("AWS_REGION"))
        for secret in read.values():
            redaction.add_secret(secret)
        try:
            settings = cls.model_validate(cls._defaults(environment) | given | read)
        except ValidationError as error:
            problems = _problems(error, given, failed)
        else:
            problems = [_problem_line(name, given[name], str(reason)) for name, reason in failed.items()]
        if not problems:
            return settings
        transient = not any(reason.permanent for reason in failed.values()) and len(problems) == len(failed)
        raise (WorkerError if transient else ConfigurationError)(
            "\n".join(["The environment is not right:", *(f"  {line}" for line in problems)])
        )

    @classmethod
    def _defaults(cls, _environment: Mapping[str, str]) -> dict[str, str]:
        """Defaults that follow from variables that are not settings."""
        return {}


class StreamSettings(_Settings):
    """Where weights are read from beside the disk, and from which region."""

    stream: Annotated[
        str | None, _matching(_S3_PLACE, "s3://bucket or s3://bucket/prefix"), Field(alias="FLUX_STREAM")
    ] = None
    """Where weights are read from beside the disk, as `bake` put them there; None: nowhere."""
    stream_ranges: Annotated[Path, AfterValidator(_absolute), Field(alias="FLUX_STREAM_RANGES")] = Path(
        "/usr/lib/flux-worker/ranges.json"
    )
    """The hashes by which what FLUX_STREAM gives is checked; where the bake leaves them."""
    instance_region: Annotated[
        str | None, _matching(_REGION, "a region, like eu-north-1"), Field(alias="SPOT_AWS_REGION")
    ] = None
    """The region of this instance and its Auto Scaling group; None: as the instance metadata says."""


class ModelSettings(StreamSettings):
    """The model and its backend: all that `flux-worker draw` needs."""

    repo: Annotated[str, AfterValidator(_only_model), Field(alias="FLUX_MODEL_REPO")] = MODEL
    revision: Annotated[str, AfterValidator(_commit), Field(alias="FLUX_MODEL_REVISION")]
    cache: Annotated[Path | None, AfterValidator(_folder), Field(alias="HF_HUB_CACHE")] = None
    """None: huggingface_hub's own default, `~/.cache/huggingface/hub`."""
    model_dir: Annotated[Path | None, AfterValidator(_folder), Field(alias="FLUX_MODEL_DIR")] = None
    """The folder of an int8 checkpoint, read instead of the Hub's cache."""
    compile: Annotated[Literal["off", "regional"], Field(alias="FLUX_COMPILE")] = "off"
    compile_cache: Annotated[Path | None, AfterValidator(_absolute), Field(alias="FLUX_COMPILE_CACHE")] = None
    """The cache of compiled kernels; created if missing. None: kernels are not kept."""
    load: Annotated[Literal["stream", "mapped"], Field(alias="FLUX_LOAD")] = "stream"
    """How weights come to the device: read by the stream, or by page faults of mapped files."""
    backend: Annotated[BackendChoice, Field(alias="FLUX_BACKEND")] = "auto"
    """The backend; auto: a GPU, else Neuron if its packages are installed, never the CPU."""
    neuron_dir: Annotated[Path | None, AfterValidator(_absolute), Field(alias="FLUX_NEURON_DIR")] = None
    """Where `flux-worker compile` writes and the Neuron backend reads the compiled model."""
    device: Annotated[int | None, Field(ge=0, alias="FLUX_DEVICE")] = None
    """The index of the GPU to use; None: the first."""
    workers: Annotated[int, Field(ge=1, le=MOST_WORKERS, alias="FLUX_WORKERS")] = 1
    """How many workers this instance has, one a GPU: their devices are 0, 1, …"""

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.workers > 1 and self.number >= self.workers:
            raise ValueError(f"FLUX_DEVICE is {self.device}, but FLUX_WORKERS is {self.workers}")
        return self

    @property
    def number(self) -> int:
        """Which of the instance's workers this is, from 0; also 0 for one that is alone."""
        return (self.device or 0) if self.workers > 1 else 0


class QueueSettings(_Settings):
    """The queue, and the bucket for images: all that `flux-worker send` needs."""

    region: Annotated[str, _matching(_REGION, "a region, like eu-west-1"), Field(alias="AWS_REGION")]
    queue_url: Annotated[str, AfterValidator(_queue_url), Field(alias="FLUX_QUEUE_URL")]
    bucket: Annotated[
        str,
        _matching(_BUCKET, "an S3 bucket's name"),
        Field(alias="FLUX_BUCKET"),
    ]
    prefix: Annotated[
        str,
        _matching(r"[A-Za-z0-9!_.*'()-][A-Za-z0-9!_.*'()/-]{0,255}", "a prefix of S3 keys, like images/"),
        Field(alias="FLUX_S3_PREFIX"),
    ] = "images/"

    def _region_mismatches(self) -> list[str]:
        """Resources in another region than AWS_REGION, to which all calls go."""
        queue = region_of(urlsplit(self.queue_url).hostname or "")
        if not queue or queue == self.region:
            return []
        return [f"FLUX_QUEUE_URL is in {queue}, but AWS_REGION is {self.region}"]

    @model_validator(mode="after")
    def _in_region(self) -> Self:
        if wrong := self._region_mismatches():
            raise ValueError("\n  ".join(wrong))
        return self


class AwsSettings(QueueSettings, StreamSettings):
    """All AWS resources of a worker: all that `flux-worker check --aws` needs."""

    event_bus: Annotated[
        str,
        _matching(
            r"[/.\-_A-Za-z0-9]{1,256}|arn:aws[\w-]*:events:[\w-]+:\d{12}:event-bus/.+", "a bus's name or ARN"
        ),
        Field(alias="FLUX_EVENT_BUS"),
    ]

    cloudwatch_namespace: Annotated[
        str | None,
        _matching(r"(?!AWS/)[A-Za-z0-9._#/-][A-Za-z0-9._#:/-]{0,254}", "a CloudWatch namespace, like Flux"),
        Field(alias="FLUX_CLOUDWATCH_NAMESPACE"),
    ] = None
    """Where the metric `Ready` is published; None: nowhere."""

    def _region_mismatches(self) -> list[str]:
        wrong = super()._region_mismatches()
        if self.event_bus.startswith("arn:") and (bus := self.event_bus.split(":")[3]) != self.region:
            # EventBridge refuses calls for a bus in another region; only a rule can forward events there.
            wrong.append(f"FLUX_EVENT_BUS is in {bus}, but AWS_REGION is {self.region}")
        return wrong


class ServeSettings(ModelSettings, AwsSettings):
    """Everything `flux-worker serve` needs."""

    visibility_seconds: Annotated[int, Field(ge=3, le=43_200, alias="FLUX_VISIBILITY_SECONDS")] = 120
    """How long a message stays hidden after the worker last renewed it."""
    state_dir: Annotated[Path, AfterValidator(_absolute), Field(alias="FLUX_STATE_DIR")]
    """The outbox for images that AWS has not accepted yet; must survive a restart."""
    drain_seconds: Annotated[int, Field(ge=1, le=3_600, alias="FLUX_DRAIN_SECONDS")] = 90
    """The longest time from SIGTERM to the exit; the unit's TimeoutStopSec must be longer."""
    metrics_port: Annotated[int, Field(ge=0, le=65_535, alias="FLUX_METRICS_PORT")] = DEFAULT_METRICS_PORT
    """The port on loopback of the instance's first worker; 0: none."""

    @model_validator(mode="after")
    def _has_a_port(self) -> Self:
        if self.own_port > 65_535:
            raise ValueError(f"FLUX_METRICS_PORT leaves no port for FLUX_DEVICE {self.device}")
        return self

    @property
    def own_port(self) -> int:
        """This worker's metrics port: the first one's and its number; 0: none."""
        return self.metrics_port + self.number if self.metrics_port else 0

    @property
    def own_state_dir(self) -> Path:
        """This worker's folder: one of several has that of its number, below FLUX_STATE_DIR.

        systemd gives each its own already (`StateDirectory=flux-worker/N`).
        """
        name = str(self.number)
        alone = self.workers == 1 or self.state_dir.name == name
        return self.state_dir if alone else self.state_dir / name

    @classmethod
    def _defaults(cls, environment: Mapping[str, str]) -> dict[str, str]:
        # Set by systemd for StateDirectory=; the first of several.
        if given := environment.get("STATE_DIRECTORY", "").split(":")[0]:
            return {"FLUX_STATE_DIR": given}
        with contextlib.suppress(RuntimeError):  # a user without a home must set FLUX_STATE_DIR
            return {"FLUX_STATE_DIR": str(Path.home() / ".local/state/flux-worker")}
        return {}


def _problems(
    error: ValidationError, given: Mapping[str, str], failed: Mapping[str, SecretUnreadable]
) -> list[str]:
    """One line for each variable; a value from Secrets Manager is shown as its reference."""
    lines = {name: _problem_line(name, given[name], str(reason)) for name, reason in failed.items()}
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        message = redaction.redact(problem["msg"].removeprefix("Value error, "))
        if not name:
            lines[name] = message
        elif problem["type"] == "missing":
            lines[name] = f"{name} is not set"
        elif name not in failed:  # otherwise the reference itself was validated in place of the value
            lines[name] = _problem_line(name, given.get(name), message)
    return list(lines.values())


def _problem_line(name: str, given: str | None, message: str) -> str:
    if given is None:
        return f"{name}: {message}"
    shown = "".join(letter if letter.isprintable() else "�" for letter in redaction.redact(given))
    return f"{name}={shown}: {message}"
