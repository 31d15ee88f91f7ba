"""The command line: click commands only; every error becomes a message and an exit code here."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import ClassVar

import click

from bake.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, BakeError

# Heavy imports (boto3, paramiko, pydantic, rich, moto) stay inside the commands: `bake --help` is instant.


class LazyGroup(click.Group):
    """Loads a command's module only when that command is called or its help is shown."""

    lazy: ClassVar = {
        "approve": ("bake.commands.approve", "approve", "Record what a profile may use."),
        "lock": ("bake.commands.lock", "lock", "Pin the weights' files by size and hash."),
        "local": ("bake.localcloud.cli", "local", "Try images by hand on the local cloud."),
        "new-profile": ("bake.commands.profiles", "new_profile", "Start a profile from another one."),
        "plan": ("bake.commands.approve", "plan", "Show what a bake would do and whether it is agreed."),
        "profiles": ("bake.commands.profiles", "profiles", "List the profiles."),
        "userdata": ("bake.commands.userdata", "userdata", "Print the user data of a worker."),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self.lazy])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, attribute, _ = self.lazy[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [
            (name, self.lazy[name][2] if name in self.lazy else self.commands[name].get_short_help_str())
            for name in self.list_commands(ctx)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(
    cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option("--profile", metavar="NAME", help="The profile to bake: profiles/NAME.yaml.")
@click.option(
    "--rehearse", is_flag=True, help="Bake on the local cloud instead of AWS. Needs root, no account."
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
    help="Where each run keeps its plan, logs, JUnit XML and manifest.",
)
@click.version_option(package_name="ami-bake")
@click.pass_context
def main_group(
    ctx: click.Context,
    profile: str | None,
    rehearse: bool,
    as_json: bool,
    directory: Path,
    env_file: Path,
    runs: Path,
) -> None:
    """Bake a verified AMI that boots a FLUX.1-dev worker.

    \b
    Examples:
      bake --profile g6e-ubuntu --rehearse    the whole bake on this machine, without AWS
      bake lock --profile g6e-ubuntu          pin the weights that a bake downloads, by hash
      bake plan --profile g6e-ubuntu          what a bake would do, and whether all of it is agreed
      bake --profile g6e-ubuntu               on AWS, with the variables of .env.local
      bake profiles                           which profiles there are
      bake local boot ami-0123456789abcdef0   boot a rehearsed image by hand

    \b
    Exit codes: 0 baked, 1 failed, 2 wrong input (nothing was started), 3 not what was
    agreed (bake approve) or locked (bake lock), 130 interrupted.
    Whatever the outcome, everything that a bake created is removed again, except a finished AMI.
    """
    ctx.obj = {
        "profile": profile,
        "rehearse": rehearse,
        "as_json": as_json,
        "directory": directory,
        "env_file": env_file,
    }
    if ctx.invoked_subcommand is not None:
        return
    if profile is None:
        click.echo(ctx.get_help())
        ctx.exit(EXIT_USAGE)
    from bake.commands.bake import bake_profile, rehearse_profile

    command = rehearse_profile if rehearse else bake_profile
    command(profile, directory=directory, env_file=env_file, runs=runs, as_json=as_json)


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
    try:
        code = main_group.main(prog_name="bake", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except (KeyboardInterrupt, click.exceptions.Abort) as error:
        # click turns the one into the other, with the interrupt as its cause.
        show_interrupt(error.__cause__ or error)
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except BakeError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except Exception as error:
        sys.exit(_unexpected(error))


def show_error(error: BakeError) -> None:
    """What went wrong, what leaked if anything did, and what to do next."""
    colour = "\033[31merror:\033[0m" if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else "error:"
    _say(f"{colour} {error.message}", error)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


def show_interrupt(error: BaseException) -> None:
    """Say that it was interrupted, and what could not be removed, if anything."""
    leaked = bool(getattr(error, "__notes__", []))
    _say("interrupted" if leaked else "interrupted: everything that was created is removed again", error)


def _say(text: str, error: BaseException) -> None:
    print(text, file=sys.stderr)
    for note in getattr(error, "__notes__", []):
        print(note, file=sys.stderr)


def _unexpected(error: Exception) -> int:
    """AWS's own refusals are the user's to mend; anything else is a bug, shown with its traceback."""
    module = type(error).__module__
    if module.startswith(("botocore", "boto3")):
        hint = "aws sts get-caller-identity shows which account and role this is"
        show_error(BakeError(f"AWS: {error}", hint=hint))
        return EXIT_FAILED
    import traceback

    traceback.print_exception(error)
    print("this is a bug in bake; please report it with the lines above", file=sys.stderr)
    return EXIT_FAILED


if __name__ == "__main__":
    main()
