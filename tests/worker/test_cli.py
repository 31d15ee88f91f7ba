"""The command line: fast help, clear errors with their exit codes, and one generated image."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import click
import pytest
from PIL import Image

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
COMMAND = str(Path(sys.executable).parent / "flux-worker")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["send", "--help"], ["draw", "--help"], ["--version"]], ids=" ".join
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    heavy = "{'torch', 'boto3', 'botocore', 'pydantic', 'huggingface_hub', 'diffusers', 'PIL'}"
    code = f"import sys; from flux_worker.cli import main; main({arguments}, standalone_mode=False); "
    code += f"loaded = {heavy} & set(sys.modules); assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8:strict"])
def test_what_the_terminal_cant_show_is_replaced(encoding: str) -> None:
    program = """
import sys, click
from flux_worker import cli

@cli.main.command()
def say():
    print("образ → ✓ \\udcff")
    print("образ → ✓ \\udcff", file=sys.stderr)

cli.main(["say"])
"""
    environment = {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout.count(b"?") > 0) == (0, True), done.stderr


def test_help_names_every_command() -> None:
    shown = run("--help").stdout
    commands = re.findall(r"^  (\w+)  ", shown.partition("Commands:")[2], re.M)
    assert commands == ["check", "compile", "draw", "quantize", "schema", "send", "serve", "status"]


def test_a_shell_completes_commands_and_options() -> None:
    def completed(words: str, number: int) -> list[str]:
        requested = {"_FLUX_WORKER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        return re.findall(r"^plain,(.*)$", run(**requested).stdout, re.M)

    assert completed("flux-worker s", 1) == ["schema", "send", "serve", "status"]
    assert completed("flux-worker draw --s", 2) == ["--steps", "--seed"]


def test_every_option_says_what_it_is() -> None:
    from flux_worker.cli import main

    context = click.Context(main)
    commands = [main.get_command(context, name) for name in main.list_commands(context)]
    options = [option for found in commands if found for option in found.params]
    assert [o.name for o in options if isinstance(o, click.Option) and not o.help] == []


def test_a_command_that_is_none_is_named() -> None:
    done = run("paint")
    assert done.returncode == 2
    assert "No such command 'paint'" in done.stderr


def test_schema_is_the_one_that_lies_beside_the_code() -> None:
    assert run("schema").stdout == (ROOT / "worker" / "job.schema.json").read_text()


def test_serve_names_every_missing_variable() -> None:
    done = run("serve", AWS_REGION="eu-west-1")
    assert done.returncode == 78
    missing = re.findall(r"^  (\w+) is not set$", done.stderr, re.M)
    assert sorted(missing) == ["FLUX_BUCKET", "FLUX_EVENT_BUS", "FLUX_MODEL_REVISION", "FLUX_QUEUE_URL"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ["--prompt", "a", "--width", "1000", "--out", "a.png"], "width: .*multiple of 16", id="size"
        ),
        pytest.param(["--prompt", " ", "--out", "a.png"], "prompt: .*blank", id="blank-prompt"),
        pytest.param(["--prompt", "a", "--out", "a.gif"], "must end in .png, .jpg", id="gif"),
        pytest.param(["--prompt", "a", "--out", "/no/such/a.png"], "an existing folder", id="no-folder"),
        pytest.param(
            ["--prompt", "a", "--seed", "x", "--out", "a.png"], "'x' is not a valid integer", id="seed"
        ),
        pytest.param(["--out", "a.png"], "Missing option '--prompt'", id="no-prompt"),
    ],
)
def test_a_bad_request_is_a_usage_error(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from flux_worker.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["draw", *arguments])
    assert ended.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_draw_without_a_model_says_where_it_looked(tmp_path: Path) -> None:
    environment = {"FLUX_MODEL_REVISION": "0" * 40, "HF_HUB_CACHE": str(tmp_path), "FLUX_BACKEND": "cpu"}
    done = run("draw", "--prompt", "a cat", "--out", str(tmp_path / "cat.png"), **environment)
    assert done.returncode == 78
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr


def test_draw_writes_a_png_and_says_so(cache: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    out = tmp_path / "cat.png"
    options = ["--width", "256", "--height", "320", "--steps", "2", "--seed", "7", "--out", str(out)]
    done = run("draw", "--prompt", "a cat", *options, **environment)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^Wrote {out} \(256x320, 2 steps, seed 7\)$", done.stdout, re.M)
    assert Image.open(out).size == (256, 320)


def test_the_readme_names_every_variable_and_command() -> None:
    from flux_worker.cli import main
    from flux_worker.settings import ServeSettings

    readme = (ROOT / "worker" / "README.md").read_text()
    names = [str(field.alias) for field in ServeSettings.model_fields.values()]
    assert [name for name in names if f"`{name}`" not in readme] == []
    commands = main.list_commands(click.Context(main))
    assert [name for name in commands if f"flux-worker {name}" not in readme] == []


def test_the_wheel_holds_the_package_and_no_more(tmp_path: Path) -> None:
    package = ROOT / "worker" / "flux_worker"
    # Built from a copy: setuptools leaves a build folder, and takes what lies in it into the next wheel.
    ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    source = shutil.copytree(package.parent, tmp_path / "worker", ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(tmp_path), str(source)], check=True)
    code = {str(file.relative_to(package.parent)) for file in package.rglob("*.py")}
    with zipfile.ZipFile(tmp_path / "flux_worker-0.1.0-py3-none-any.whl") as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == code | {"flux_worker/py.typed", "flux_worker/model.json"}
