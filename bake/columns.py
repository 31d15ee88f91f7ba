"""Align text in columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """A line for each row, indented; the last cell is not padded."""
    lines = list(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns with a header."""
    return "\n".join(columns([header, *rows]))
