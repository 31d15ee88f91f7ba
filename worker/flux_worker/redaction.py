"""Secrets this process knows, and their removal from everything that is logged or printed."""

from __future__ import annotations

import json
import os
import re
from urllib.parse import quote

_ENVIRONMENT_SECRETS = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
)
_SHORTEST_SECRET = 6  # a shorter one, such as a number or a word, would black out half the log
_USER_AND_PASSWORD = re.compile(r"(?<=://)[^\s/@:\"'<>]{0,256}:(?!\d{1,5}[/?#])[^\s\"'<>]{0,512}@")
_secrets: set[str] = set()


def add_secret(secret: str) -> None:
    """Redact this secret from now on, also where JSON, repr or a URL writes it in another form."""
    for form in (secret, secret.strip()):  # messages often lose a line break at the end
        if len(form.strip()) >= _SHORTEST_SECRET:
            content = form.encode("utf-8", "surrogatepass")
            _secrets.update({form, json.dumps(form)[1:-1], repr(form)[1:-1], repr(content)[2:-1]})
            _secrets.update({quote(content), quote(content, safe="")})


def add_environment_secrets() -> None:
    """Redact the secrets in this process's environment from now on."""
    for name in _ENVIRONMENT_SECRETS:
        add_secret(os.environ.get(name, ""))


def redact(text: str) -> str:
    """The text with `***` in place of every known secret, and of user and password in URLs."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _USER_AND_PASSWORD.sub("***@", text)
