"""Explain what is wrong with a value for an HTTP header or a URL, by the kind of character.

No message contains any part of the value: a token with a typo is still a secret.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping

from bake.errors import UsageError

BLANKS = " \t\r\n\v\f"
QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "«": "»"}
BEARER = re.compile(r"bearer[ \t]+(?=\S)", re.IGNORECASE)
ASSIGNMENT = re.compile(r"(export[ \t]+)?[A-Za-z_][A-Za-z0-9_]*[ \t]*=[ \t]*(?=[^=\s])")
TWICE = re.compile(r"(hf_\S+?)[\s,;]*\1")
BYTE_ORDER_MARK = "\ufeff"

# boto3 reads these by itself, and puts the first and the last into headers.
AWS_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def fault(token: str) -> str | None:
    """Return why `token` can't be one, as a phrase after its name ("has a blank inside"); None if it can."""
    if not token.strip(BLANKS + BYTE_ORDER_MARK):
        return "has nothing but blanks"
    body, found = _trimmed(token)
    if match := BEARER.match(body):
        found.append("the word Bearer before it")
        body = body[match.end() :]
    if match := ASSIGNMENT.match(body):
        found.append("a name and = before it")
        body = body[match.end() :]
    if len(body) > 1 and QUOTES.get(body[0]) == body[-1]:
        found.append("quotes around it")
        inner, more = _trimmed(body[1:-1])
        body, found = inner, [*found, *more]
    if match := TWICE.fullmatch(body):
        found.append("the same token twice")
        body = match[1]
    return _sentence([*found, *_kinds(body, "inside")])


def line_fault(value: str) -> str | None:
    """Return why `value` can't be a one-line value; blanks and letters of any language are fine."""
    if not value.strip(BLANKS + BYTE_ORDER_MARK):
        return "has nothing but blanks"
    body, found = _trimmed(value)
    wrong = (letter for letter in body if letter < " " or unicodedata.category(letter) in ("Cc", "Cs"))
    return _sentence([*found, *_kinds(wrong, "inside")])


def hint(name: str, source: str) -> str:
    """Return how to fix the variable `name`, which comes from `source`."""
    if source == "environment":
        return f'export {name}="$(cat FILE)" keeps no line break at the end'
    return f"write {name}=VALUE in {source}, without anything around the value"


def check_aws(environment: Mapping[str, str] | None = None) -> None:
    """Raise UsageError for AWS credentials in the environment that no request could use."""
    given = os.environ if environment is None else environment
    faults = {name: fault(given[name]) for name in AWS_VARIABLES if given.get(name)}
    found = [f"{name} (environment) {what}" for name, what in faults.items() if what]
    if found:
        raise UsageError("\n".join(found), hint=hint("NAME", "environment"))


def _trimmed(text: str) -> tuple[str, list[str]]:
    """Strip `text`, and return what was stripped."""
    found = []
    if text.startswith(BYTE_ORDER_MARK):
        found.append("a byte order mark at its start (U+FEFF)")
        text = text.lstrip(BYTE_ORDER_MARK)
    before = text[: len(text) - len(text.lstrip(BLANKS))]
    after = text[len(text.rstrip(BLANKS)) :]
    found += [*_kinds(before, "at its start"), *_kinds(after, "at its end")]
    return text.strip(BLANKS), found


def _kinds(letters: Iterable[str], where: str) -> list[str]:
    """Name each kind of character that no header allows, once."""
    found: dict[str, str] = {}
    for letter in letters:
        if kind := _kind(letter):
            found.setdefault(*kind)
    return [f"{kind} {where}{code}" for kind, code in found.items()]


def _kind(letter: str) -> tuple[str, str] | None:
    """Return the kind of a character, and its code point if that reveals nothing of a secret."""
    category = unicodedata.category(letter)
    code = f" (U+{ord(letter):04X})"
    if letter in "\r\n":
        return "a line break", ""
    if letter in " \t":
        return ("a blank" if letter == " " else "a tab"), ""
    if category == "Cs":
        return "a byte that is not UTF-8", ""
    if category == "Cc":
        return "a control character", code
    if letter.isascii():
        return None
    return "a character outside ASCII", "" if category[0] in "LMN" else code


def _sentence(found: list[str]) -> str | None:
    *first, last = found or [""]
    return f"has {', '.join(first)}{' and ' if first else ''}{last}" if last else None
