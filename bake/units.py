"""Run long work on the builder in transient systemd units, which survive a lost SSH connection."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch

from bake.errors import BakeError, RemoteCommandError
from bake.layout import UNIT_LOGS
from bake.run import Run
from bake.ssh import CommandResult, Session
from bake.ssh.channel import PATH

SILENCE = 60  # seconds for which systemd may not answer: the machine shuts down or boots

# A stopping unit has no exit status yet, and gets none if the machine shuts down. A dead one has not begun:
# its start is still queued, since a unit that has ended stays (RemainAfterExit=).
_BUSY = ("dead", "running", "start", "start-pre", "activating", "auto-restart", "stop*", "final*")

# Waits on the machine itself, which notices the end at once and with few round trips. While the unit has
# processes its control group says so: reading that costs the builder a tenth of asking systemd. Both streams
# of a unit that has ended follow, on those of this command, unless others may not read them.
_FOLLOW = """
out={logs}/{unit}.out err={logs}/{unit}.err ended=
group=/sys/fs/cgroup/system.slice/{unit}.service/cgroup.events
for _ in $(seq 1 {ticks}); do
  if read -r populated 2>/dev/null <"$group" && [ "$populated" = "populated 1" ]; then sleep 0.1; continue; fi
  state=$(systemctl show --property=SubState --value {unit})
  case "$state" in {busy}) sleep 0.1 ;; *) ended=yes; break ;; esac
done
echo "Written=$(stat --format=%s "$out" "$err" 2>/dev/null | paste -sd+ -)"
systemctl show --property=LoadState,SubState,ExecMainStatus,Result {unit} || exit
systemctl show --property=CPUUsageNSec,IOReadBytes,IOWriteBytes {unit} || exit
[ -n "$ended" ] && [ -r "$out" ] && [ -r "$err" ] || exit 0
echo @OUTPUT@
cat "$out"
cat "$err" >&2
"""
_OUTPUT = "-- output --"
_FOLLOW = _FOLLOW.replace("@OUTPUT@", _OUTPUT)


# The unit starts only when its input is complete, and only once: this script runs again if the connection
# broke. The input is in a variable, which is memory, and printf is a builtin, so it is in no argument list.
# With a pipe as stdin the unit counts as started only when both ends are open, so nothing waits for that. The
# time limit is for a unit that could not start and never opens its end.
_START = """
export LC_ALL=C
logs=$1 name=$2 size=$3
shift 3
known=$(systemctl show --property=LoadState --value "$name")
[ "$known" != loaded ] || exit 0
mkdir -p -m 755 "$logs"
[ -n "$size" ] || exec "$@"
given=$(cat; printf x)
given=${given%x}
[ "${#given}" -eq "$size" ] || { echo "only ${#given} of $size bytes of the input came" >&2; exit 1; }
rm -f "$logs/$name.stdin"
mkfifo -m 600 "$logs/$name.stdin"
"$@" || exit
trap '' PIPE
printf %s "$given" | timeout 60 sh -c 'exec cat > "$1"' sh "$logs/$name.stdin"
fed=$?
rm -f "$logs/$name.stdin"
[ $fed -eq 0 ] || exit @NOT_FED@
"""
NOT_FED = 97
_START = _START.replace("@NOT_FED@", str(NOT_FED))


# A unit works if within WINDOW seconds it takes this share of one CPU, or moves this many bytes a second from
# and to disks. One that only looks again and again takes less.
WINDOW, SHARE, RATE = 60.0, 0.05, 100_000
UNSET = 2**64 - 1  # systemd's number for what it does not count


@dataclass
class Work:
    """What a unit has done until `at`, by systemd's counters: a silent one may work for hours."""

    at: float
    cpu: float = 0.0
    bytes: int = 0

    def grew(self, facts: Mapping[str, str], now: float) -> bool:
        """Whether it worked since the last look, which is at least a window ago."""
        if (passed := now - self.at) < WINDOW:
            return False
        cpu = _count(facts, "CPUUsageNSec") / 1e9
        moved = _count(facts, "IOReadBytes") + _count(facts, "IOWriteBytes")
        works = cpu - self.cpu >= SHARE * passed or moved - self.bytes >= RATE * passed
        self.at, self.cpu, self.bytes = now, cpu, moved
        return works


