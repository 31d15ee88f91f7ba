"""Log in to a launched instance, and fail within seconds if its base AMI can't be baked.

These checks cost seconds; the same failure later would cost the download. Nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

from bake import retries
from bake.aws import Aws, call_errors
from bake.checks.case_list import CONNECT
from bake.checks.cases import Case, Cases, recording
from bake.errors import BakeError
from bake.instance import describe
from bake.planning.plan import Plan
from bake.run import Run
from bake.ssh import CommandResult, NoShell, Session, connect
from bake.ssh.login import named
from bake.steps import create_image
from bake.steps.launch import Instance
from bake.systems import SYSTEMS

# The first with transient units of Type=exec: https://github.com/systemd/systemd/blob/main/NEWS
SYSTEMD = 240
PYTHON = (3, 9)  # the system's; programs that are sent to the machine need at least this
LOOK = 10.0  # seconds for asking EC2 about a machine that does not answer
TICK = 5  # seconds between two looks at cloud-init

_GREETING = """
sed 's/^/os./' /etc/os-release
echo "systemd=$(systemctl --version | sed -nE '1s/^systemd ([0-9]+).*/\\1/p')"
echo "python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1 | tail -n 1)"
"""

# Waits for the end of cloud-init; after a tick it prints what is still running, and for how long.
_CLOUD_INIT = """
timeout "$1" cloud-init status --wait >/dev/null
[ $? -eq 124 ] || exec cloud-init status --long
systemctl list-jobs --plain --no-legend | while read -r _ unit _ state; do
  [ "$state" = running ] || continue
  group=/sys/fs/cgroup$(systemctl show --property=ControlGroup --value "$unit")
  process=$(find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -n | tail -n 1)
  echo "job=$unit$(ps -o etimes=,args= -p "$process" 2>&1 | sed -nE 's/^ *([0-9]+) +(.*)/: \\2, \\1 s/p')"
done
exit 124
"""


class WrongMachine(BakeError):
    """The machine answers, but has another system than the profile says, or did not come up."""


class MachineGone(BakeError):
    """EC2 says that the instance is no longer running."""


class Watch:
    """Asks EC2 whether an instance that does not answer still runs; if not, keeps its console output."""

    def __init__(self, instance: Instance, aws: Aws, run: Run) -> None:
        self._instance, self._aws, self._run = instance, aws, run

    def __call__(self) -> None:
        """Raise MachineGone if it was stopped, terminated or interrupted."""
        instance = self._instance.id
        try:
            with retries.until(time.monotonic() + LOOK):
                facts = describe(self._aws, instance)
        except call_errors():
            return  # the caller's own time limit applies
        state = facts["State"]["Name"] if facts else "terminated"
        if state in ("pending", "running"):
            return
        keep_console(self._instance, self._aws, self._run)
        reason = (facts or {}).get("StateReason", {})
        raise gone(self._instance, state, reason.get("Code", ""), reason.get("Message", ""))


def gone(instance: Instance, state: str, code: str, message: str) -> MachineGone:
    """Make the error for an instance that ended, with EC2's own reason (StateReason)."""
    how = "stopped" if state in ("stopping", "stopped") else "terminated"
    spot = "spot" in code.lower()
    told = message if message.startswith(code) else f"{code}: {message}" if message else code
    hint = "this bake did not end it: CloudTrail names who did; its console output is in the run directory"
    if spot:
        hint = "bake again, or on demand (builder.market); a mirror of the weights saves their download"
    return MachineGone(
        f"the {instance.role} {instance.id} was {'interrupted by spot and ' if spot else ''}{how}"
        f" ({told or 'EC2 gives no reason'})",
        hint=hint,
    )


def keep_console(instance: Instance, aws: Aws, run: Run) -> None:
    """Keep the machine's console output in the run directory, as far as EC2 has it."""
    for latest in ({"Latest": True}, {}):  # instances not built on Nitro have only the delayed output
        try:
            with retries.until(time.monotonic() + LOOK):
                answer = aws.ec2.get_console_output(InstanceId=instance.id, **latest)
        except call_errors():
            continue  # gone or forbidden: the caller's error matters more
        run.keep(f"logs/{instance.role}.console.log", answer.get("Output", ""))
        return


