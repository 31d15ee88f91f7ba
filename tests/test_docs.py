"""README and docs say what is true: commands exist, examples work, links lead somewhere.

Blocks are marked by their language. `sh` holds commands: each must parse, and those below `<!-- run -->` are
run in a copy of the profiles, with `output` below them as the exact output (`…` stands for anything).
`yaml` is a profile that loads, or a part of one. `output` and `text` are never run.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml

from bake import iam
from bake import profile as profiles
from bake.checks import catalogue
from bake.cli import main_group
from docs import policies
from flux_worker.cli import main as worker

from .bake.variables import VARIABLES as EXAMPLES

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "worker/README.md", *ROOT.glob("docs/**/*.md")]
)
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
PROGRAMS = {"bake": main_group, "flux-worker": worker}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
VARIABLES = {
    **EXAMPLES,
    "BAKE_SSH_FROM": "192.0.2.0/24",
    "BAKE_KMS_KEY": "alias/bake",
    "BAKE_REPORTS": "s3://reports/flux",
    "BAKE_NOTICES": "notices",
    "BAKE_REAPER_ROLE": "arn:aws:iam::123456789012:role/bake-reaper",
    "BAKE_LAUNCH_TEMPLATE": "lt-0123456789abcdef0",
    "BAKE_PUBLISH_KMS_KEY": "arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef",
    "BAKE_SHARE_WITH": "210987654321",
    "NVIDIA_REPOSITORY": "https://packages.example.com/nvidia",
    "NEURON_REPOSITORY": "https://packages.example.com/neuron",
    "NEURON_PYTHON_INDEX": "https://packages.example.com/python",
    "NVIDIA_FINGERPRINT": "0123456789ABCDEF0123456789ABCDEF01234567",
    "NEURON_FINGERPRINT": "0123456789ABCDEF0123456789ABCDEF01234567",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: the page and line where it begins, its language, the comment above it, its content."""

    page: str
    line: int
    language: str
    mark: str
    content: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


FENCE = re.compile(r"(?:^[ \t]*<!-- (?P<mark>.*?) -->\n)?^(?P<indent> *)```(?P<language>.*)\n", re.M)


def blocks(page: str) -> Iterator[Block]:
    text, position = TEXTS[page], 0
    while found := FENCE.search(text, position):
        end = re.compile(rf"^{found['indent']}```$", re.M).search(text, found.end())
        assert end, f"{page}: a block has no end"
        content = re.sub(rf"^{found['indent']}", "", text[found.end() : end.start()], flags=re.M)
        line = text.count("\n", 0, found.end()) + 1
        yield Block(page, line, found["language"].strip(), found["mark"] or "", content)
        position = end.end()


BLOCKS = [block for page in TEXTS for block in blocks(page)]


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


@pytest.mark.parametrize("page", TEXTS)
def test_every_block_says_what_it_is(page: str) -> None:
    known = {"sh", "yaml", "json", "ini", "python", "typescript", "output", "text"}
    assert [str(block) for block in BLOCKS if block.page == page and block.language not in known] == []


# Commands


def commands(text: str) -> Iterator[list[str]]:
    """The simple commands of a piece of shell, those inside quoted substitutions, too."""
    text = re.sub(r"\b\d>", ">", text.replace("\\\n", " ")).replace("\n", "\n;")
    found = shlex.shlex(text, posix=True, punctuation_chars=True)
    found.whitespace_split = True
    words: list[str] = []
    for word in found:
        for inner in re.findall(r"\$\((.*)\)", word):
            yield from commands(inner)
        if word.strip("();&|<>"):
            words.append(word)
        else:
            yield words
            words = []
    yield words


def program(words: list[str]) -> tuple[str, list[str]]:
    """The program's name and its arguments, without what stands before it: variables, sudo, a folder."""
    while words and (re.match(r"\w+=|(sudo|export|eval|time|\$)$", words[0]) or words[0].startswith("--")):
        words = words[1:]
    return (words[0].rpartition("/")[2], words[1:]) if words else ("", [])


def parse(command: click.Command, name: str, arguments: list[str], parent: click.Context | None) -> None:
    """Parse as the program would; click's own error where it would refuse."""
    try:
        context = command.make_context(name, list(arguments), parent=parent)
    except click.exceptions.Exit:  # --help, --version
        return
    if isinstance(command, click.Group) and (rest := [*context._protected_args, *context.args]):
        child_name, child, left = command.resolve_command(context, rest)
        assert child is not None
        parse(child, str(child_name), left, context)


