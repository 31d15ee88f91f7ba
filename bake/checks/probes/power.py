"""Find what would power the machine off: units, timers, jobs of cron and at, start scripts, running commands.

Input: `lease`, the name of the units that end a builder, which count whatever they say. Files are read rather
than units asked for: a unit that is switched off today counts, too.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

# A file of these is a unit, or a drop-in of one.
UNITS = (
    "etc/systemd/system",
    "etc/systemd/user",
    "home/*/.config/systemd/user",
    "root/.config/systemd/user",
    "run/systemd/generator",
    "run/systemd/generator.early",
    "run/systemd/generator.late",
    "run/systemd/system",
    "run/systemd/transient",
    "usr/lib/systemd/system",
    "usr/lib/systemd/user",
    "usr/local/lib/systemd/system",
)
SETTINGS = ("etc/systemd/*.conf", "etc/systemd/*.conf.d/*", "usr/lib/systemd/*.conf.d/*")
# Each line of these is, or may be, a command; and systemd's note of a shutdown that is scheduled.
COMMANDS = (
    "etc/anacrontab",
    "etc/cloud/cloud.cfg",
    "etc/cloud/cloud.cfg.d/*",
    "etc/cron.*/*",
    "etc/crontab",
    "etc/init.d/*",
    "etc/rc.d/init.d/*",
    "etc/rc.d/rc.local",
    "etc/rc.local",
    "etc/udev/rules.d/*",
    "run/systemd/shutdown/scheduled",
    "var/lib/cloud/scripts/*/*",
    "var/spool/at/*",
    "var/spool/cron/*",
    "var/spool/cron/*/*",
)
# systemd's own way to power off, which waits to be asked.
ASKED = {"poweroff.target", "halt.target", "exit.target", "runlevel0.target", "shutdown.target"}
ASKED |= {f"systemd-{how}.service" for how in ("poweroff", "halt", "exit")}

# Where a command begins: in a shell, a crontab, or cloud-init's YAML. "do not halt here" is none.
BEGINS = (
    r"""(?:^|[;&|({`"'/\[,]\s*|mode\s*[:=]\s*"""
    r"""|(?:^|\s)(?:-\S*|then|do|else|sudo|exec|nohup|root|@\w+|[*\d]+)\s+)"""
)
OFF = re.compile(
    BEGINS
    + r"""(?:shutdown["'\s]*$|(?:poweroff|halt)\s*(?:$|[;&|)}`"'\]>\#]|\s-|\d>))|(?<![\w.-])(?:
        systemctl\s[^;&|\n]*(?:poweroff|halt|hibernate)\b
      | shutdown(?!\.)(?:\s+-[hHPt]\b|\s+--(?:poweroff|halt)|\s+(?:now|\+?\d))
      | (?:tel)?init\s+0\b
      | reboot\s+(?:-p\b|--poweroff|--halt)
      | (?:stop|terminate)-instances\b
      | Power[oO]ff\b
      | echo\s+["']?o["']?\s*>+\s*/proc/sysrq-trigger
    )""",
    re.VERBOSE,
)
ACTION = re.compile(r"^\w*Action\s*=\s*(?:poweroff|halt|exit)\b")
EXEC = re.compile(r"^Exec\w+\s*=\s*[-@:+!|]*(.*)")
NAMES = re.compile(
    r"^(?:Unit|Wants|Requires|Requisite|BindsTo|Upholds|OnFailure|OnSuccess)\s*=.*"
    r"\b(?:poweroff|halt|runlevel0)\.target|^Unit\s*=.*systemd-(?:poweroff|halt)\.service"
)
PATH = re.compile(r"/[\w.+@/-]+")
LARGEST = 1 << 20  # bytes of a script
DEPTH = 3  # a script that runs a script


def lines_of(path: Path) -> list[str]:
    """The lines of a text file, without comments; none of a program or of what can't be read."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return []
        content = path.read_bytes()
    except OSError:
        return []
    if b"\0" in content[:4096]:
        return []
    text = content.decode(errors="replace").replace("\\\n", " ")
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith(("#", ";"))]


def off(command: str, depth: int = DEPTH) -> list[str]:
    """What in a command powers off: itself, or lines of the scripts that it names."""
    found = [command] if OFF.search(command) else []
    for script in scripts(command) if depth else ():
        found += [f"{script}: {line}" for line in lines_of(script) if OFF.search(line)]
        if depth > 1 and is_script(script):
            found += [more for line in lines_of(script) for more in off(line, depth - 2)]
    return found


def scripts(command: str) -> list[Path]:
    """The files that a command names by their path, and the one that its first word is."""
    try:
        words = [word for word in shlex.split(command) if word != "sudo"]
    except ValueError:
        words = command.split()
    first = shutil.which(words[0]) if words else None
    named = [
        Path(path) for path in PATH.findall(command) if not path.startswith(("/dev/", "/proc/", "/sys/"))
    ]
    return list(dict.fromkeys([*named, *([Path(first)] if first else [])]))


def is_script(path: Path) -> bool:
    """Whether the file begins as scripts of a shell do."""
    try:
        with path.open("rb") as file:
            return re.match(rb"#!.*sh\b", file.readline(100)) is not None
    except OSError:
        return False


def of_unit(path: Path) -> list[str]:
    """The lines of a unit or a drop-in that power off."""
    found = []
    for line in lines_of(path):
        command = EXEC.match(line)
        if ACTION.match(line) or NAMES.match(line):
            found.append(line)
        elif command:
            found += off(command[1])
    return found


def units(lease: str) -> Iterator[tuple[str, list[str]]]:
    """Units that power off, and links that start what does."""
    for path in (path for place in UNITS for top in Path("/").glob(place) for path in top.rglob("*")):
        if path.name.startswith(lease):
            yield str(path), ["the lease of a builder"]
        elif path.is_symlink() and path.name != "runlevel0.target":
            target = path.resolve().name
            started = path.parent.name.endswith((".wants", ".requires")) or path.name != target
            if target in ASKED - {"shutdown.target"} and started:
                yield str(path), [f"leads to {target}"]
        elif path.is_file() and not (path.name in ASKED and path.parts[1] == "usr"):
            yield str(path), of_unit(path)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Jobs, start scripts and settings that power off."""
    for path in (path for place in COMMANDS for path in Path("/").glob(place)):
        # Words before the command, as a crontab has them, do no harm: scripts are found by their paths.
        yield str(path), [found for line in lines_of(path) for found in off(line)]
    for path in (path for place in SETTINGS for path in Path("/").glob(place)):
        yield str(path), [line for line in lines_of(path) if ACTION.match(line)]


def processes() -> Iterator[tuple[str, list[str]]]:
    """Commands that run now and power off later."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it has ended
            continue
        yield f"process: {command[:200]}", [command] if OFF.search(command) else []


def main() -> None:
    """Print what was found: where -> a hash of its lines, and where -> the first line."""
    given = json.load(sys.stdin)
    every = [*units(given["lease"]), *commands(), *processes()]
    found = {where: sorted(set(lines)) for where, lines in every if lines}
    hashed = {where: hashlib.sha256("\n".join(lines).encode()).hexdigest() for where, lines in found.items()}
    print(json.dumps({"powers_off": hashed, "lines": {where: lines[0] for where, lines in found.items()}}))


main()
