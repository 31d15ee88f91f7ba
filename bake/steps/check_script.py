"""Read the result of a script of `provision/`: notes, or why it failed and what to do."""

from __future__ import annotations

from bake.errors import RemoteCommandError
from bake.run import Run
from bake.ssh import CommandResult

NOTE = "note: "  # begins a line for the person who bakes and for the report
REMEDY = "  what to do: "  # begins the line after the reason


def check_script(result: CommandResult, run: Run) -> CommandResult:
    """Pass on the script's notes; raises RemoteCommandError, with its reason first, if it failed."""
    if result.exit_code != 0:
        raise _failure(result)
    for line in result.stdout.splitlines():
        if line.startswith(NOTE):
            run.progress.note(line.removeprefix(NOTE))
    return result


def _failure(result: CommandResult) -> RemoteCommandError:
    try:
        result.check()
    except RemoteCommandError as error:
        whole = error.message
    lines = result.stderr.splitlines()
    for number in reversed(range(1, len(lines))):
        if lines[number].startswith(REMEDY):
            hint = lines[number].removeprefix(REMEDY)
            return RemoteCommandError(f"{lines[number - 1]}\n{whole}", hint=hint)
    return RemoteCommandError(whole)
