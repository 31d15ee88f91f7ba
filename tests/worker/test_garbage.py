"""200 invalid messages: each is announced and deleted, and the worker keeps running."""

from __future__ import annotations

import gzip
import json
import random
import string
import time
from collections import Counter
from typing import Any

from tests.worker.conftest import LOST_ANSWER_SECONDS

SEED = 20_261_122
COUNT = 200
MESSAGE_BYTES = 1_048_576  # SQS takes no more
GOOD: dict[str, Any] = {"prompt": "a cat", "width": 256, "height": 256, "steps": 1}
WRONG: dict[str, list[Any]] = {
    "prompt": [None, True, 7, ["a"], {"a": "b"}, "", " \n\t", "a\0b", "x" * 10_001, "cat " * 2_000],
    "width": [None, False, "256", 256.5, [256], {}, 0, -256, 255, 257, 1456, 10**30, 1e308],
    "height": [None, True, "", 1000, 2**64],
    "steps": [None, 0, 51, -1, 2.5, "1", [], 10**400],
    "guidance": [None, "3.5", -0.1, 10.1, float("nan"), float("inf"), [3.5]],
    "seed": ["7", -1, 2**53, 1.5, [], True],
    "images": [None, 0, 5, "2", [1, 2]],
    "format": [None, "gif", "PNG", 1, ["png"]],
    "quality": [0, 101, "90", 90],
    "max_sequence_length": [None, 0, 513, "512"],
    "s3_prefix": [None, "/", "../", "a/../../b/", "a//", "a\\b/", "x" * 300 + "/", 1],
    "metadata": [None, [], "x", 1, {"much": "x" * 5_000}],
    "colour": ["red", None],
}
ODD = [
    "draw me a cat",
    "null",
    "true",
    "[]",
    '"a text"',
    "NaN",
    "-",
    "{}",
    "{'id': 'single', 'prompt': 'quotes'}",
    '{"id": "comma", "prompt": "a cat",}',
    '{"prompt": "a cat"} // comment',
    '\ufeff{"id": "bom", "prompt": "a cat"}',
    '{"id": "half", "prompt": "\\ud83d',
    '{"id": "twice", "prompt": "a cat"}{"id": "twice", "prompt": "a cat"}',
    "id: yaml\nprompt: a cat\n",
    "<job><id>xml</id><prompt>a cat</prompt></job>",
    "id=form&prompt=a+cat",
    "(lp0\nS'pickle'\np1\na.",
    "%00%ff../../etc/passwd",
    "${jndi:ldap://127.0.0.1/a}",
    "\u202e\u2066\u200b",
]


def no_job(dice: random.Random, number: int) -> tuple[str, str | None]:
    """A body, and the id that can be made out in it."""
    kinds = (odd, wrong_type, wrong_type, wrong_type, bad_id, binary, deep, huge, cut_short)
    return kinds[number % len(kinds)](dice, f"garbage-{number}")


def odd(dice: random.Random, _: str) -> tuple[str, str | None]:
    return dice.choice(ODD), None


def wrong_type(dice: random.Random, name: str) -> tuple[str, str | None]:
    field = dice.choice(sorted(WRONG))
    return json.dumps(GOOD | {"id": name, field: dice.choice(WRONG[field])}), name


def bad_id(dice: random.Random, _: str) -> tuple[str, str | None]:
    bad = dice.choice([None, 7, "", "a/b", "a b", "a\n", "..%2f", "é", "x" * 129, "a=claim", ["a"], {"a": 1}])
    return json.dumps(GOOD | {"id": bad}), None


def binary(dice: random.Random, name: str) -> tuple[str, str | None]:
    data = dice.randbytes(dice.randrange(1, 5_000))
    text = dice.choice([data, gzip.compress(data, mtime=0), b"\x89PNG\r\n\x1a\n" + data]).decode("latin-1")
    if dice.random() < 0.3:
        return json.dumps(GOOD | {"id": name, "prompt": "\0" + text}, ensure_ascii=False), name
    return text, None


def deep(dice: random.Random, name: str) -> tuple[str, str | None]:
    levels = dice.choice([9, 100, 400])
    nested = '{"in":' * levels + "1" + "}" * levels
    return dice.choice(
        [
            ("[" * 500_000, None),
            ("[" * 200_000 + "]" * 200_000, None),
            ('{"a":' * 100_000 + "1" + "}" * 100_000, None),
            (f'{{"id": "{name}", "prompt": "a cat", "metadata": {nested}}}', name if levels < 200 else ...),
        ]
    )


def huge(dice: random.Random, name: str) -> tuple[str, str | None]:
    size = dice.randrange(300_000, MESSAGE_BYTES - 1_000)
    return dice.choice(
        [
            ("x" * size, None),
            ("9" * size, None),
            (json.dumps(GOOD | {"id": name, "prompt": "猫" * (size // 6)}), name),
            (json.dumps(GOOD | {"id": name} | {f"field-{n}": n for n in range(size // 20)}), name),
            (json.dumps(GOOD | {"id": name, "metadata": {"x": "y" * size}}), name),
            (json.dumps([GOOD | {"id": name}] * (size // 80)), None),
            (json.dumps({"id": "x" * size}), None),
        ]
    )


def cut_short(dice: random.Random, name: str) -> tuple[str, str | None]:
    whole = json.dumps(GOOD | {"id": name, "metadata": {"from": string.printable}})
    return whole[: dice.randrange(1, len(whole))], None


def all_told(aws: Any, expected: Counter[str | None]) -> list[dict[str, Any]]:
    """As many events of each id as are expected; more only where the host paused, and an answer was lost."""
    told: list[dict[str, Any]] = []
    found: Counter[str | None] = Counter()
    longest = 0.0
    while not found >= expected:
        before = time.monotonic()
        told.append(aws.any_event(60))
        longest = max(longest, time.monotonic() - before)
        found[told[-1]["detail"]["id"]] += 1
        assert found <= expected or longest > LOST_ANSWER_SECONDS, found - expected
    assert set(found) == set(expected)
    return told


def test_garbage_is_told_of_and_the_worker_lives_on(worker: Any, aws: Any) -> None:
    dice = random.Random(SEED)
    garbage = [no_job(dice, number) for number in range(COUNT)]
    for body, _ in garbage:
        aws.send(body)
    told = all_told(aws, Counter(name for _, name in garbage))
    assert {event["detail-type"] for event in told} == {"FluxImageFailed"}
    reasons = [event["detail"]["reason"] for event in told]
    assert all(0 < len(reason) <= 1_000 and reason.isprintable() for reason in reasons)
    aws.wait_until_empty()
    aws.send(GOOD | {"id": "after-all"})
    event = aws.event(60)
    assert (event["detail-type"], event["detail"]["id"]) == ("FluxImageReady", "after-all")
    assert worker.process.poll() is None
    # Nobody can put what they like into the logs of somebody else's terminal.
    assert worker.log.read_text().replace("\n", "").isprintable()
