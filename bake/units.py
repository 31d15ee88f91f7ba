"""Long work on the builder as transient systemd units: a dropped SSH connection costs nothing."""

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

SILENCE = 60  # seconds in which systemd may be deaf: a machine that goes down or comes up

# A unit that is stopping has no exit status yet; on a machine that goes down it will not get one either.
# One that is dead has not begun: its start is still queued, and one that has ended stays (RemainAfterExit=).
_BUSY = ("dead", "running", "start", "start-pre", "activating", "auto-restart", "stop*", "final*")

# Waits on the machine itself, so that its end is seen at once with few round trips.
_FOLLOW = """
for _ in $(seq 1 {ticks}); do
  state=$(systemctl show --property=SubState --value {unit})
  case "$state" in {busy}) sleep 0.1 ;; *) break ;; esac
done
systemctl show --property=LoadState,SubState,ExecMainStatus,Result {unit}
"""


# The input is whole before anything is started, and that is started once: where a connection broke, this is
# run again. A variable is memory, and `printf` the shell's own, so it is in no argument list either.
# With a pipe as stdin the unit counts as started only once both ends are open, so nobody waits for that; the
# time limit is for a unit that could not start and so never opens its end.
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


class Forgotten(BakeError):
    """The machine does not know a unit any more: it was restarted, and transient units do not last."""


@dataclass(frozen=True)
class Unit:
    """A transient unit that was started; its output is kept on the machine in `layout.UNIT_LOGS`."""

    session: Session
    name: str
    argv: tuple[str, ...]
    started: float

    def wait(self, on_tick: Callable[[], None] = lambda: None, *, seconds: float = 2.0) -> CommandResult:
        """Wait for the end; `on_tick` is called about every `seconds`, and what it raises ends the wait.

        Forgotten when the machine was restarted meanwhile.
        """
        silent = 0
        while True:
            shown = self._follow(seconds)
            if shown.exit_code != 0 and silent < SILENCE:
                silent += 1
                time.sleep(1)
                continue
            facts = dict(line.split("=", 1) for line in shown.check().stdout.splitlines() if "=" in line)
            self._know(facts)
            on_tick()
            if not any(fnmatch(facts.get("SubState", ""), state) for state in _BUSY):
                return self._result(facts)
            silent = 0

    def _know(self, facts: Mapping[str, str]) -> None:
        if facts.get("LoadState") == "not-found":
            raise Forgotten(
                f"the builder was restarted while {self.name} ran",
                hint="look at the instance's events in EC2 (maintenance, spot), then bake again",
            )

    def _follow(self, seconds: float) -> CommandResult:
        ticks = max(int(seconds / 0.1), 1)
        script = _FOLLOW.format(ticks=ticks, unit=self.name, busy="|".join(_BUSY))
        return self.session.run("sh", "-c", script, check=False)

    def _result(self, facts: Mapping[str, str]) -> CommandResult:
        code = int(facts.get("ExecMainStatus") or 1)
        if code == 0 and facts.get("Result") != "success":
            code = 1  # killed by a signal, a timeout or the OOM killer: `Result` says which
        tail = "" if code == 0 else f"\nsystemd: result {facts.get('Result')}"
        return CommandResult(
            self.argv,
            code,
            self.output("out"),
            self.output("err") + tail,
            time.monotonic() - self.started,
        )

    def output(self, stream: str, *, after: int = 0) -> str:
        """What the unit wrote so far to `out` or `err`, without its first `after` bytes."""
        file = f"{UNIT_LOGS}/{self.name}.{stream}"
        return self.session.run("tail", f"--bytes=+{after + 1}", file, sudo=True, check=False).stdout

    def deaf(self) -> RemoteCommandError:
        """The error of a unit that ended, or hung, without taking its input: with what it said itself."""
        journal = ("journalctl", "--no-pager", "--output=cat", "--lines=20", f"--unit={self.name}")
        told = self.session.run(*journal, sudo=True, check=False).stdout
        facts = dict(line.split("=", 1) for line in self._follow(0.1).stdout.splitlines() if "=" in line)
        result = self._result(facts)
        code = result.exit_code or 1  # it hung, and may be running still
        result = replace(result, exit_code=code, stderr=f"{result.stderr}\n{told}")
        try:
            result.check()
        except RemoteCommandError as error:
            return RemoteCommandError(f"{self.name} did not take its input: {error.message}")
        raise AssertionError("unreachable: its exit code is not 0")

    def save_logs(self, run: Run, result: CommandResult) -> None:
        """Keep both streams in the run directory; an empty file says that the unit was silent."""
        for suffix, text in (("out", result.stdout), ("err", result.stderr)):
            run.keep(f"logs/{self.name}.{suffix}.log", text)


def settle(session: Session) -> None:
    """Wait until the machine is up: one on its way down still answers, and starts nothing any more."""
    state = ""
    for _ in range(SILENCE):
        state = session.run("systemctl", "is-system-running", check=False).stdout.strip()
        if state in ("starting", "running", "degraded"):
            return
        time.sleep(1)
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

    `stdin` travels through a named pipe in `/run` (memory, never a disk) and is the way for secrets. A unit
    that could not take it is shown with what it said itself.
    """
    properties = {
        "Type": "exec",
        "RemainAfterExit": "yes",
        "User": user,
        "WorkingDirectory": directory,
        "StandardOutput": f"file:{UNIT_LOGS}/{name}.out",
        "StandardError": f"file:{UNIT_LOGS}/{name}.err",
        # The base's own defaults may be others (system.conf, locale.conf).
        "UMask": "0022",
        "Environment": f"PATH={PATH} LC_ALL=C.UTF-8 TMPDIR=/tmp",
    }
    if environment_file:
        properties["EnvironmentFile"] = environment_file
    if stdin is not None:
        properties["StandardInput"] = f"file:{UNIT_LOGS}/{name}.stdin"
    settings = [f"--property={key}={value}" for key, value in properties.items()]
    # systemd replaces $NAME in a unit's command line; what is meant for the command is doubled.
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
    # Nothing is echoed: what a command prints is shown when it fails, the start-up script is not.
    replace(done, argv=("systemd-run", f"--unit={name}", *argv)).check()
    return unit
