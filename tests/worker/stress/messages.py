"""Messages for a stress run: jobs, duplicates, the same ids with other parameters, and invalid messages.

Also valid jobs that must fail: no worker can generate the poisoned ones, and the forbidden ones have a prefix
that nobody may write to.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from .faults import FORBIDDEN
from .fleet import POISONED_WIDTH

_WORDS = ["a", "cat", "on the roof of", "ein Haus am Meer", "кот на крыше", "屋根の上の猫", "🐈", "at dusk"]
_BROKEN: list[dict[str, Any]] = [
    {"width": 1000},
    {"steps": "28"},
    {"guidance": None},
    {"colour": "red"},
    {"prompt": ""},
    {"prompt": "cat " * 600},
    {"format": "gif"},
    {"s3_prefix": "../"},
    {"quality": 90},
    {"images": 5},
    {"metadata": {"much": "x" * 5_000}},
]
_NAMELESS = [
    "draw me a cat",
    " ",
    "null",
    "[" * 100_000,
    '{"prompt": "no id"}',
    '{"id": "no/such/id", "prompt": "a cat"}',
    '{"id": "cut short", "prom',
    "x" * 300_000,
]


@dataclass(frozen=True)
class SentMessages:
    """Everything that is sent, in its order, and what must become of it.

    `asked` has each id's jobs: one, or two that differ, of which the first to be drawn is kept. `refused` has
    the ids of messages that can never be drawn; `nameless` counts those that carry no usable id. `forbidden`
    and `poison` have the ids of jobs that must end among the dead letters.
    """

    bodies: list[str]
    requested: dict[str, list[dict[str, Any]]]
    refused: set[str]
    nameless: int
    forbidden: frozenset[str] = frozenset()
    poison: frozenset[str] = frozenset()

    @property
    def dead(self) -> frozenset[str]:
        """The ids of the jobs that must end among the dead letters."""
        return self.forbidden | self.poison


def make(seed: int, jobs: int, *, forbidden: int = 0, poison: int = 0) -> SentMessages:
    """`jobs` ids to draw, a tenth of them sent twice, a twentieth with other parameters, too; and garbage.

    What must end among the dead letters comes early, since that takes several receives.
    """
    dice = random.Random(f"{seed} orders")
    requested = {f"job-{number}": [_job(dice, f"job-{number}")] for number in range(jobs)}
    bodies = [[json.dumps(job, ensure_ascii=False)] for (job,) in requested.values()]
    names = list(requested)
    for name in dice.sample(names, jobs // 10):
        _again(dice, bodies, names.index(name), requested[name][0])
    for name in dice.sample(names, jobs // 20):
        other = _changed(dice, requested[name][0])
        requested[name].append(other)
        _again(dice, bodies, names.index(name), other)
    bad = {f"bad-{number}": _bad(dice, f"bad-{number}") for number in range(jobs // 20)}
    nameless = [dice.choice(_NAMELESS) for _ in range(jobs // 30)]
    bodies += [[json.dumps(job)] for job in bad.values()] + [[body] for body in nameless]
    dice.shuffle(bodies)
    ill = {f"forbidden-{number}": {"s3_prefix": FORBIDDEN} for number in range(forbidden)}
    ill |= {f"poison-{number}": {"width": POISONED_WIDTH} for number in range(poison)}
    for name, fault in ill.items():
        body = json.dumps(_job(dice, name) | {"steps": 1, "images": 1} | fault)
        bodies.insert(dice.randrange(len(bodies) // 4), [body])
    return SentMessages(
        [body for group in bodies for body in group],
        requested,
        set(bad),
        len(nameless),
        frozenset(name for name in ill if name.startswith("forbidden")),
        frozenset(name for name in ill if name.startswith("poison")),
    )


def _again(dice: random.Random, bodies: list[list[str]], place: int, job: dict[str, Any]) -> None:
    """Once more right behind the first, for another worker to receive it meanwhile, or some other time."""
    if dice.random() < 0.5:
        bodies[place].append(json.dumps(job))
    else:
        bodies.append([json.dumps(job)])


def _job(dice: random.Random, name: str) -> dict[str, Any]:
    job: dict[str, Any] = {"id": name, "prompt": " ".join(dice.choices(_WORDS, k=dice.randint(1, 30)))}
    job |= {"width": dice.choice([256, 256, 272]), "height": 256, "steps": dice.choice([1, 1, 1, 1, 4])}
    job["format"] = dice.choice(["png", "png", "jpg", "webp"])
    if job["format"] != "png" and dice.random() < 0.5:
        job["quality"] = dice.randint(1, 100)
    if dice.random() < 0.5:
        job["seed"] = dice.randrange(2**53 - 4)
    if dice.random() < 0.1:
        job["images"] = dice.randint(2, 4)
    if dice.random() < 0.2:
        job["s3_prefix"] = dice.choice(["team-a/", "2026/11/"])
    if dice.random() < 0.3:
        job["metadata"] = {"order": dice.randrange(10_000), "for": ["кто-то", None, {"deep": [1.5, True]}]}
    return job


def _changed(dice: random.Random, job: dict[str, Any]) -> dict[str, Any]:
    """The same id, but another picture: under the same key or another, one or several."""
    other = {key: value for key, value in job.items() if key != "quality"}
    change = dice.choice(
        [{"seed": 7_000_000}, {"prompt": "something else"}, {"format": "webp"}, {"images": 3}, {"width": 288}]
    )
    if change.items() <= other.items():
        change = {"seed": 7_000_000}
    return other | change


def _bad(dice: random.Random, name: str) -> dict[str, Any]:
    return _job(dice, name) | {"format": "png"} | dice.choice(_BROKEN)
