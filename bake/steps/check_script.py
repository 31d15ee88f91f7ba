"""What a script of `provision/` says when it ends: notes for people, or why it failed and what to do."""

from __future__ import annotations

from bake.errors import RemoteCommandError
from bake.run import Run
from bake.ssh import CommandResult

NOTE = "note: "  # begins a line that the person who bakes, and the report, must have
REMEDY = "  what to do: "  # begins the line after the one that says what is wrong


def check_script(result: CommandResult, run: Run) -> CommandResult:
    """Pass on its notes; raises RemoteCommandError, its own reason first, where it failed."""
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
