"""A service and a timer of systemd for each profile, and a unit that tells of a failure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from bake.errors import UsageError
from bake.schedules.definition import Definition, Scheduled, Written
from bake.schedules.rendering import render

USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)
# The ends of the units' names, and their templates.
UNITS = {
    ".service": "service.j2",
    ".timer": "timer.j2",
    "-failed.service": "failed.j2",
    "-sweep.service": "sweep.j2",
}
HOMES = ("/home", "/root", "/run/user")


def write(definition: Definition) -> Written:
    """The units. UsageError for a user or a program that no unit can have."""
    user, program = definition.option("user"), Path(definition.option("program") or "")
    if problems := list(_problems(definition, user, program)):
        raise UsageError("\n".join(problems), hint="see bake schedule --help")
    files = {}
    for one in definition.profiles:
        values = _values(definition, one, user, program)
        for unit, template in UNITS.items():
            files[Path("systemd") / f"bake-{one.name}{unit}"] = render(template, **values)
    return Written(files, tuple(_next(definition)), tuple(_notes(definition, user, program)))


def _values(definition: Definition, one: Scheduled, user: str | None, program: Path) -> dict[str, object]:
    folder = Path.cwd()
    words = ["--profiles", str(definition.directory.absolute())]
    sweep = [*words]
    if not definition.rehearsal:
        words += ["--env-file", "${CREDENTIALS_DIRECTORY}/env.local", "--runs", "${STATE_DIRECTORY}/runs"]
        sweep += ["--env-file", "${CREDENTIALS_DIRECTORY}/env.local"]
    how = ["--rehearse"] if definition.rehearsal else ["--if-changed"]
    rehearsed = ["--rehearse"] if definition.rehearsal else []
    return {
        "name": one.name,
        "folder": plain(str(folder)),
        "state": f"bake/{one.name}",
        "env_file": plain(str(definition.env_file.absolute())),
        "user": user,
        "rehearsal": definition.rehearsal,
        "minutes": one.minutes,
        "calendar": definition.cron.calendar(),
        "cron": definition.cron,
        "start": command(str(program), *words, "--profile", one.name, *how, "--exclusive"),
        "preview": command(str(program), *sweep, "sweep", "--profile", one.name, *rehearsed),
    }


def plain(path: str) -> str:
    """A path as a setting of a unit takes it, where `%` begins a specifier."""
    return path.replace("%", "%%")


def command(*words: str) -> str:
    """A command line as ExecStart= takes it; `${NAME}` of ours stay variables."""
    return " ".join(_word(word) for word in words)


def _word(word: str) -> str:
    escaped = plain(word)
    if not re.match(r"\$\{[A-Z_]+\}", word):
        escaped = escaped.replace("$", "$$")
    if re.search(r"[\s\"'\\;]", escaped):
        return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return escaped


def _problems(definition: Definition, user: str | None, program: Path) -> Iterator[str]:
    if user is not None and not USER.fullmatch(user):
        yield f"--user {user!r} is no name of a user"
    if user is not None and definition.rehearsal:
        yield "--user: a rehearsal needs root"
    if not program.is_absolute():
        yield f"--program {str(program)!r} is no absolute path"
    places = (str(program), str(Path.cwd()), str(definition.directory), str(definition.env_file))
    if bad := [place for place in places if not place.isprintable()]:
        yield f"{bad[0]!r} can't be in a unit"


def _notes(definition: Definition, user: str | None, program: Path) -> Iterator[str]:
    if definition.rehearsal:
        yield "a rehearsal is root's and makes machines: its service is hardly hardened"
        return
    if not definition.env_file.exists():
        yield f"{definition.env_file} is not there, and without it the service does not start"
    if user is None:
        yield (
            "the service has a user of its own (DynamicUser) and no home: AWS knows it by the role of this "
            "machine; with keys or a profile of AWS in a home, give --user"
        )
        private = [str(one) for one in (program, definition.directory.absolute()) if _in_home(one)]
        if private:
            yield (
                f"{' and '.join(private)}: in a home, which the service's user may not enter; put it "
                "elsewhere, such as in /opt and /srv, or give --user"
            )
    yield (
        "a time that the clock skips is left out, and one that it shows twice comes once; a bake that was "
        "due while the machine was off begins when it is on again"
    )


def _in_home(path: Path) -> bool:
    return str(path).startswith(HOMES)


def _next(definition: Definition) -> Iterator[str]:
    units = " ".join(f"bake-{one.name}.timer" for one in definition.profiles)
    yield "sudo install -m 0644 systemd/bake-* /etc/systemd/system/"
    yield "write into bake-….-failed.service what reaches you: it logs, and no more".replace("….", "…")
    yield f"sudo systemctl daemon-reload && sudo systemctl enable --now {units}"
    yield f"try it now: sudo systemctl start --no-block bake-{definition.profiles[0].name}.service"
