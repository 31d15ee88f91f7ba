"""Text of machines is shown harmlessly."""

from __future__ import annotations

import sys
import unicodedata
from xml.etree import ElementTree

import pytest

from bake.report.text import UNSAFE, line, visible

# Format characters that are drawn: signs of Arabic, Syriac, Kaithi, hieroglyphs, shorthand and music.
DRAWN = ("ARABIC", "SYRIAC", "KAITHI", "EGYPTIAN", "SHORTHAND", "MUSICAL")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcode and 日本語 with a 🙂", "plain, ünïcode and 日本語 with a 🙂"),
        ("\x1b[31mred\x00", "\\x1b[31mred\\x00"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("one\ntwo\tthree\r", "one\ntwo\tthree\\r"),
        ("\ud800 lone", "\\ud800 lone"),
        ("\U0001ffff", "\\U0001ffff"),
        ("\x85\x9b2J\x7f", "\\x85\\x9b2J\\x7f"),
        ("ad\u200bmin\ufeff", "ad\\u200bmin\\ufeff"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_is_unseen_or_harmful_becomes_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_every_character_that_unicode_calls_a_control_or_unseen_is_replaced() -> None:
    kept = {
        code
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp") and not UNSAFE.match(chr(code))
    }
    drawn = {code for code in kept if unicodedata.name(chr(code), "").startswith(DRAWN)}
    assert kept - drawn == {0x09, 0x0A}
    assert not any(unicodedata.bidirectional(chr(code)) in ("LRE", "RLO", "PDF", "RLI") for code in drawn)


def test_what_is_printable_stays_as_it_is() -> None:
    letters = "".join(chr(code) for code in range(sys.maxunicode + 1) if chr(code).isprintable())
    assert visible(letters) == letters


def test_the_result_can_be_encoded_and_put_into_xml() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    element = ElementTree.Element("a")
    element.text = visible(everything)
    assert ElementTree.fromstring(ElementTree.tostring(element, "utf-8")).text == element.text


def test_a_long_text_is_cut_and_says_how_much_is_missing() -> None:
    assert visible("a" * 1_000_000, 10) == "aaaaaaaaaa… [999,990 characters more left out]"
    assert visible("a" * 99 + "end", 5, keep="end") == "[97 characters before this left out] …aaend"
    assert visible("a" * 10, 10) == "a" * 10
    assert visible("", 0) == ""


def test_the_limit_counts_what_is_shown() -> None:
    assert visible("\x00" * 100, 10) == "\\x00\\x00… [98 characters more left out]"
    assert visible("a" + "\x00" * 100, 10, keep="end") == "[99 characters before this left out] …\\x00\\x00"


def test_a_line_has_no_newline() -> None:
    assert line("one\ntwo\t\x1b") == "one\\ntwo\\t\\x1b"