def _count(facts: Mapping[str, str], name: str) -> int:
    text = facts.get(name, "")
    return int(text) if text.isdigit() and int(text) != UNSET else 0


class Forgotten(BakeError):
    """The machine no longer knows a unit: it was restarted, which drops transient units."""


@dataclass(frozen=True)
class Unit:
    """A transient unit that was started; its output is in `layout.UNIT_LOGS` on the machine."""

    session: Session
    name: str
    argv: tuple[str, ...]
    started: float

    def wait(
        self,
        on_tick: Callable[[], None] = lambda: None,
        *,
        seconds: float = 2.0,
        talks: bool = False,
        measured: bool = True,
    ) -> CommandResult:
        """Wait until the unit ends; `on_tick` is called about every `seconds`, and its error ends the wait.

        Its output is progress, unless it `talks` whether or not it gets on. So is its work (CPU time, bytes),
        unless that is not `measured` since `on_tick` knows better.

        Raises Forgotten if the machine was restarted meanwhile.
        """
        with self.session.tally.waiting(f"{self.name} to end") as wait:
            silent, work = 0, Work(time.monotonic())
            while True:
                shown = self._follow(seconds)
                if shown.exit_code != 0 and silent < SILENCE:
                    silent += 1
                    wait.say("systemd does not answer")
                    wait.pause(1)
                    continue
                if silent:
                    silent, wait.detail = 0, ""
                facts = _facts(shown.check())
                self._know(facts)
                self._tell(facts, talks=talks)
                if measured and work.grew(facts, time.monotonic()):
                    self.session.tally.moved(f"{self.name} worked")
                on_tick()
                if not any(fnmatch(facts.get("SubState", ""), state) for state in _BUSY):
                    return self._result(facts, shown)

    def _tell(self, facts: Mapping[str, str], *, talks: bool) -> None:
        """Take note of a new state, and of new output."""
        self.session.tally.saw(self.name, facts.get("SubState", ""))
        if not talks:
            self.session.tally.saw(f"output of {self.name}", facts.get("Written", ""))

    def _know(self, facts: Mapping[str, str]) -> None:
        if facts.get("LoadState") == "not-found":
            raise Forgotten(
                f"the builder was restarted while {self.name} ran",
                hint="look at the instance's events in EC2 (maintenance, spot), then bake again",
            )

    def _follow(self, seconds: float) -> CommandResult:
        ticks = max(int(seconds / 0.1), 1)
        script = _FOLLOW.format(ticks=ticks, logs=UNIT_LOGS, unit=self.name, busy="|".join(_BUSY))
        return self.session.run("sh", "-c", script, check=False)

    def _result(self, facts: Mapping[str, str], shown: CommandResult) -> CommandResult:
        """Make the result of what systemd says; `shown` has both streams, or they are fetched."""
        code = int(facts.get("ExecMainStatus") or 1)
        if code == 0 and facts.get("Result") != "success":
            code = 1  # killed by a signal, a timeout or the OOM killer; Result says which
        tail = "" if code == 0 else f"\nsystemd: result {facts.get('Result')}"
        _, brought, out = shown.stdout.partition(f"{_OUTPUT}\n")
        err = shown.stderr if brought else self.output("err")
        out = out if brought else self.output("out")
        return CommandResult(self.argv, code, out, err + tail, time.monotonic() - self.started)

    def output(self, stream: str, *, after: int = 0) -> str:
        """Return what the unit has written to `out` or `err`, without its first `after` bytes."""
        file = f"{UNIT_LOGS}/{self.name}.{stream}"
        return self.session.run("tail", f"--bytes=+{after + 1}", file, sudo=True, check=False).stdout

    def deaf(self) -> RemoteCommandError:
        """Make the error for a unit that did not read its input, with the unit's own output."""
        journal = ("journalctl", "--no-pager", "--output=cat", "--lines=20", f"--unit={self.name}")
        said = self.session.run(*journal, sudo=True, check=False).stdout
        shown = self._follow(0.1)
        result = self._result(_facts(shown), shown)
        code = result.exit_code or 1  # it may hang and still be running
        result = replace(result, exit_code=code, stderr=f"{result.stderr}\n{said}")
        try:
            result.check()
        except RemoteCommandError as error:
            return RemoteCommandError(f"{self.name} did not take its input: {error.message}")
        raise AssertionError("unreachable: its exit code is not 0")

    def save_logs(self, run: Run, result: CommandResult) -> None:
        """Keep both streams in the run directory, unless they are empty."""
        for suffix, text in (("out", result.stdout), ("err", result.stderr)):
            if text:
                run.keep(f"logs/{self.name}.{suffix}.log", text)


