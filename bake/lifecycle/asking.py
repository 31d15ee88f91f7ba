"""Ask everything that may refer to AMIs, side by side, in all regions where they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from bake.account.answers import Unanswered, ask
from bake.aws import Aws
from bake.background import start
from bake.lifecycle.holding import Holding
from bake.lifecycle.proof import Mention, Proof, by_image
from bake.lifecycle.reference_files import search
from bake.lifecycle.references import QUESTIONS, Asks
from bake.lifecycle.sharing import NotMade, Sharing, ask_sharing

AT_ONCE = 16  # AMIs whose sharing is asked for side by side


@dataclass(frozen=True)
class Answer:
    """What one question brought: mentions, or why it has no answer. `about` are the AMIs it could protect."""

    name: str
    about: frozenset[str]
    found: tuple[Mention, ...] | Unanswered


def ask_proof(
    clouds: Mapping[str, Aws],
    held: Collection[Holding],
    files: Sequence[Path] = (),
    questions: Mapping[str, Asks] = QUESTIONS,
) -> Proof:
    """The references to these AMIs, whose regions `clouds` has clients for; without AMIs, no question.

    `files` are folders and files that may name them. A question that gets no answer hides no other. With
    fewer `questions` than all, nobody is asked whom the AMIs are shared with either.
    """
    listed = list(held)
    if not listed:
        return Proof()
    asked = [
        _start(name, questions[name], clouds[region], some)
        for region, some in _by_region(listed)
        for name in questions
    ]
    searched = start(lambda: search(files))
    sharing = dict(_sharing(clouds, listed)) if questions is QUESTIONS else {}
    answers = [answer.result() for answer in asked]
    answers += [
        Answer(f"who uses {image}", frozenset({image}), _users(image, one)) for image, one in sharing.items()
    ]
    in_files = searched.result()
    everything = frozenset(one.id for one in listed)
    answers.append(Answer("files", everything, tuple(in_files.mentions)))
    if in_files.unread:
        answers.append(Answer("some of the files", everything, Unanswered(in_files.why_unread)))
    shares = {image: one.shares for image, one in sharing.items() if isinstance(one, Sharing)}
    return _proof(answers, everything, shares, in_files.notes)


def _by_region(held: Iterable[Holding]) -> Iterable[tuple[str, list[Holding]]]:
    regions: dict[str, list[Holding]] = {}
    for one in held:
        regions.setdefault(one.region, []).append(one)
    return regions.items()


def _start(name: str, question: Asks, aws: Aws, held: list[Holding]) -> Future[Answer]:
    about = frozenset(one.id for one in held)

    def answer() -> Answer:
        found = ask(lambda: tuple(one for one in question(aws, held) if one[0] in about))
        return Answer(f"{name} in {aws.region}", about, found)

    return start(answer)


def _sharing(
    clouds: Mapping[str, Aws], held: Sequence[Holding]
) -> Iterator[tuple[str, Sharing | Unanswered]]:
    for first in range(0, len(held), AT_ONCE):
        some = held[first : first + AT_ONCE]
        asked = [(one.id, start(lambda one=one: _of(clouds[one.region], one.id))) for one in some]  # type: ignore[misc]
        yield from ((image, answer.result()) for image, answer in asked)


def _of(aws: Aws, image: str) -> Sharing | Unanswered:
    try:
        return ask(lambda: ask_sharing(aws, image))
    except NotMade as error:
        return Unanswered(error.message)


def _users(image: str, found: Sharing | Unanswered) -> tuple[Mention, ...] | Unanswered:
    return found if isinstance(found, Unanswered) else tuple((image, one) for one in found.users)


def _proof(
    answers: Iterable[Answer],
    about: Collection[str],
    shares: Mapping[str, tuple[str, ...]],
    notes: tuple[str, ...],
) -> Proof:
    mentions: list[Mention] = []
    unanswered: dict[str, str] = {}
    doubts: dict[str, list[str]] = {}
    for one in answers:
        if isinstance(one.found, Unanswered):
            unanswered[one.name] = one.found.why
            for image in one.about:
                doubts.setdefault(image, []).append(f"{one.name} could not be asked: {one.found.why}")
        else:
            mentions += [mention for mention in one.found if mention[0] in about]
    told = {image: tuple(some) for image, some in doubts.items()}
    return Proof(by_image(mentions), shares, told, unanswered, notes)
