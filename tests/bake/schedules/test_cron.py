"""Cron expressions: when they fire by somebody's clock, and what each scheduler is told."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from bake.errors import UsageError
from bake.schedules.cron import Cron

NOW = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)


def refusal(text: str, zone: str = "UTC") -> UsageError:
    with pytest.raises(UsageError) as caught:
        Cron.parse(text, zone)
    return caught.value


@pytest.mark.parametrize(
    ("text", "systemd", "eventbridge", "github"),
    [
        ("0 3 * * 1", ["Mon *-*-* 03:00:00 UTC"], ["cron(0 3 ? * MON *)"], "0 3 * * 1"),
        ("0 3 * * 7", ["Sun *-*-* 03:00:00 UTC"], ["cron(0 3 ? * SUN *)"], "0 3 * * 0"),
        ("0 3 * * mon-wed", ["Mon,Tue,Wed *-*-* 03:00:00 UTC"], ["cron(0 3 ? * MON,TUE,WED *)"], None),
        ("30 2 1 * *", ["*-*-01 02:30:00 UTC"], ["cron(30 2 1 * ? *)"], "30 2 1 * *"),
        ("0 */6 * JAN *", ["*-01-* 00,06,12,18:00:00 UTC"], ["cron(0 0,6,12,18 * 1 ? *)"], None),
        ("* * * * *", ["*-*-* *:*:00 UTC"], ["cron(* * * * ? *)"], "* * * * *"),
        (
            "0 3 1,15 * 1",
            ["*-*-01,15 03:00:00 UTC", "Mon *-*-* 03:00:00 UTC"],
            ["cron(0 3 1,15 * ? *)", "cron(0 3 ? * MON *)"],
            "0 3 1,15 * 1",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_scheduler_is_told_the_same(
    text: str, systemd: list[str], eventbridge: list[str], github: str | None
) -> None:
    cron = Cron.parse(text, "UTC")
    assert cron.calendar() == systemd
    assert cron.eventbridge() == eventbridge
    if github is not None:
        assert cron.posix() == github


def test_both_days_at_once_can_be_told_to_systemd_alone() -> None:
    cron = Cron.parse("0 3 */2 * 1", "UTC")
    assert cron.calendar()[0].startswith("Mon *-*-01,03,")
    for write, who in ((cron.posix, "GitHub"), (cron.eventbridge, "EventBridge")):
        with pytest.raises(UsageError, match=who):
            write()


@pytest.mark.parametrize(
    "text",
    ["0 3 * * 1", "30 2 1,15 * 5", "*/20 4 * 2 *", "0 0 29 2 *", "0 3 */2 * 1", "59 23 31 12 0"],
)
def test_systemd_fires_when_cron_does(text: str) -> None:
    """As systemd's own calculator says, in a zone without changes of the clock."""
    cron = Cron.parse(text, "Asia/Tokyo")
    base = NOW.strftime("%Y-%m-%d %H:%M:%S UTC")
    command = ["systemd-analyze", "calendar", f"--base-time={base}", "--iterations=3"]
    done = subprocess.run(
        [*command, *cron.calendar()],
        capture_output=True,
        text=True,
        check=True,
        env={"TZ": "UTC", "PATH": "/usr/bin"},
    )
    said = [line.split(": ", 1)[1].strip() for line in done.stdout.splitlines() if "UTC" in line]
    theirs = sorted(
        datetime.strptime(one, "%a %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
        for one in said
        if one[:3].isalpha() and one[4:8].isdigit()
    )
    assert [one.astimezone(UTC) for one in cron.next(NOW)] == sorted(set(theirs))[:3]


def test_times_are_those_of_the_zone() -> None:
    times = Cron.parse("0 3 * * 1", "Europe/Berlin").next(NOW)
    assert [when.isoformat() for when in times] == [
        "2027-03-08T03:00:00+01:00",
        "2027-03-15T03:00:00+01:00",
        "2027-03-22T03:00:00+01:00",
    ]


def test_changes_of_the_clock_are_told() -> None:
    assert list(Cron.parse("30 2 * * *", "Europe/Berlin").shifts(NOW)) == [
        "the clock of Europe/Berlin skips 2027-03-28 02:30",
        "the clock of Europe/Berlin shows 2027-10-31 02:30 twice",
    ]
    for text, zone in (
        ("30 4 * * *", "Europe/Berlin"),
        ("30 2 * * *", "UTC"),
        ("30 2 * * 1", "Europe/Berlin"),
    ):
        assert list(Cron.parse(text, zone).shifts(NOW)) == []


def test_the_shortest_time_between_two_is_known() -> None:
    assert Cron.parse("0 3,4 * * *", "UTC").shortest_gap(NOW) == timedelta(hours=1)
    assert Cron.parse("0 3 29 2 *", "UTC").shortest_gap(NOW) >= timedelta(days=1460)


@pytest.mark.parametrize("text", ["0 3 31 2 *", "0 3 30 2 *", "0 3 31 4,6 *", "0 3 30-31 FEB *"])
def test_what_never_fires_is_refused(text: str) -> None:
    error = refusal(text)
    assert "never fires" in error.message and text.split()[2] in error.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has 0 fields"),
        ("0 3 * *", "has 4 fields"),
        ("0 0 3 * * 1", "has 6 fields"),
        ("@daily", "has 1 fields"),
        ("60 3 * * *", "bad minute"),
        ("0 24 * * *", "bad hour"),
        ("0 3 0 * *", "bad day-of-month"),
        ("0 3 * 13 *", "bad month"),
        ("0 3 * * 8", "bad day-of-week"),
        ("0 3 * * MONDAY", "bad day-of-week"),
        ("0 3 L * *", "L, W and #"),
        ("0 3 * * 1#2", "L, W and #"),
        ("0 3 * * 5L", "L, W and #"),
        ("*/0 3 * * *", "bad minute"),
        ("5-1 3 * * *", "bad minute"),
        ("$(id) 3 * * *", "bad minute"),
    ],
)
def test_what_is_no_cron_is_told_by_its_field(text: str, told: str) -> None:
    error = refusal(text)
    assert told in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Europe/Berln", "did you mean --zone Europe/Berlin?"),
        ("europe/berlin", "did you mean --zone Europe/Berlin?"),
        ("America/New York", "did you mean --zone America/New_York?"),
        ("", "give its name"),
        ("../etc/passwd", ""),
        ("/etc/localtime", ""),
    ],
)
def test_an_unknown_zone_is_told_with_the_nearest(zone: str, hint: str) -> None:
    error = refusal("0 3 * * 1", zone)
    assert "is no time zone" in error.message
    assert hint in (error.hint or "")
