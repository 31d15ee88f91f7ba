"""Make text of machines safe to show: in HTML, Markdown, XML and on a terminal.

What a machine holds is written by others: names of packages, logs, answers of commands. Each format escapes
its own markup; this module replaces what no format may pass on, and what deceives the eye.
"""

from __future__ import annotations

import re
from typing import Literal

_PLANES = "".join(f"\\U{plane:04x}fffe\\U{plane:04x}ffff" for plane in range(1, 17))
UNSAFE = re.compile(
    "["
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, without tab and newline
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of text
    r"\u00ad\u180e\u200b-\u200d\u2060-\u2065\u206a-\u206f\ufeff\U000e0000-\U000e007f"  # unseen
    r"\u2028\u2029\ufff9-\ufffb"  # separators and annotations
    r"\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"  # lone surrogates and what is no character (Unicode 23.7)
    f"{_PLANES}]"
)
"""Characters that `visible` replaces."""


def visible(text: str, limit: int | None = None, *, keep: Literal["start", "end"] = "start") -> str:
    r"""Replace what is unseen or harmful by escapes as Python writes them: `\x1b`, `\u202e`.

    Tabs and newlines stay. A `limit` is the most characters of the result that are shown, of the start or of
    the end; a note beside them says how many characters of `text` were left out.
    """
    if limit is None:
        return UNSAFE.sub(_escape, text)
    size = _fitting(text, limit, keep)
    if size == len(text):
        return UNSAFE.sub(_escape, text)
    rest = f"{len(text) - size:,} characters"
    if keep == "end":
        return f"[{rest} before this left out] …{UNSAFE.sub(_escape, text[len(text) - size :])}"
    return f"{UNSAFE.sub(_escape, text[:size])}… [{rest} more left out]"


def line(text: str, limit: int | None = None) -> str:
    r"""Like `visible`, on one line: newlines and tabs become `\n` and `\t`, too."""
    return visible(text, limit).replace("\n", "\\n").replace("\t", "\\t")


def _fitting(text: str, limit: int, keep: Literal["start", "end"]) -> int:
    """How many characters of that end of `text` take at most `limit` once they are escaped."""
    cut = text[:limit] if keep == "start" else text[max(len(text) - limit, 0) :]
    if len(UNSAFE.sub(_escape, cut)) <= limit:
        return len(cut)
    taken = 0
    for count, letter in enumerate(cut if keep == "start" else reversed(cut)):
        taken += len(UNSAFE.sub(_escape, letter))
        if taken > limit:
            return count
    return len(cut)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code == 0x0D:
        return "\\r"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