def connect_to_builder(builder: Instance, plan: Plan, aws: Aws, run: Run) -> Session:
    """Log in to the builder, once EC2 says that an AMI may be made of it."""
    with (
        run.progress.step("connect"),
        recording(run, "base", "connect", CONNECT, plan.verify.waivers) as cases,
    ):
        check_source(builder, plan.launch.base.id, aws, cases)
        create_image.check_right(plan, aws, run, builder)
        return log_in(builder, plan, aws, run, cases)


def check_source(instance: Instance, image: str, aws: Aws, cases: Cases) -> str | None:
    """Compare the AMI that EC2 says an instance runs from; return its type, as far as EC2 answers."""
    with cases.case("system.image") as case:
        try:
            with retries.until(time.monotonic() + LOOK):
                facts = describe(aws, instance.id)
        except call_errors() as error:
            case.untold = f"EC2 did not tell: {error}"
            return None
        found = (facts or {}).get("ImageId", "nothing")
        case(image, found, f"DescribeInstances of {instance.id}")
        if facts is not None and found != image:
            raise WrongMachine(
                f"{instance.id} was launched from {found}, and not from {image}",
                hint="nothing was installed; look in CloudTrail who launched it",
            )
        return str(facts["InstanceType"]) if facts is not None else None


def log_in(instance: Instance, plan: Plan, aws: Aws, run: Run, cases: Cases | None = None) -> Session:
    """Connect with the pinned host keys, check the system, and wait until cloud-init has finished.

    `cases` records what was found. Raises WrongMachine if the machine can't be baked: another operating
    system than the profile says, too old a systemd, a login shell that runs something else, no sudo, or a
    cloud-init that fails or does not end.
    """
    cases = cases or Cases("base")
    session = _connect(instance, aws, run, cases)
    try:
        with cases.case("system.os") as case:
            _greet(session, instance, case)
        with cases.case("users.becomes_root") as case:
            _may_sudo(session, case)
        with cases.case("system.cloud_init") as case:
            limit = 60 * plan.profile.builder.cloud_init_wait_minutes
            _wait_for_cloud_init(session, instance, run, limit, case)
    except BaseException as error:
        if isinstance(error, BakeError):
            with suppress(BakeError):
                keep_console(instance, aws, run)
        session.close()
        raise
    return session


def _connect(instance: Instance, aws: Aws, run: Run, cases: Cases) -> Session:
    """Log in as soon as the machine answers with one of the host keys that were made for it."""
    watch = Watch(instance, aws, run)
    users = tuple(system.user for system in SYSTEMS.values())
    try:
        with cases.case("security.host_key") as case:
            session = connect(instance.login, run.progress.tally, other_users=users, watch=watch)
            keys = [named(key) for key in instance.login.host_keys]
            case(f"one of {', '.join(keys)}", "one of them, or no login", "the SSH handshake")
            return session
    except BakeError:
        keep_console(instance, aws, run)
        raise


def _greet(session: Session, instance: Instance, case: Case) -> None:
    """Run a first command, and check the system that it reports."""
    try:
        lines = session.run("sh", "-c", _GREETING).stdout.splitlines()
    except NoShell as error:
        raise WrongMachine(error.message, hint=error.hint) from error
    facts = {key: value.strip("'\"") for key, _, value in (line.partition("=") for line in lines)}
    wanted = f"{instance.system.title} (ID={' or '.join(sorted(instance.system.os_ids))})"
    found = f"{facts.get('os.PRETTY_NAME')} (ID={facts.get('os.ID')}), user {session.login.user}"
    case(f"{wanted}, user {instance.system.user}", found, "/etc/os-release and the login")
    _check_system(facts, session, instance)
    _check_age(facts, instance)


