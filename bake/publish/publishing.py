"""Publish a good AMI, part by part: what fails is told with its command, and stops nothing else.

The order is fixed: what an AMI says before it is copied, since copies inherit that; copies before what names
them. A second call does what is missing, and only that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bake.aws import Aws, call_errors, unanswered
from bake.background import start
from bake.errors import BakeError
from bake.image import Image, describe_image
from bake.publish import copies, launch_template, marks, parameter
from bake.publish.copies import Source
from bake.publish.root_volume import RootVolume
from bake.publish.wanted import Published, Wanted


@dataclass(frozen=True)
class Publishing:
    """One AMI that is published: by which profile, for which accounts, in which run."""

    aws: Aws
    image: Image
    wanted: Wanted
    profile: str
    accounts: Sequence[str]
    run: str

    def all(self) -> tuple[Published, ...]:
        """Publish everything; what became of each part. Raises nothing that AWS answers."""
        facts = describe_image(self.aws, self.image.id)
        if facts is None:
            raise BakeError(
                f"{self.image.id} is gone from {self.aws.region}", hint="somebody deregistered it: bake again"
            )
        here = [*self._marks(self.aws, facts)]
        copying = [
            start(lambda region=region: self._region(Source(self.aws.region, facts), region))  # type: ignore[misc]
            for region in self.wanted.regions
        ]
        here += [*self._parameter(self.aws, self.image.id), *self._template(facts.get("RootDeviceName", ""))]
        return (*here, *(row for one in copying for row in one.result()))

    def _region(self, source: Source, region: str) -> list[Published]:
        """The copy in a region, its marks, and the region's own parameter."""
        there = self.aws.within(region)
        made: list[Image] = []

        def copy() -> str:
            made.append(copies.ensure(there, source, self.wanted, self.accounts, self.run))
            return made[0].id

        row = _attempt("copy", region, source.id, copy, copies.by_hand(there, source, self.wanted))
        if not made:
            return [row]
        facts = describe_image(there, made[0].id)
        rows = [*self._marks(there, facts)] if facts is not None else []
        return [row, *rows, *self._parameter(there, made[0].id)]

    def _marks(self, aws: Aws, facts: object) -> Iterator[Published]:
        for mark in marks.marks(aws, facts, self.wanted):

            def put(mark: marks.Mark = mark) -> str:
                marks.ensure(aws, facts["ImageId"], mark)  # type: ignore[index]
                return mark.value

            yield _attempt(mark.name, aws.region, mark.value, put, mark.by_hand)

    def _parameter(self, aws: Aws, image: str) -> Iterator[Published]:
        if (name := self.wanted.parameter) is not None:

            def put() -> str:
                return f"{name} = {image}, version {parameter.ensure(aws, name, image, self.profile)}"

            by_hand = parameter.by_hand(aws, name, image, self.profile)
            yield _attempt("SSM parameter", aws.region, f"{name} = {image}", put, by_hand)

    def _template(self, device: str) -> Iterator[Published]:
        template, source, rate = self.wanted.template, self.wanted.source, self.wanted.initialization_rate
        root = None if rate is None else RootVolume(device, rate)
        if template is not None:

            def put() -> str:
                made = launch_template.ensure_version(self.aws, template, self.image.id, source, root)
                return f"{template} version {made.number}"

            by_hand = launch_template.ensure_by_hand(self.aws, template, self.image.id, source, root)
            yield _attempt("launch template", self.aws.region, template, put, by_hand)


def _attempt(what: str, region: str, asked: str, act: Callable[[], str], by_hand: str) -> Published:
    """Do one part; its id is what `act` returns, or what was `asked` for if that failed."""
    try:
        return Published(what, region, act())
    except BakeError as error:
        why = "; ".join(text for text in (error.message, error.hint) if text)
    except call_errors() as error:
        why = f"AWS answers {unanswered(error)}"
    return Published(what, region, asked, "failed", why, by_hand)
