"""The command line: parse options, run commands, and turn every error into a message and an exit code."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from bake.errors import (
    EXIT_BUG,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    BakeError,
    Interrupted,
    LeftBehind,
    UsageError,
    disk_full,
)
from bake.localcloud import Delays, asked_delays, delays, trust_guests, trusted
from bake.redaction import redact

if TYPE_CHECKING:
    from bake.request import BakeRequest

# Import boto3, paramiko, pydantic, rich and moto inside the commands, so that `bake --help` stays fast.


GIVEN = "bake.given"
NOTHING_KEPT = "everything that was created has been removed"


class LazyGroup(click.Group):
    """Loads a command's module only when that command is called or its help is shown."""

    lazy: ClassVar = {
        "boot-check": ("bake.commands.boot_check", "boot_check", "Prove or condemn an unproven AMI."),
        "attest": ("bake.commands.attest", "attest", "Check an AMI's bytes against its attestation."),
        "approve": ("bake.commands.approve", "approve", "Record what a profile may use."),
        "channels": ("bake.commands.channels", "channels", "List channels: the AMI that each serves."),
        "costs": ("bake.commands.costs", "costs", "Show what serving costs: a job, an image, an idle hour."),
        "check": ("bake.commands.check", "check", "Check a machine against a profile or a run."),
        "iam": ("bake.commands.iam", "iam", "Print the policies that a bake and a worker need."),
        "init": ("bake.commands.init", "init", "Start a folder to bake from."),
        "lock": ("bake.commands.lock", "lock", "Pin the weights' files by size and hash."),
        "local": ("bake.localcloud", "local", "Try images by hand on the local cloud."),
        "new-profile": ("bake.commands.profiles", "new_profile", "Start a profile from another one."),
        "plan": ("bake.commands.plan", "plan", "Show what a bake would do and whether it is agreed."),
        "diff": ("bake.commands.diff", "diff", "Show what differs between two images, runs or reports."),
        "fleet": ("bake.commands.fleet", "fleet", "Write the stack that serves a channel's AMI."),
        "images": ("bake.commands.images", "images", "List images: verdict, state, age, what changed."),
        "promote": ("bake.commands.promote", "promote", "Serve an AMI in a channel."),
        "publish": ("bake.commands.publish", "publish", "Publish what is missing of a good AMI."),
        "report": ("bake.commands.report", "report", "Show the report of a run or an AMI."),
        "resume": ("bake.commands.resume", "resume", "Go on with a run that was cut."),
        "revoke": ("bake.commands.revoke", "revoke", "Serve and launch an AMI no more."),
        "rollout": ("bake.commands.rollout", "rollout", "Give a fleet what a channel serves."),
        "rollback": ("bake.commands.promote", "rollback", "Serve what a channel served before."),
        "runs": ("bake.commands.runs", "runs", "List runs: their state, what they hold, and their cost."),
        "profiles": ("bake.commands.profiles", "profiles", "List the profiles."),
        "scan": ("bake.commands.scan", "scan", "Look for vulnerabilities of a run's image."),
        "schedule": ("bake.commands.schedule", "schedule", "Write what bakes profiles on a schedule."),
        "prune": ("bake.commands.prune", "prune", "Show or remove AMIs that nothing keeps or refers to."),
        "sweep": ("bake.commands.sweep", "sweep", "Show or remove what expired runs left."),
        "userdata": ("bake.commands.userdata", "userdata", "Print the user data of a worker."),
    }

    sections: ClassVar = {
        "Bake": ("init", "new-profile", "profiles", "iam", "lock", "plan", "approve", "resume"),
        "Review": ("check", "report", "diff", "scan", "attest"),
        "Release": (
            *("boot-check", "publish", "images", "userdata"),
            *("channels", "promote", "rollback", "revoke", "rollout"),
        ),
        "Operate": ("fleet", "schedule", "runs", "costs", "prune", "sweep", "completion"),
        "Local": ("local",),
    }
    """How `bake --help` lists the commands; each is in one of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self.lazy])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, attribute, _ = self.lazy[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[GIVEN] = tuple(args)  # `bake` hands them to a bake of its own for each of several profiles
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        known = set(self.list_commands(ctx))
        for title, names in self.sections.items():
            rows = [(name, self._summary(name)) for name in names if name in known]
            with formatter.section(title):
                formatter.write_dl(rows)

    def _summary(self, name: str) -> str:
        return self.lazy[name][2] if name in self.lazy else self.commands[name].get_short_help_str()


@click.group(
    cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="NAME",
    help="The profile to bake: profiles/NAME.yaml. Given more than once, all of them, side by side.",
)
@click.option("--all", "everything", is_flag=True, help="Bake all profiles of the folder, side by side.")
@click.option(
    "--max-parallel",
    type=click.IntRange(min=1),
    metavar="N",
    help="Of several, bake N at most at once: 8 unless given, in rehearsals one for each CPU.",
)
@click.option(
    "--rehearse", is_flag=True, help="Bake on the local cloud instead of AWS. Needs root, no account."
)
@trust_guests
@delays
@click.option("--exclusive", is_flag=True, help="Refuse to start while another bake of the profile goes on.")
@click.option(
    "--if-changed",
    is_flag=True,
    help="Do nothing where a good image is just what would be baked; else say what changed, and bake.",
)
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines on stdout.")
@click.option(
    "--profiles",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("profiles"),
    show_default=True,
    help="Where the profiles are.",
)
@click.option(
    "--env-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path(".env.local"),
    show_default=True,
    help="Variables for ${NAME} in profiles; the environment wins over it.",
)
@click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".bake/runs"),
    show_default=True,
    help="Where each run keeps its plan, its logs and its report.",
)
@click.version_option(package_name="ami-bake")
@click.pass_context
def main_group(ctx: click.Context, /, **given: Any) -> None:
    """Bake a verified AMI that boots a FLUX.1-dev worker.

    \b
    Examples:
      bake --profile g6e-ubuntu --rehearse    the whole bake on this machine, without AWS
      bake init                               start a folder to bake from, with example profiles
      bake iam --profile g6e-ubuntu           the policy that whoever bakes needs
      bake lock --profile g6e-ubuntu          pin the weights that a bake downloads, by hash
      bake plan --profile g6e-ubuntu          what a bake would do, and whether all of it is agreed
      bake --profile g6e-ubuntu               on AWS, with the variables of .env.local
      bake --profile g6e-ubuntu --if-changed  only where another image would come of it: for schedules
      bake --all --max-parallel 3             all profiles of the folder, three at a time
      bake boot-check ami-0123456789abcdef0   prove an AMI whose check something else ended
      bake publish ami-0123456789abcdef0      finish what is published of a good AMI
      bake report                             the newest run's report: its verdict and where it is
      bake diff ami-… ami-…                   what differs between two images
      bake attest verify ami-…                whether it holds what was attested, to the last byte
      bake images                             which images there are, and what changed
      bake runs                               which runs go on, were cut, or left something
      bake resume 20261128-101500-3fa9c1      go on with a run that was cut
      bake costs --profile g6e-ubuntu         what serving costs in your regions: a job, an image, an hour
      bake sweep                              what bakes left that were killed, and what it costs
      bake profiles                           which profiles there are
      bake local boot ami-0123456789abcdef0   boot a rehearsed image by hand

    \b
    Exit codes:
      0    done
      1    a bug in bake
      2    wrong input; nothing was started
      3    not what was agreed (bake approve) or locked (bake lock)
      4    the builder or the image is not what it should be: verification failed
      5    AWS or the builder failed; everything is removed, or kept on purpose and named
      6    something could not be removed; named last, with the command that removes it
      130  interrupted, everything is removed
    """
    profiles, everything = given["profiles"], given["everything"]
    ctx.obj = {**given, "profile": profiles[0] if profiles else None}
    if ctx.invoked_subcommand is not None:
        _refuse_several(ctx, profiles, everything)
    elif everything or len(profiles) > 1:
        from bake.commands.many.calling import bake_several

        ctx.exit(bake_several(ctx, _request(given), ctx.meta[GIVEN]))
    elif profiles:
        from bake.commands.bake import bake_profile

        how = {name: given[name] for name in ("as_json", "exclusive", "if_changed")}
        bake_profile(_request(given), given["runs"], **how)
    else:
        click.echo(ctx.get_help())
        ctx.exit(EXIT_USAGE)


def _request(given: Mapping[str, Any]) -> BakeRequest:
    """What is asked for of the first profile; of several, each bake has its own."""
    from bake.request import BakeRequest

    rehearse = given["rehearse"]
    name = next(iter(given["profiles"]), "")
    places = given["directory"], given["env_file"]
    return BakeRequest(name, *places, rehearse, trusted(), _delays(rehearse))


SEVERAL = ("schedule",)
"""The commands that take several profiles."""


def _refuse_several(ctx: click.Context, profiles: tuple[str, ...], everything: bool) -> None:
    """Raise UsageError where a command of one profile is given several."""
    if everything or (ctx.invoked_subcommand not in SEVERAL and len(profiles) > 1):
        raise UsageError(
            f"bake {ctx.invoked_subcommand} takes {'no --all' if everything else 'one profile'}",
            hint=f"call it for each: bake {ctx.invoked_subcommand} --profile NAME",
        )


def _delays(rehearse: bool) -> Delays:
    """The delays of the local cloud; UsageError for a bake on AWS, which has its own."""
    found = asked_delays()
    if not rehearse and found != Delays():
        raise UsageError("--seed and --lenient are for rehearsals", hint="add --rehearse")
    return found


@main_group.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Example:
      eval "$(bake completion bash)"
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(kind(main_group, {}, "bake", "_BAKE_COMPLETE").source())


def main() -> None:
    """Entry point of `bake`: runs the command and turns every error into a message and an exit code."""
    from bake import interrupt

    interrupt.install()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what the terminal's encoding can't take is no traceback
    try:
        code = _run()
    except BaseException as error:
        code = report(error)
    _flush()
    sys.exit(code)


def _run() -> int:
    if "_BAKE_COMPLETE" in os.environ:
        main_group.main(prog_name="bake", standalone_mode=True)
    # Not by click's `main`, which handles Ctrl-C and broken pipes in its own way.
    try:
        with main_group.make_context("bake", sys.argv[1:]) as context:
            main_group.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    return 0


def report(error: BaseException) -> int:
    """Print what ended the command, and last of all what is left behind; return the exit code."""
    match error:
        case LeftBehind():
            if isinstance(error.__cause__, Interrupted):
                _say("interrupted")
            elif error.__cause__ is not None:
                report(error.__cause__)
            _say(f"{_red('left behind:')} {error.message}")
        case BakeError():
            _show(error.message, error.hint, error)
        case KeyboardInterrupt() | click.exceptions.Abort():
            _show_interrupt(error)
            return EXIT_INTERRUPTED
        case click.ClickException():
            shown = io.StringIO()
            error.show(file=shown)
            _say(shown.getvalue().rstrip())
            return EXIT_USAGE
        case BrokenPipeError():  # whoever read the output has enough of it
            return EXIT_INTERRUPTED
        case SystemExit():
            return error.code if isinstance(error.code, int) else EXIT_BUG
        case _:
            full = disk_full(error)
            return _report_aws(error) if full is None else report(full)
    return error.exit_code


def _show(message: str, hint: str | None, error: BaseException) -> None:
    _say("\n".join([f"{_red('error:')} {message}", *getattr(error, "__notes__", [])]))
    if hint:
        _say(f"hint: {hint}")


def _show_interrupt(error: BaseException) -> None:
    kept = getattr(error, "__notes__", [])
    _say("\n".join(["interrupted", *kept]) if kept else f"interrupted: {NOTHING_KEPT}")


def _report_aws(error: BaseException) -> int:
    """Explain a refusal of AWS; show anything else as a bug, with its traceback."""
    from bake import aws_errors

    if (known := aws_errors.explain(error)) is not None:
        _show(*known, error)
        return EXIT_USAGE if aws_errors.is_mistake(error) else EXIT_FAILED
    import traceback

    lines = "".join(traceback.format_exception(error))
    _say(f"{lines}this is a bug in bake; please report it with the lines above")
    return EXIT_BUG


def _red(text: str) -> str:
    colour = sys.stderr is not None and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    return f"\033[31m{text}\033[0m" if colour else text


def _say(text: str) -> None:
    """Print to stderr; ignore that nobody reads it any more."""
    if sys.stderr is not None:  # closed by who started this
        with suppress(OSError, ValueError):
            print(redact(text), file=sys.stderr, flush=True)


def _flush() -> None:
    """Flush the streams, so that Python does not fail at exit because of a closed pipe."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