@pytest.mark.parametrize("block", of("sh"), ids=str)
def test_commands_parse(block: Block) -> None:
    for words in commands(block.content):
        name, arguments = program(words)
        if name in PROGRAMS:
            try:
                parse(PROGRAMS[name], name, arguments, None)
            except click.UsageError as error:
                assert "does not exist" in error.format_message(), f"{block}: {words}: {error}"
        elif name == "make":
            assert {one for one in arguments if "=" not in one} <= TARGETS, f"{block}: {words}"
        elif "-m" in arguments and arguments[arguments.index("-m") + 1].partition(".")[0] in (
            "tests",
            "docs",
        ):
            module = arguments[arguments.index("-m") + 1].replace(".", "/")
            assert (ROOT / f"{module}.py").exists() or (ROOT / module).is_dir(), f"{block}: {words}"


def prose(page: str) -> str:
    """A page without its blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", TEXTS[page], flags=re.M | re.S)


def named(words: list[str]) -> Iterator[str]:
    """What is wrong with a command that stands in a sentence and may be cut short."""
    name, arguments = program(words)
    if name == "make":
        yield from (one for one in arguments if re.fullmatch("[a-z-]+", one) and one not in TARGETS)
        return
    command: click.Command = PROGRAMS[name]
    options = {"--help", "-h"}
    for number, word in enumerate([name, *arguments]):
        if isinstance(command, click.Group) and number and re.fullmatch("[a-z-]+", word) and word[0] != "-":
            found = command.get_command(click.Context(command), word)
            if found is None and number == 1:
                yield word
            command = found or command
        options |= {option for one in command.params for option in one.opts}
        if word.startswith("--") and word.partition("=")[0] not in options:
            yield word


@pytest.mark.parametrize("page", TEXTS)
def test_commands_in_sentences_exist(page: str) -> None:
    code = [text for text in re.findall(r"`([^`\n]+)`", prose(page)) if "'" not in text]
    found = [
        f"{text}: {wrong}"
        for text in code
        if program(text.split())[0] in (*PROGRAMS, "make") and len(text.split()) > 1
        for wrong in named(text.split())
    ]
    assert found == []


def every_command(group: click.Group, name: str) -> Iterator[str]:
    context = click.Context(group)
    for child in group.list_commands(context):
        command = group.get_command(context, child)
        yield f"{name} {child}"
        if isinstance(command, click.Group):
            yield from every_command(command, f"{name} {child}")


def test_every_command_stands_in_the_reference() -> None:
    page = TEXTS["docs/reference.md"].splitlines()
    wanted = [name for program, group in PROGRAMS.items() for name in every_command(group, program)]
    assert [name for name in wanted if f"### {name}" not in page] == []


# What is run


def matches(expected: str, found: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in expected.rstrip().split("…"))
    return re.fullmatch(pattern, found.rstrip(), re.S) is not None


def runnable() -> list[list[Block]]:
    """Each page's blocks, where it has one that is run."""
    pages = [[block for block in BLOCKS if block.page == page] for page in TEXTS]
    return [found for found in pages if any(block.mark.startswith("run") for block in found)]


@pytest.mark.integration
@pytest.mark.parametrize("page", runnable(), ids=lambda page: page[0].page)
def test_what_is_marked_runs_and_prints_what_the_page_says(page: list[Block], tmp_path: Path) -> None:
    """In one folder a page: profiles that the page shows by path are there once it has shown them."""
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    for block, after in zip(page, [*page[1:], None], strict=True):
        if file := re.match(r"# (profiles/[\w-]+\.yaml|\.env\.local)\n", block.content):
            (tmp_path / file[1]).write_text(block.content, encoding="utf-8")
        if not block.mark.startswith("run"):
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.content],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert done.returncode == int(block.mark.partition(" ")[2] or 0), f"{block}\n{done.stdout}"
        if after is not None and after.language == "output":
            assert matches(after.content, done.stdout), f"{after}\n{done.stdout}"


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_profiles_load(block: Block, tmp_path: Path) -> None:
    content = yaml.safe_load(block.content)
    if block.mark:  # a lock file, or a profile that is wrong on purpose
        return
    for file in (ROOT / "profiles").glob("*.yaml"):
        shutil.copy(file, tmp_path)
    # A part of a profile is what a profile says that extends a whole one.
    start = "" if "extends" in content else "extends: g6e-ubuntu\n"
    (tmp_path / "shown.yaml").write_text(start + block.content, encoding="utf-8")
    profiles.load("shown", tmp_path, VARIABLES, lambda name, key: "hf_0123456789")


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_is_python(block: Block) -> None:
    ast.parse(block.content)


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_json_is_json(block: Block) -> None:
    json.loads(block.content)


# What is generated, and what explains


def test_the_reference_is_current() -> None:
    # By a process of its own: click keeps a command's --help as the first caller in a process names it.
    show = [sys.executable, "-c", "from docs import generate; print(generate.page(), end='')"]
    done = subprocess.run(show, cwd=ROOT, capture_output=True, text=True, check=True)
    assert TEXTS["docs/reference.md"] == done.stdout, "run `make docs`"