def _facts(shown: CommandResult) -> dict[str, str]:
    told, _, _ = shown.stdout.partition(f"{_OUTPUT}\n")
    return dict(line.split("=", 1) for line in told.splitlines() if "=" in line)


def settle(session: Session) -> None:
    """Wait until the machine is up: one that shuts down still answers, but starts no units."""
    state = ""
    with session.tally.waiting(f"{session.login.address} to come up", SILENCE) as wait:
        for _ in range(SILENCE):
            state = session.run("systemctl", "is-system-running", check=False).stdout.strip()
            if state in ("starting", "running", "degraded"):
                return
            wait.say(f"systemd is {state or 'silent'}")
            wait.pause(1)
    raise BakeError(f"the builder {session.login.address} does not come up again: systemd says {state!r}")


def start(
    session: Session,
    name: str,
    *argv: str,
    user: str = "root",
    directory: str = "/",
    environment_file: str | None = None,
    stdin: bytes | None = None,
) -> Unit:
    """Start `argv` as the unit `name` and return at once.

    `stdin` goes through a named pipe in `/run`, which is memory, so it may hold secrets. If the unit does not
    read it, the error has the unit's own output.
    """
    properties = {
        "Type": "exec",
        "RemainAfterExit": "yes",
        "User": user,
        "WorkingDirectory": directory,
        "StandardOutput": f"file:{UNIT_LOGS}/{name}.out",
        "StandardError": f"file:{UNIT_LOGS}/{name}.err",
        # What the unit does is counted, so that a silent one is seen to work.
        "CPUAccounting": "yes",
        "IOAccounting": "yes",
        # The base AMI may have other defaults (system.conf, locale.conf).
        "UMask": "0022",
        "Environment": f"PATH={PATH} LC_ALL=C.UTF-8 TMPDIR=/tmp",
    }
    if environment_file:
        properties["EnvironmentFile"] = environment_file
    if stdin is not None:
        properties["StandardInput"] = f"file:{UNIT_LOGS}/{name}.stdin"
    settings = [f"--property={key}={value}" for key, value in properties.items()]
    # systemd expands $NAME in a unit's command line; $$ is a literal $.
    command = [argument.replace("$", "$$") for argument in argv]
    run = ("systemd-run", "--quiet", "--no-block", f"--unit={name}", *settings, "--", *command)
    started = time.monotonic()
    size = "" if stdin is None else str(len(stdin))
    done = session.run(
        "sh", "-c", _START, "sh", UNIT_LOGS, name, size, *run, stdin=stdin, sudo=True, check=False
    )
    unit = Unit(session, name, argv, started)
    if done.exit_code == NOT_FED:
        raise unit.deaf()
    # If it fails, show this command instead of the start script.
    replace(done, argv=("systemd-run", f"--unit={name}", *argv)).check()
    return unit
