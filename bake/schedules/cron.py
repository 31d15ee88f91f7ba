"""A cron expression in a time zone: when it fires, and how each scheduler writes it."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from bake.errors import UsageError

NAMES = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
FIELDS = 'five fields: minute, hour, day of the month, month, day of the week, such as "0 3 * * 1"'
DAYS, WEEKDAYS = tuple(range(1, 32)), tuple(range(7))
YEAR = timedelta(days=366)


@dataclass(frozen=True)
class Days:
    """Days on which it fires: those that are of `days` and of `weekdays` (0 is Sunday); None: all."""

    days: tuple[int, ...] | None = None
    weekdays: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Cron:
    """A cron expression as Debian's cron reads it, in a time zone; each alternative of `on` fires."""

    text: str
    zone: ZoneInfo
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: tuple[int, ...]
    on: tuple[Days, ...]

    @classmethod
    def parse(cls, text: str, zone: str) -> Cron:
        """Read it. UsageError for what is no cron, never fires, or is known to Debian's cron alone."""
        known, parsed = _zone(zone), _parse(text)
        days, weekdays = _numbers(parsed.days, text), _numbers(parsed.weekdays, text, 7)
        on = _on(days, weekdays, both=parsed.day_and)
        minutes, hours, months = (
            tuple(sorted(found)) for found in (parsed.minutes, parsed.hours, parsed.months)
        )
        return cls(" ".join(text.split()), known, minutes, hours, months, on)

    def next(self, since: datetime, count: int = 3) -> list[datetime]:
        """The next times after `since`, in the zone."""
        found = CronSim(self.text, since.astimezone(self.zone))
        return [when for when, _ in zip(found, range(count), strict=False)]

    def shifts(self, since: datetime) -> Iterator[str]:
        """The times of the next year that a change of the clock skips, or shows twice."""
        for day in _changes(self.zone, since):
            for when in self._of_day(day):
                local = f"{when:%Y-%m-%d %H:%M}"
                if _is_skipped(when, self.zone):
                    yield f"the clock of {self.zone} skips {local}"
                elif _is_twice(when, self.zone):
                    yield f"the clock of {self.zone} shows {local} twice"

    def _of_day(self, day: datetime) -> Iterator[datetime]:
        """The times of a day, by the clock on the wall; none where it fires all the time."""
        if len(self.hours) == 24:
            return
        for when in CronSim(self.text, day - timedelta(minutes=1)):
            if when >= day + timedelta(days=1):
                return
            yield when

    def shortest_gap(self, since: datetime) -> timedelta:
        """The shortest time between two of the next runs."""
        times = [when.astimezone(UTC) for when in self.next(since, 60)]
        return min((later - one for one, later in itertools.pairwise(times)), default=YEAR)

    def calendar(self) -> list[str]:
        """As systemd writes it: any of these. https://www.freedesktop.org/software/systemd/man/systemd.time.html"""
        time = f"{_list(self.hours, 24, '{:02}')}:{_list(self.minutes, 60, '{:02}')}:00"
        months = _list(self.months, 12, "{:02}")
        lines = []
        for one in self.on:
            names = ",".join(NAMES[day] for day in one.weekdays) + " " if one.weekdays else ""
            days = "*" if one.days is None else _list(one.days, 31, "{:02}")
            lines.append(f"{names}*-{months}-{days} {time} {self.zone.key}")
        return lines

    def eventbridge(self) -> list[str]:
        """As EventBridge Scheduler writes it: any of these; days 1 (Sunday) to 7, and one of both fields.

        https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#cron-based
        """
        minutes, hours = _list(self.minutes, 60), _list(self.hours, 24)
        months = _list(self.months, 12)
        return [f"cron({minutes} {hours} {self._aws_days(one, months)} *)" for one in self.on]

    def _aws_days(self, one: Days, months: str) -> str:
        if one.days is not None and one.weekdays is not None:
            raise self._both("EventBridge Scheduler")
        if one.weekdays is not None:
            return f"? {months} {','.join(NAMES[day].upper() for day in one.weekdays)}"
        return f"{'*' if one.days is None else _list(one.days, 31)} {months} ?"

    def posix(self) -> str:
        """As GitHub writes it: days 0 to 6, and any day that one of both day fields names."""
        if any(one.days is not None and one.weekdays is not None for one in self.on):
            raise self._both("GitHub")
        days = next((one.days for one in self.on if one.days is not None), None)
        weekdays = next((one.weekdays for one in self.on if one.weekdays is not None), None)
        fields = [_list(self.minutes, 60), _list(self.hours, 24), _list(days or (), 31) if days else "*"]
        return " ".join([*fields, _list(self.months, 12), _list(weekdays, 7) if weekdays else "*"])

    def _both(self, who: str) -> UsageError:
        return UsageError(
            f"--cron {self.text!r}: {who} can't ask for a day of the month that is also a day of the week",
            hint="name the one or the other",
        )


