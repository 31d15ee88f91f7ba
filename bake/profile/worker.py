"""The section `worker`: where the booted worker finds what it needs, what it runs on, and its code."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from bake.profile import values
from bake.profile.section import Section, variable
from bake.profile.types import (
    Bucket,
    Commit,
    EventBus,
    GitUrl,
    InstanceTypeName,
    Namespace,
    QueueUrl,
    Region,
    Size,
)


class Worker(Section):
    """Where the booted worker finds its queue and event bus (R-REGIONS), and what it runs on."""

    region: Region = Field(json_schema_extra=variable("AWS_REGION"))
    """Where SQS, Secrets Manager and EventBridge are."""
    queue: QueueUrl | None = Field(None, json_schema_extra=variable("FLUX_QUEUE_URL"))
    """The URL of the queue; checked when given."""
    bucket: Bucket | None = Field(None, json_schema_extra=variable("FLUX_BUCKET", optional=True))
    """The bucket of finished images; checked when given."""
    bus: EventBus | None = Field(None, json_schema_extra=variable("FLUX_EVENT_BUS", optional=True))
    """The event bus; checked when given."""
    cloudwatch_namespace: Namespace | None = None
    """Where workers publish the metric `Ready`, in the builder's region; without it, nowhere."""
    source: GitUrl | None = Field(None, json_schema_extra=variable("FLUX_GIT_URL"))
    """The Git repository that the worker's code comes from; without it, the worker that comes with bake."""
    commit: Commit | None = None
    """The commit of `source`, never a branch."""
    instance_type: InstanceTypeName | None = None
    """The instance type that the image is for, where the builder's is another; its boot check runs on it."""
    instance_types: tuple[InstanceTypeName, ...] | None = Field(None, min_length=1, max_length=8)
    """Instead of `instance_type`: several that it is for; the boot check tries them in this order."""
    start_hours: int = Field(4, ge=1, le=48, strict=True)
    """Hours that the boot check waits for a worker that gets on, such as one that reads from a slow disk."""

    compile_sizes: tuple[Size, ...] = Field((), max_length=16)
    """Image sizes, such as 1024x1024, for which a builder with a GPU compiles; others are drawn eagerly."""
    remove_unused_libraries: bool = Field(False, strict=True)
    """Whether libraries of torch's packages that no start on this accelerator opens are removed."""

    def conflicts(self) -> Iterator[str]:
        """A repository without a commit would be another one tomorrow; types are named one way."""
        if (self.source is None) != (self.commit is None):
            yield "source and commit go together: where the code comes from, and which it is"
        if self.instance_type is not None and self.instance_types is not None:
            yield "has instance_type and instance_types: one type, or the list of them"
        if self.instance_types is not None and len(set(self.instance_types)) < len(self.instance_types):
            yield "instance_types names a type twice"
        if len(set(self.compile_sizes)) < len(self.compile_sizes):
            yield "compile_sizes names a size twice"
        if wrong := values.wrong_sides(self.compile_sizes):
            yield f"compile_sizes are multiples of 16 from 256 to 1440, not {wrong}"

    @property
    def types(self) -> tuple[str, ...]:
        """The instance types that the image is for; none where they are the builder's."""
        return self.instance_types or ((self.instance_type,) if self.instance_type else ())
