"""No wait of the controller is possible but by `bake/waits.py`, which shows it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Other programs: the local cloud; what runs on the builder.
OTHERS = ("bake/localcloud/", "bake/checks/probes/", "bake/builder_lease/program.py")
# Where a wait shows itself by others, or is none of the bake.
MAY = {
    "bake/waits.py": "the mechanism itself",
    "bake/undo.py:now": "joins removals, whose calls and waits show themselves",
    "bake/lease.py:_keep": "the lease's own beat, in a thread of its own",
    "bake/builder_lease/__init__.py:__call__": "joins a renewal, whose SSH command shows itself",
    "bake/builder_lease/__init__.py:settle": "joins a renewal, whose SSH command shows itself",
    "bake/commands/many/children.py:_await_end": "the end of a bake, whose events show its waits",
    "bake/commands/many/children.py:_follow": "a bake's end and its last words, in a thread of its own",
    "bake/steps/keep_interrupted.py:look": "looks for a notice, in a thread of its own",
    "bake/ssh/__init__.py:_is_lost": "the end of a command, whose wait shows it",
    "bake/ssh/proxy.py": "within the connection, and its end; whoever uses or opens one shows the wait",
    "bake/ssh/channel.py:one": "a slot for a command, whose wait shows it",
    "bake/ssh/channel.py:_exchange": "a command's streams, whose wait shows it",
}
# Whose `wait` and `pause` are shown.
SHOWN = {"aws", "there", "unit", "download", "wait"}
WAITS = {"sleep", "get_waiter", "wait_for", "wait", "join", "select", "poll"}
# These show nothing wherever they are.
ALWAYS = {"sleep", "get_waiter"}
# Calls that ask a machine or AWS for something, of which a loop makes a wait.
ASKS = {"run", "run_shell", "describe", "look", "_follow", "_ask", "find", "open_session"}


def modules() -> list[Path]:
    found = sorted((ROOT / "bake").rglob("*.py"))
    return [file for file in found if not str(file.relative_to(ROOT)).startswith(OTHERS)]


def naked(source: str) -> Iterator[tuple[str, int]]:
    """The functions and lines that wait without showing it."""
    yield from _in(ast.parse(source), "", shown=False)


def _in(node: ast.AST, function: str, *, shown: bool) -> Iterator[tuple[str, int]]:
    for child in ast.iter_child_nodes(node):
        name, within = function, shown
        match child:
            case ast.FunctionDef():
                name, within = child.name, shown or any(_is_wait(one.annotation) for one in child.args.args)
            case ast.With():
                within = shown or any("waiting" in ast.unparse(item) for item in child.items)
            case ast.While() if not shown and ASKS & {_called(one) for one in ast.walk(child)}:
                yield function, child.lineno
            case ast.Call() if _waits(child) and (not shown or _called(child) in ALWAYS):
                yield function, child.lineno
        yield from _in(child, name, shown=within)


def _is_wait(annotation: ast.expr | None) -> bool:
    """Whether whoever calls the function waits already."""
    return annotation is not None and ast.unparse(annotation) == "Wait"


def _called(node: ast.AST) -> str:
    match node:
        case ast.Call(func=ast.Attribute(attr=name)) | ast.Call(func=ast.Name(id=name)):
            return name
    return ""


def _waits(call: ast.Call) -> bool:
    name = _called(call)
    if name not in WAITS:
        return False
    of = call.func.value if isinstance(call.func, ast.Attribute) else None
    if name == "join":  # texts are joined, too
        if of is None or isinstance(of, ast.Constant | ast.JoinedStr):
            return False
        return ast.unparse(of) not in ("shlex", "os.path")
    return name != "wait" or of is None or ast.unparse(of).split(".")[-1] not in SHOWN


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(ROOT)))
def test_every_wait_is_shown(file: Path) -> None:
    name = str(file.relative_to(ROOT))
    if name in MAY:
        return
    found = [
        (function, line) for function, line in naked(file.read_text()) if f"{name}:{function}" not in MAY
    ]
    assert not found, f"{name}: wait with `tally.waiting(…)` and `Wait.pause`, so that people see it"


def test_every_exception_is_there() -> None:
    for place in MAY:
        name, _, function = place.partition(":")
        found = {one for one, _ in naked((ROOT / name).read_text())}
        assert function in found or (not function and found), place


@pytest.mark.parametrize(
    "body",
    [
        "time.sleep(1)",
        "sleep(1)",
        "aws.ec2.get_waiter('instance_running').wait()",
        "event.wait(5)",
        "thread.join()",
        "thread.join(5)",
        "thread.join(SECONDS)",
        "with tally.waiting('x'):\n        time.sleep(1)",
        "while True:\n        session.run('test', '-e', '/x')",
    ],
)
def test_a_naked_wait_is_found(body: str) -> None:
    assert [function for function, _ in naked(f"def step():\n    {body}\n")][:1] == ["step"]


@pytest.mark.parametrize(
    "body",
    [
        "aws.wait('an AMI', look)",
        "self.aws.wait('an AMI', look)",
        "unit.wait()",
        "', '.join(names)",
        "shlex.join(names)",
        "with tally.waiting('x') as wait:\n        while session.run('x'):\n            wait.pause(1)",
        "with tally.waiting('x'):\n        thread.join(0.2)",
    ],
)
def test_a_wait_that_is_shown_is_none_of_them(body: str) -> None:
    assert not list(naked(f"def step():\n    {body}\n"))
