"""The fields of a job, and parsing one from a message."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from ..errors import InvalidJob
from . import envelope, json_schema
from .json_schema import MAX_INTEGER, MAX_METADATA_DEPTH
from .reader_schema import Untitled, as_text

MAX_PROMPT_TOKENS = 512
"""FLUX.1-dev's T5 reads no more; diffusers would truncate longer prompts, so they are refused."""
MAX_MESSAGE_BYTES = 256 * 1024
DEFAULT_QUALITY = 90

_ID = r"^[A-Za-z0-9._-]{1,128}$"
_MAX_PROMPT_CHARACTERS = 10_000  # far above what 512 tokens can hold, far below what would be slow to count
_MAX_METADATA_BYTES = 4 * 1024
_PROBLEMS_SHOWN = 8
REASON_CHARACTERS = 1_000
"""The longest reason of a refusal."""


def _whole(value: object) -> object:
    """1024.0 and 1e3 are integers in JSON Schema, and for many JSON writers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _written(prompt: str) -> str:
    if not prompt.strip():
        raise ValueError("must not be blank")
    if "\x00" in prompt:
        raise ValueError("must not contain NUL characters")
    return prompt


def _clean_prefix(prefix: str) -> str:
    """It ends in a slash so that no two jobs share a key: the last part begins with the id."""
    if prefix and not prefix.endswith("/"):
        raise ValueError("must end in /")
    if re.search(json_schema.NO_PREFIX, prefix):
        raise ValueError("must be relative and made of A-Z a-z 0-9 ! _ . * ' ( ) - and single slashes")
    return prefix


def _small(metadata: dict[str, Any]) -> dict[str, Any]:
    if _depth(metadata) > MAX_METADATA_DEPTH:
        raise ValueError(f"must be nested at most {MAX_METADATA_DEPTH} deep")
    # Infinity and NaN are not JSON: readers of the event would fail.
    size = len(json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())
    if size > _MAX_METADATA_BYTES:
        raise ValueError(f"is {size} bytes long as JSON, at most {_MAX_METADATA_BYTES} are taken")
    return metadata


def _depth(value: object, depth: int = 0) -> int:
    """How deep objects and lists are nested; stops as soon as it is too deep."""
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ValueError(f"holds a whole number beyond {MAX_INTEGER}, which not every reader keeps exactly")
    if not isinstance(value, dict | list) or depth > MAX_METADATA_DEPTH:
        return depth
    inside = value.values() if isinstance(value, dict) else value
    return max((_depth(item, depth + 1) for item in inside), default=depth + 1)


_WHOLE = BeforeValidator(_whole)  # listed last, so that it runs first
# diffusers silently floors sides to multiples of 16; such jobs are refused instead.
Side = Annotated[int, Field(ge=256, le=1440, multiple_of=16), _WHOLE]
Format = Literal["png", "jpg", "webp"]


class Job(BaseModel):
    """One to four images to draw of one prompt."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # errors are logged, and prompts must not be
        title="FluxJob",
        json_schema_serialization_defaults_required=True,  # the record names every field
    )

    id: Annotated[str, Field(pattern=_ID, json_schema_extra=json_schema.ID)]
    """Names the job and its objects in S3. The same id is drawn once."""
    prompt: Annotated[
        str,
        Field(min_length=1, max_length=_MAX_PROMPT_CHARACTERS, json_schema_extra=json_schema.PROMPT),
        AfterValidator(_written),
    ]
    """What to draw, in any language; at most `max_sequence_length` tokens."""
    width: Side = 1024
    """Pixels."""
    height: Side = 1024
    """Pixels."""
    steps: Annotated[int, Field(ge=1, le=50), _WHOLE] = 28
    guidance: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 3.5
    seed: Annotated[int, Field(ge=0, le=MAX_INTEGER), _WHOLE] | None = None
    """The same seed starts from the same noise; image i uses seed + i. Where absent, the id decides."""
    images: Annotated[int, Field(ge=1, le=4), _WHOLE] = 1
    format: Format = "png"
    quality: Annotated[int, Field(ge=1, le=100), _WHOLE] | None = None
    """For jpg and webp alone; 90 where it is absent."""
    max_sequence_length: Annotated[int, Field(ge=1, le=MAX_PROMPT_TOKENS), _WHOLE] = MAX_PROMPT_TOKENS
    """Tokens of the prompt that the model makes room for; a longer prompt is refused."""
    s3_prefix: Annotated[
        str, Field(max_length=256, json_schema_extra=json_schema.PREFIX), AfterValidator(_clean_prefix)
    ] = ""
    """Put between FLUX_S3_PREFIX and the images' names; ends in a slash."""
    metadata: Annotated[dict[str, JsonValue], AfterValidator(_small)] = Field(default={})
    """Anything, at most 4 KiB as JSON and 8 deep; comes back in the record and the event."""

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        if self.quality is not None and self.format == "png":
            raise ValueError("quality: png knows none; leave it out, or choose jpg or webp")
        if self.seed is not None and self.seed + self.images - 1 > MAX_INTEGER:
            raise ValueError(f"seed: the last image's seed would be beyond {MAX_INTEGER}")
        return self

    def seeded(self) -> Job:
        """This job with a seed: its own, or one derived from its id.

        So a job that runs again after a crash gives the same images.
        """
        if self.seed is not None:
            return self
        digest = hashlib.sha256(self.id.encode()).digest()
        return self.model_copy(update={"seed": int.from_bytes(digest[:4], "big")})

    def parameters(self) -> dict[str, Any]:
        """All that determines the images and their keys: all fields but id and metadata, with defaults."""
        quality = None if self.format == "png" else self.quality or DEFAULT_QUALITY
        return self.seeded().model_dump(exclude={"id", "metadata"}) | {"quality": quality}


