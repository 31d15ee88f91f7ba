"""Match IAM's patterns: `*`, `?`, and the policy variables of a request.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_resource.html and
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum
from functools import lru_cache
from typing import Final

Lookup = Callable[[str], Sequence[str]]


class Wild(Enum):
    """What stands for characters that are not given."""

    MANY = "*"
    ONE = "?"
    WITHIN = "* within one part of an ARN"


Token = str | Wild
_VARIABLE: Final = re.compile(r"\$\{([^}]*)\}")
_WILDCARD: Final = re.compile(r"[*?]")
_DEFAULT: Final = re.compile(r"([^,]+?)\s*,\s*'([^']*)'")
_PARTS: Final = 5  # colons of an ARN: partition, service, region and account are before the last one


def covers(pattern: str, text: str, lookup: Lookup | None, *, arn: bool = False) -> bool | None:
    """Whether a pattern covers a whole text; None where a variable in it has no value, or several.

    With `arn` the text is an ARN, in whose parts a `*` stays that does not end one.
    """
    if lookup is None or "${" not in pattern:
        return _covers(pattern, text, arn)
    found = tokens(pattern, lookup)
    return None if found is None else matches(of_arn(found) if arn else found, text)


@lru_cache(50_000)  # the same calls come again and again
def _covers(pattern: str, text: str, arn: bool) -> bool:
    first = _WILDCARD.search(pattern)
    if first is None:
        return pattern == text
    if not text.startswith(pattern[: first.start()]):
        return False
    found = tokens(pattern, None) or []
    return matches(of_arn(found) if arn else found, text)


def tokens(text: str, lookup: Lookup | None, *, wild: bool = True) -> list[Token] | None:
    """The characters and wildcards of a pattern; None where a variable has no value, or several.

    `lookup` finds a variable's values; None for a policy of 2008, which has no variables. What comes from the
    request is taken literally. Without `wild`, so are `*` and `?`.
    """
    found: list[Token] = []
    end = 0
    for variable in _VARIABLE.finditer(text) if lookup else ():
        assert lookup is not None
        found += _plain(text[end : variable.start()], wild)
        value = _value(variable[1], lookup)
        if value is None:
            return None
        found += value
        end = variable.end()
    return found + _plain(text[end:], wild)


def _plain(text: str, wild: bool) -> list[Token]:
    signs = {"*": Wild.MANY, "?": Wild.ONE} if wild else {}
    return [signs.get(one, one) for one in text]


def _value(name: str, lookup: Lookup) -> str | None:
    if name in {"*", "?", "$"}:
        return name
    default = _DEFAULT.fullmatch(name)
    values = lookup(default[1] if default else name)
    if len(values) == 1:
        return values[0]
    return default[2] if default and not values else None


def of_arn(pattern: list[Token]) -> list[Token]:
    """The pattern for an ARN: a `*` goes beyond a colon only at the end of a part, and in the last part."""
    found: list[Token] = []
    colons = 0
    for index, sign in enumerate(pattern):
        colons += sign == ":"
        following = pattern[index + 1] if index + 1 < len(pattern) else ":"
        inside = colons < _PARTS and following != ":" and following is not Wild.MANY
        found.append(Wild.WITHIN if sign is Wild.MANY and inside else sign)
    return found


def matches(pattern: list[Token], text: str) -> bool:
    """Whether a pattern covers a whole text; its time grows with the product of their lengths only."""
    reached = _skip(pattern, {0})
    for sign in text:
        reached = _skip(pattern, {following for at in reached for following in _step(pattern, at, sign)})
        if not reached:
            return False
    return len(pattern) in reached


def _skip(pattern: list[Token], reached: set[int]) -> set[int]:
    """The positions after those stars that stand for nothing."""
    for at in list(reached):
        while at < len(pattern) and pattern[at] in (Wild.MANY, Wild.WITHIN):
            at += 1
            reached.add(at)
    return reached


def _step(pattern: list[Token], at: int, sign: str) -> tuple[int, ...]:
    if at == len(pattern):
        return ()
    token = pattern[at]
    if token is Wild.MANY or (token is Wild.WITHIN and sign != ":"):
        return (at,)
    return (at + 1,) if token is Wild.ONE or token == sign else ()
