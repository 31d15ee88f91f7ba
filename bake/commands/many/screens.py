"""One screen for several bakes: a table on a terminal, lines with their profile elsewhere, or JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO, Any, cast

from bake.commands.many.lines import line_of
from bake.progress import JsonScreen, Nothing, PlainScreen, Screen

# Of one bake among several, what is long is in its run directory.
LONG = ("plan", "released")


def choose(profiles: Sequence[str], *, as_json: bool) -> Screen:
    """The fitting screen, as for a single bake."""
    if as_json:
        return JsonLines()
    if sys.stderr is None:  # closed by who started this
        return Nothing()
    if sys.stderr.isatty():
        from bake.commands.many.terminal import Table  # rich takes 0.1 s to import

        return Table(profiles)
    return PlainLines(profiles)


class JsonLines(JsonScreen):
    """Prints a JSON object a line on stdout, and on stderr what a bake says there."""

    def show(self, event: dict[str, Any]) -> None:
        if event["event"] != "said":
            super().show(event)
        elif sys.stderr is not None:
            print(f"{event['profile']}: {event['text']}", file=sys.stderr, flush=True)


class Prefixed:
    """A stream that puts a profile's name before each line, and leaves out empty ones."""

    def __init__(self, prefix: str, stream: IO[str]) -> None:
        self._prefix, self._stream, self._rest = prefix, stream, ""

    def write(self, text: str) -> int:
        """Take a text; write the lines that are whole."""
        *lines, self._rest = f"{self._rest}{text}".split("\n")
        for line in lines:
            if line.strip():
                self._stream.write(f"{self._prefix}{line}\n")
        return len(text)

    def flush(self) -> None:
        """Flush the stream behind it."""
        self._stream.flush()


class PlainLines:
    """Prints each bake's lines as a single one does, with the profile before each."""

    def __init__(self, profiles: Sequence[str], stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._width = max(map(len, profiles), default=0)
        self._screens: dict[str, PlainScreen] = {}
        self._whole = PlainScreen(self._stream)

    def show(self, event: dict[str, Any]) -> None:
        if event["event"] in LONG:
            return
        profile = event.get("profile")
        if event["event"] == "summary":
            print(event["text"], file=self._stream, flush=True)
        elif profile is None:
            self._whole.show(event)
        elif (line := line_of(event)) is not None:
            print(line, file=self._prefixed(profile), flush=True)
        else:
            self._screen(profile).show(event)

    def _screen(self, profile: str) -> PlainScreen:
        if profile not in self._screens:
            self._screens[profile] = PlainScreen(self._prefixed(profile))
        return self._screens[profile]

    def _prefixed(self, profile: str) -> IO[str]:
        return cast(IO[str], Prefixed(f"{profile.ljust(self._width)} | ", self._stream))

    def close(self) -> None:
        """Nothing to close."""