def parse(body: str) -> Job:
    """Parse a message's body. Raises InvalidJob, with the job's id if it is readable."""
    try:
        size = len(body.encode())
    except UnicodeEncodeError as error:
        raise InvalidJob("the message is not valid UTF-8") from error
    if size > MAX_MESSAGE_BYTES:
        reason = f"the message is {size} bytes long, a job has at most {MAX_MESSAGE_BYTES}"
        raise InvalidJob(reason, job_id=id_in(body))
    inside = envelope.opened(body)
    try:
        job = Job.model_validate_json(inside)
    except ValidationError as error:
        raise InvalidJob(problems(error), job_id=_id_of(inside)) from error
    if name := _given_twice(inside):
        raise InvalidJob(_problem(name, "is given twice"), job_id=job.id)
    return job


def _given_twice(text: str) -> str | None:
    """A name that occurs twice in one object: JSON readers differ in which one they use."""
    repeated: list[str] = []

    def read(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                repeated.append(name)
            found[name] = value
        return found

    json.loads(text, object_pairs_hook=read)
    return repeated[0] if repeated else None


def schema() -> str:
    """The JSON schema of a job, as `worker/job.schema.json` holds it."""
    return as_text(json_schema.completed(Job.model_json_schema(schema_generator=Untitled)))


def problems(error: ValidationError) -> str:
    """One line with every wrong field, truncated to fit into an event."""
    found = [_problem(".".join(str(part) for part in e["loc"]), e["msg"]) for e in error.errors()]
    if len(found) > _PROBLEMS_SHOWN:
        found[_PROBLEMS_SHOWN:] = [f"and {len(found) - _PROBLEMS_SHOWN} more"]
    return "; ".join(found)[:REASON_CHARACTERS]


def _problem(field: str, message: str) -> str:
    message = message.removeprefix("Value error, ")
    # An unknown field may have any name.
    field = field[:64] if field.isprintable() else ascii(field[:64])
    return f"{field}: {message}" if field else message


def id_in(body: str) -> str | None:
    """The job id in a message, even if the rest is wrong; None if there is no usable one."""
    try:
        return _id_of(envelope.opened(body))
    except InvalidJob as error:
        return error.job_id


def _id_of(text: str) -> str | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    job_id = content.get("id") if isinstance(content, dict) else None
    return job_id if isinstance(job_id, str) and re.fullmatch(_ID, job_id) else None