def _zone(name: str) -> ZoneInfo:
    known = available_timezones()
    if name in known:
        return ZoneInfo(name)
    if not known:
        raise UsageError("this machine knows no time zones", hint="install its package tzdata")
    by_lower = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower().replace(" ", "_"), list(by_lower), 1)
    hint = f"did you mean --zone {by_lower[close[0]]}?" if close else "give its name, such as Europe/Berlin"
    raise UsageError(f"--zone {name!r} is no time zone", hint=hint)


def _parse(text: str) -> CronSim:
    fields = text.split()
    if len(fields) != 5:
        raise UsageError(f"--cron {text!r} has {len(fields)} fields", hint=FIELDS)
    now = datetime.now(UTC)
    try:
        parsed = CronSim(text, now)
        next(parsed)
        return CronSim(text, now)
    except CronSimError as error:
        try:
            CronSim(" ".join([*fields[:3], "*", fields[4]]), now)
        except CronSimError:
            raise UsageError(f"--cron {text!r}: {_said(error)}", hint=FIELDS) from error
        problem: Exception = error
    except StopIteration as error:
        problem = error
    raise _never(text, fields) from problem


def _never(text: str, fields: list[str]) -> UsageError:
    try:
        CronSim(" ".join([*fields[:3], "*", fields[4]]), datetime.now(UTC))
        CronSim(" ".join(["*", "*", "*", fields[3], "*"]), datetime.now(UTC))
    except CronSimError as error:
        return UsageError(f"--cron {text!r}: {_said(error)}", hint=FIELDS)
    return UsageError(
        f"--cron {text!r} never fires: month {fields[3]} has no day {fields[2]}",
        hint="the last day of each month can't be named; the first can: 1",
    )


def _said(error: CronSimError) -> str:
    """What is wrong, such as "bad day-of-week"."""
    said = str(error)
    return f"{said[:1].lower()}{said[1:]}"


def _numbers(values: Iterable[Any], text: str, modulus: int = 0) -> tuple[int, ...]:
    """The numbers of a field; of weekdays 7 is Sunday, too."""
    found = set(values)
    if not all(isinstance(value, int) and value >= 0 for value in found):
        raise UsageError(
            f"--cron {text!r}: L, W and # are not known to every scheduler", hint="name the days by number"
        )
    return tuple(sorted({value % modulus if modulus else value for value in found}))


def _on(days: tuple[int, ...], weekdays: tuple[int, ...], *, both: bool) -> tuple[Days, ...]:
    some_days = None if days == DAYS else days
    some_weekdays = None if weekdays == WEEKDAYS else weekdays
    if both or (some_days is None and some_weekdays is None):
        return (Days(some_days, some_weekdays),)
    # Debian's cron: where neither field begins with a star, either is enough.
    if some_days is None or some_weekdays is None:
        return (Days(),)
    return (Days(days=some_days), Days(weekdays=some_weekdays))


def _list(numbers: Iterable[int], full: int, form: str = "{}") -> str:
    """Numbers as a list; `*` where it is all of them."""
    found = tuple(numbers)
    return "*" if len(found) == full else ",".join(form.format(number) for number in found)


def _changes(zone: ZoneInfo, since: datetime) -> Iterator[datetime]:
    """The days of the next year on which the clock changes, without a zone."""
    first = since.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    for number in range(YEAR.days):
        day = first + timedelta(days=number)
        offsets = {(day + timedelta(days=more)).replace(tzinfo=zone).utcoffset() for more in (0, 1)}
        if len(offsets) > 1:
            yield day


def _is_skipped(when: datetime, zone: ZoneInfo) -> bool:
    there = when.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None)
    return there != when


def _is_twice(when: datetime, zone: ZoneInfo) -> bool:
    offsets = {when.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1)}
    return len(offsets) > 1
