"""What a job may ask for, and how one is read from a message."""

from __future__ import annotations

import json
import re
import secrets
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from .errors import InvalidJob

MAX_PROMPT_TOKENS = 512
"""FLUX.1-dev's T5 reads no more; diffusers would cut the rest off, so longer prompts are refused."""

_ID = r"^[A-Za-z0-9._-]{1,128}$"
_MAX_PROMPT_CHARACTERS = 10_000  # far above what 512 tokens can hold, far below what would be slow to count
_MAX_SEED = 2**53 - 1  # the largest range that every JSON reader keeps exactly
_PROBLEMS_SHOWN = 8
_REASON_CHARACTERS = 1_000


def _written(prompt: str) -> str:
    if not prompt.strip():
        raise ValueError("must not be blank")
    if "\x00" in prompt:
        raise ValueError("must not contain NUL characters")
    return prompt


# diffusers silently floors sides to multiples of 16; such jobs are refused instead.
Side = Annotated[int, Field(ge=256, le=1440, multiple_of=16)]


class Job(BaseModel):
    """One image to draw. Sides in pixels; `seed` None means that the worker chooses and reports one."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=_ID)]
    prompt: Annotated[str, Field(max_length=_MAX_PROMPT_CHARACTERS), AfterValidator(_written)]
    width: Side = 1024
    height: Side = 1024
    steps: Annotated[int, Field(ge=1, le=50)] = 28
    guidance: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 3.5
    seed: Annotated[int, Field(ge=0, le=_MAX_SEED)] | None = None

    def seeded(self) -> Job:
        """This job with a seed: its own, or one chosen now."""
        if self.seed is not None:
            return self
        return self.model_copy(update={"seed": secrets.randbelow(2**32)})


def parse(body: str) -> Job:
    """Read a message's body. Raises InvalidJob, with the id where one can be made out."""
    try:
        return Job.model_validate_json(body.encode())
    except UnicodeEncodeError as error:
        raise InvalidJob("the message is not valid UTF-8") from error
    except ValidationError as error:
        raise InvalidJob(problems(error), job_id=_id_in(body)) from error


def problems(error: ValidationError) -> str:
    """One line that names every field that is wrong, cut to what fits into an event."""
    found = [_problem(".".join(str(part) for part in e["loc"]), e["msg"]) for e in error.errors()]
    if len(found) > _PROBLEMS_SHOWN:
        found[_PROBLEMS_SHOWN:] = [f"and {len(found) - _PROBLEMS_SHOWN} more"]
    return "; ".join(found)[:_REASON_CHARACTERS]


def _problem(field: str, message: str) -> str:
    return f"{field[:64]}: {message}" if field else message


def _id_in(body: str) -> str | None:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    job_id = content.get("id") if isinstance(content, dict) else None
    return job_id if isinstance(job_id, str) and re.fullmatch(_ID, job_id) else None
