"""Remove secrets from all text that leaves this process.

Code that learns a secret registers it. Code that shows or writes text (screen, events, logs, reports, errors)
passes it through `redact` or `redact_all`. Text with the shape of a secret needs no registration.
"""

from __future__ import annotations

import base64
import html
import json
import re
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

MARK = "[redacted]"
# A shorter value is a word or a number as often as a secret ("true", "80", "ubuntu"): taken out, it would
# make every log unreadable and show by its absence what it is.
SHORTEST = 8
# Lines of a private key have 64 to 76 letters, but for the last one.
SHORTEST_LINE = 20

_QUOTED = r"""(?:b?\\*"[^"\n]*"?|b?\\*'[^'\n]*'?|[^\n"']+)"""
# A marker that the text must contain (in lower case), the shape, and its replacement.
_SHAPES: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("hf_", re.compile(r"hf_[A-Za-z0-9]{20,}"), MARK),
    (
        "private key-----",
        re.compile(
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----"
            r"(?:.*?-----END [A-Z0-9 ]*PRIVATE KEY-----|[A-Za-z0-9+/=\s\\]*)",
            re.DOTALL,
        ),
        MARK,
    ),
    (
        "x-amz-",
        re.compile(
            r"(X-Amz-(?:Signature|Security-Token|Credential)\\*[\"']?(?:=|%3D|:\s*|,\s*)b?\\*[\"']?)"
            r"[^&\s\"'<>\\]+",
            re.IGNORECASE,
        ),
        rf"\1{MARK}",
    ),
    ("signature=", re.compile(r"(\bSignature=)[A-Za-z0-9%+/=_-]{16,}"), rf"\1{MARK}"),
    (
        "authorization",
        re.compile(
            rf"(\bauthorization(?:\\*[\"']\s*[:=,]|\s*[:=]))(?!\s*\[redacted\])\s*{_QUOTED}", re.IGNORECASE
        ),
        rf"\1 {MARK}",
    ),
    ("bearer ", re.compile(r"(\bBearer +)[^\s\"'\\]{8,}", re.IGNORECASE), rf"\1{MARK}"),
    ("basic ", re.compile(r"(\bBasic +)[A-Za-z0-9+/_-]{16,}={0,2}"), rf"\1{MARK}"),
    # User name and password; in a URL of the web the name alone may be a token. A password may hold `/` and
    # `@`, but what follows `:` may also be a port.
    (
        "://",
        re.compile(r"(?<=://)[^\s/@:\"'<>]{0,256}:(?!\d{1,5}[/?#])[^\s\"'<>]{0,512}@"),
        f"{MARK}@",
    ),
    ("http", re.compile(r"(https?://)[^\s/@:\"'<>]{1,256}@", re.IGNORECASE), rf"\1{MARK}@"),
    (
        "=",
        re.compile(
            r"([?&](?:access_token|private_token|auth_token|token|password|passwd|secret|api_?key|sig)=)"
            r"[^&\s\"'<>\\]+",
            re.IGNORECASE,
        ),
        rf"\1{MARK}",
    ),
)


class Registry:
    """The known secrets, as one pattern of all their forms. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal may come, and say something, while it is held
        self._secrets: set[str] = set()
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def register(self, secret: str) -> None:
        """Redact this secret from now on, unless it is too short."""
        if secret in self._secrets or len(secret.strip()) < SHORTEST:
            return
        with self._lock:
            self._secrets.add(secret)
            self._forms |= set(forms(secret))
            self._pattern = None

    def redact(self, text: str) -> str:
        """Return `text` without registered secrets."""
        if not self._forms:
            return text
        return (self._pattern or self._compiled()).sub(MARK, text)

    def _compiled(self) -> re.Pattern[str]:
        """Compiled by the first text that comes: secrets come in groups, and a pattern takes 0.1 s."""
        with self._lock:
            # The longest first: a part of a secret must not be taken out of it and leave the rest.
            longest_first = sorted(self._forms, key=lambda form: (-len(form), form))
            pattern = self._pattern = re.compile("|".join(map(re.escape, longest_first)))
            return pattern


_known = Registry()


def register(secret: str) -> None:
    """Redact `secret` from all text that leaves this process."""
    _known.register(secret)


def redact(text: str) -> str:
    """Return `text` with `[redacted]` for each secret, registered or known by its shape."""
    text = _known.redact(text)
    small = text.lower()
    for marker, shape, instead in _SHAPES:
        if marker in small:
            text = shape.sub(instead, text)
    return text


def redact_registered(text: str) -> str:
    """Return `text` without registered secrets, whatever else looks like one."""
    return _known.redact(text)


def redact_all(value: Any) -> Any:
    """Return a JSON-like value with all strings in it redacted, keys of mappings too."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact_all(key): redact_all(item) for key, item in value.items()}
    if isinstance(value, list):
        return [redact_all(item) for item in value]
    if isinstance(value, tuple):
        return tuple(redact_all(item) for item in value)
    return value


def register_credentials(request_signer: Any = None, **_: Any) -> None:
    """Register the AWS credentials that will sign a request; a handler of `before-sign`.

    So no credentials are fetched that would not be fetched anyway.
    """
    credentials = getattr(request_signer, "_credentials", None)
    if credentials is not None:
        frozen = credentials.get_frozen_credentials()
        for secret in (frozen.secret_key, frozen.token):
            register(secret or "")


def forms(secret: str) -> Iterator[str]:
    """Yield the forms of a secret: itself, its lines, and each as other formats quote it."""
    lines = [line.strip() for line in secret.splitlines()]
    pieces = [line for line in lines if len(line) >= SHORTEST_LINE and not line.startswith("-----")]
    for piece in dict.fromkeys((secret, secret.strip(), *(pieces if len(lines) > 1 else ()))):
        for form in _quoted(piece):
            # JSON within JSON: a log line that is a field of an event.
            for twice in (form, json.dumps(form)[1:-1]):
                if twice not in MARK:
                    yield twice


def _quoted(text: str) -> Iterator[str]:
    content = _bytes(text)
    yield text
    yield from (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    for shown in (repr(text)[1:-1], ascii(text)[1:-1], repr(content)[2:-1]):
        yield shown
        # Which quotes are escaped depends on the text around the secret.
        plain = shown.replace("\\'", "'").replace('\\"', '"')
        yield from (plain, plain.replace("'", "\\'"), plain.replace('"', '\\"'))
    for quoted in [encode(content, safe) for encode in (quote, quote_plus) for safe in ("/", "")]:
        yield quoted
        yield re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), quoted)
    for entities in (escape(text), escape(text, {'"': "&quot;"}), html.escape(text)):
        yield entities
        yield entities.replace("\n", "&#10;").replace("\r", "&#13;").replace("\t", "&#09;")
    yield text.replace("'", "'\"'\"'")  # as shlex quotes it
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(content).decode()
        yield encoded.rstrip("=")
        yield encoded[: len(content) // 3 * 4]  # the same before anything else: a line break, say


def _bytes(text: str) -> bytes:
    """Encode a text, also one from an environment that is not UTF-8."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
