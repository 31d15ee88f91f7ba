"""Redact secrets that came by stdin from all output. `bake.redaction` is not on the builder."""

from __future__ import annotations

import json
import re
import sys
import threading
import traceback
from typing import Any
from urllib.parse import quote

MARK = "[redacted]"
_SHORTEST = 8
_SHAPES = (
    (re.compile(r"hf_[A-Za-z0-9]{20,}"), MARK),
    (
        re.compile(r"(X-Amz-(?:Signature|Security-Token|Credential)=)[^&\s\"'<>\\]+", re.IGNORECASE),
        rf"\1{MARK}",
    ),
    (re.compile(r"(\bBearer +)[^\s\"'\\]{8,}", re.IGNORECASE), rf"\1{MARK}"),
    (re.compile(r"(?<=://)[^\s/@:\"'<>]{0,256}:(?!\d{1,5}[/?#])[^\s\"'<>]{0,512}@"), f"{MARK}@"),
)
_forms: set[str] = set()


def conceal(secret: str) -> None:
    """Redact this from all output, in every form that an error message may give it."""
    for piece in {secret, secret.strip()}:
        if len(piece.strip()) >= _SHORTEST:
            content = piece.encode("utf-8", "surrogatepass")
            _forms.update({piece, json.dumps(piece)[1:-1], repr(piece)[1:-1], ascii(piece)[1:-1]})
            _forms.update({repr(content)[2:-1], quote(content), quote(content, safe="")})


def redact(text: str) -> str:
    """`text` without secrets."""
    for form in sorted(_forms, key=len, reverse=True):
        text = text.replace(form, MARK)
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text


def redact_all(value: Any) -> Any:
    """The same for every text in a value of JSON."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact_all(key): redact_all(item) for key, item in value.items()}
    return [redact_all(item) for item in value] if isinstance(value, list | tuple) else value


def print_error(error: BaseException) -> None:
    """Print a traceback: messages of libraries hold headers, and with them the token."""
    sys.stderr.write(redact("".join(traceback.format_exception(type(error), error, error.__traceback__))))
    sys.stderr.flush()


def watch_threads() -> None:
    """Print errors that end a thread the same way."""
    threading.excepthook = _thread_died


def _thread_died(died: threading.ExceptHookArgs) -> None:
    if died.exc_value is not None and not isinstance(died.exc_value, SystemExit):
        print_error(died.exc_value)