def tracked() -> list[Path]:
    """The files of the product, without what is built beside them."""
    folders = ("bake", "provision", "worker", "docs", "profiles")
    listed = subprocess.run(
        ["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [file for name in listed.stdout.splitlines() if (file := ROOT / name).exists()]


def test_every_requirement_is_explained_once() -> None:
    explained = re.findall(r"^\| \*\*([RC]-[A-Z0-9-]+)\*\* \|", TEXTS["docs/requirements.md"], re.M)
    assert len(explained) == len(set(explained))
    used = {one for about, _ in catalogue.checks() for one in about.requirements}
    assert len(used) >= 15
    texts = [file for file in tracked() if file.suffix in (".py", ".sh", ".md", ".yaml", ".j2", ".json")]
    for file in texts:
        text = file.read_text(encoding="utf-8")
        used |= set(re.findall(r"\b[RC]-[A-Z][A-Z0-9]+(?:-[A-Z0-9]+)?\b", text))
    assert sorted(used - set(explained)) == []


# Calls of AWS whose right has another name.
RIGHTS = {
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:ListBuckets": "s3:ListAllMyBuckets",
    "quotas:GetServiceQuota": "servicequotas:GetServiceQuota",
    "sts:GetCallerIdentity": "",  # needs none
}
CALL = re.compile(
    r"\b(?:aws|cloud)\.(ec2|sqs|s3|events|ssm|sts|kms|iam|pricing|quotas|scheduler|secretsmanager)\.([a-z_0-9]+)"
)


def test_every_call_of_aws_is_allowed_by_the_policies_of_bake_iam() -> None:
    """Whoever bakes all that a profile may want, sweeps, promotes or prunes may make each call of bake."""
    called = set()
    for file in (ROOT / "bake").rglob("*.py"):
        if "localcloud" not in file.parts:
            text = file.read_text(encoding="utf-8")
            called |= set(CALL.findall(re.sub(r"get_paginator\(\"(\w+)\"\)", r"\1", text)))
    assert len(called) >= 50
    actions = {
        f"{service}:{''.join(word.capitalize() for word in call.split('_'))}"
        for service, call in called
        if call not in ("meta", "exceptions")
    }
    rights = {RIGHTS.get(action, action) for action in actions} - {""}
    allowed = {
        action
        for subject in policies.samples()
        for audience in ("caller", "sweep", "promoter", "prune")
        for statement in iam.statements(audience, subject)
        for action in statement.actions
    }
    assert sorted(rights - allowed) == []
    assert "inspector-scan:ScanSbom" in TEXTS["docs/aws.md"]  # `bake scan` is no part of a bake


def test_every_variable_of_the_example_is_explained() -> None:
    names = re.findall(r"^#? ?([A-Z_]+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.M)
    assert len(names) >= 15
    assert [name for name in names if f"`{name}`" not in TEXTS["docs/aws.md"]] == []


# Links

PATH = re.compile(r"(?:bake|docs|provision|requirements|tests|worker)/[\w./-]+")


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    text = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in text}


@pytest.mark.parametrize("page", [*TEXTS, "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = prose(page) if page in TEXTS else (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r'(?:\]\(|src=")(?!https?:)([^)"\s]+)', text):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        name = str(file.resolve().relative_to(ROOT))
        assert file.exists(), f"{page}: {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(name), f"{page}: {target}"


@pytest.mark.parametrize("page", TEXTS)
def test_files_that_are_named_are_there(page: str) -> None:
    named = {text for text in re.findall(r"`([^`\n]+)`", prose(page)) if PATH.fullmatch(text)}
    made = {"provision/locks/worker-neuron-sdk.txt"}  # by `make lock`, from an index that is not everybody's
    assert [path for path in sorted(named - made) if not (ROOT / path).exists()] == []


def test_the_readme_is_short() -> None:
    assert len(TEXTS["README.md"].splitlines()) < 150


NAMED_TEST = re.compile(r"`(tests/[\w/.-]+\.py)(?:::(\w+))?`")


def test_each_test_that_the_docs_name_is_there() -> None:
    """docs/as-aws.md says of each thing that AWS does which test shows it."""
    page = (ROOT / "docs/as-aws.md").read_text(encoding="utf-8")
    named = NAMED_TEST.findall(page)
    assert len(named) > 30
    for file, name in named:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not name or re.search(rf"^\s*def {name}\(", text, re.M), f"{file} has no {name}"
    rows = [line for line in page.splitlines() if line.startswith("| ") and "shown by" not in line]
    assert not [row for row in rows if not NAMED_TEST.search(row)]