def _check_system(facts: Mapping[str, str], session: Session, instance: Instance) -> None:
    """Compare `/etc/os-release` with the profile: scripts and users differ between systems."""
    wanted, user = instance.system, session.login.user
    if facts.get("os.ID") in wanted.os_ids and user == wanted.user:
        return
    found = f"{facts.get('os.PRETTY_NAME', 'an unknown system')} (ID={facts.get('os.ID')}) with user {user}"
    raise WrongMachine(
        f"{instance.id} runs {found}; the profile says {wanted.title} with user {wanted.user}",
        hint="name another AMI in base.ami, or the AMI's own system in base.os; nothing was installed",
    )


def _check_age(facts: Mapping[str, str], instance: Instance) -> None:
    """Refuse a system that is too old for the bake's tools, such as Amazon Linux 2."""
    named = f"{instance.id} runs {facts.get('os.PRETTY_NAME', 'an unknown system')}"
    oldest = ", ".join(system.oldest for system in SYSTEMS.values())
    hint = f"{oldest} and newer have both; name such an AMI in base; nothing was installed"
    systemd, python = facts.get("systemd", ""), facts.get("python", "")
    if not systemd.isdigit() or int(systemd) < SYSTEMD:
        raise WrongMachine(
            f"{named} with systemd {systemd or 'that does not answer'}; {SYSTEMD} or newer is needed",
            hint=hint,
        )
    version = tuple(int(part) for part in python.split(".") if part.isdigit())
    if version < PYTHON:
        wanted = ".".join(map(str, PYTHON))
        raise WrongMachine(
            f"{named}, whose python3 is {python or 'not there'}; {wanted} or newer is needed", hint=hint
        )


def _may_sudo(session: Session, case: Case) -> None:
    done = session.run("true", sudo=True, check=False)
    case("exit code 0", f"exit code {done.exit_code}", "sudo -n true")
    if done.exit_code:
        said = " ".join((done.stderr or done.stdout).split()) or "sudo says nothing"
        raise WrongMachine(
            f"{session.login.user} can't become root on {session.login.address}: {said}",
            hint="the base AMI's sudoers must let it without a password (NOPASSWD) and without a terminal "
            "(no requiretty)",
        )


def _wait_for_cloud_init(session: Session, instance: Instance, run: Run, limit: int, case: Case) -> None:
    """Wait until it ends, and show what is still running; `limit` is in seconds."""
    with run.progress.tally.waiting("cloud-init", limit) as wait:
        while True:
            done = session.run("sh", "-c", _CLOUD_INIT, "sh", str(TICK), sudo=True, check=False)
            running = [line[4:] for line in done.stdout.splitlines() if line.startswith("job=")]
            if done.exit_code != 124:
                break
            what = "; ".join(running) or "nothing that systemd knows of"
            wait.say(what)
            if wait.seconds > limit:
                raise WrongMachine(
                    f"cloud-init did not end on {instance.id} within {limit} s; still running: {what}\n"
                    f"{_status(session)}",
                    hint="mend that unit on the base AMI; builder.cloud_init_wait_minutes sets the limit",
                )
    said = " ".join(done.stdout.split()) or "nothing"
    case(
        "exit code 0, or 2 for what it could recover", f"{done.exit_code}: {said}", "cloud-init status --long"
    )
    _judge_cloud_init(done, session, instance, run)


def _judge_cloud_init(done: CommandResult, session: Session, instance: Instance, run: Run) -> None:
    """Judge by the exit code: 1 means failed, 2 means done with recoverable errors."""
    if done.exit_code == 2:
        lines = [line.strip() for line in done.stdout.splitlines()]
        errors = [line for line in lines if line.startswith("- ")]
        run.progress.note(f"cloud-init is done, with warnings: {' '.join(errors) or ' '.join(lines)}")
    elif done.exit_code:
        log = session.run("tail", "-n", "40", "/var/log/cloud-init-output.log", sudo=True, check=False).stdout
        run.keep(f"logs/{instance.role}.cloud-init-output.log", log)
        raise WrongMachine(
            f"cloud-init failed on {instance.id}:\n{(done.stdout or done.stderr).strip()}",
            hint=f"see logs/{instance.role}.cloud-init-output.log in the run directory; the base AMI, or "
            "what its vendor data asks for, must be mended",
        )


def _status(session: Session) -> str:
    return session.run("cloud-init", "status", "--long", sudo=True, check=False).stdout.strip()
