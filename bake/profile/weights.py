"""The section `weights`: the model, where its files come from, and where they lie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from bake import tokens
from bake.profile import values
from bake.profile.patterns import CACHE, FLEETING
from bake.profile.section import Section, variable
from bake.profile.types import Commit

FLUX = "black-forest-labs/FLUX.1-dev"


class Weights(Section):
    """What is prefetched, in which precision it is served, and where it lies (R-CACHE, R-DTYPE)."""

    repo: str = Field(FLUX, json_schema_extra={"const": FLUX})
    """The model. There is one."""
    revision: Commit
    """A commit of the model's repository, never a branch."""
    cache: str = Field("~/.cache/huggingface/hub", json_schema_extra={"pattern": CACHE})
    """The Hugging Face cache on the image; on the root volume."""
    precision: Literal["bf16", "int8"] = "bf16"
    """The weights' type in the accelerator's memory; int8 is made of the bfloat16 files during the bake."""
    keep_source: bool = True
    """With int8: whether the bfloat16 files stay on the image, which does not need them."""
    scratch: Literal["instance-store"] | None = None
    """With int8 and `keep_source: false`: where the bfloat16 files lie meanwhile, off the root volume."""
    mirror: str | None = Field(None, json_schema_extra=variable("FLUX_MIRROR", optional=True))
    """A bucket and prefix (s3://bucket/prefix) that keep the large files by sha256 for the next bake."""
    stream: str | None = Field(None, json_schema_extra=variable("FLUX_STREAM", optional=True))
    """A bucket and prefix, kept like a mirror, from which workers read weights beside their volume."""
    token: SecretStr = Field(min_length=1, json_schema_extra=variable("HF_TOKEN"))
    """A Hugging Face token whose account accepted the model's licence; used while downloading only."""

    def conflicts(self) -> Iterator[str]:
        """In bfloat16 the source is what is served, and what is on the image must lie on EBS."""
        if self.precision == "bf16" and not self.keep_source:
            yield "keep_source: false goes with precision: int8; in bf16 the worker needs these files"
        if self.scratch and (self.precision == "bf16" or self.keep_source):
            yield (
                f"scratch: {self.scratch} goes with precision: int8 and keep_source: false; "
                "no image holds what is on an instance store (R-EBS)"
            )

    @field_validator("token")
    @classmethod
    def _sendable(cls, value: SecretStr) -> SecretStr:
        if fault := tokens.fault(value.get_secret_value()):
            raise ValueError(fault)
        return value

    @field_validator("repo")
    @classmethod
    def _the_model(cls, value: str) -> str:
        if value != FLUX:
            raise ValueError(f"must be {FLUX}: this pipeline serves that model and no other")
        return value

    @field_validator("mirror", "stream")
    @classmethod
    def _bucket(cls, value: str | None) -> str | None:
        return values.bucket(value)

    @field_validator("cache")
    @classmethod
    def _lasting(cls, value: str) -> str:
        if not re.search(CACHE, value) or value.endswith("\n"):
            raise ValueError("must be an absolute path, or start with ~/, of plain letters")
        path = PurePosixPath(value)
        if ".." in path.parts or "." in value.split("/"):
            raise ValueError("must not go up with . or ..")
        for place, why in FLEETING.items():
            if path.is_relative_to(place):
                raise ValueError(f"{place} {why}; the weights must lie on EBS to be in the image (R-EBS)")
        return value
