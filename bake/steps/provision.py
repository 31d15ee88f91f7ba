"""Put `provision/` on the builder and run its scripts in order."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bake import background, layout, units, worker_source
from bake.aws import Aws
from bake.errors import BakeError
from bake.layout import BAKE
from bake.planning.parts import ProvisionPlan
from bake.planning.plan import Plan
from bake.resources import PROVISION
from bake.run import Run
from bake.ssh import CommandResult, Session
from bake.steps.check_script import check_script
from bake.steps.locate_python import python_urls
from bake.steps.stop_upgrades import stop_upgrades
from bake.trees import source_files
from bake.wiring import environment_text

PYTHON_SCRIPT = "python.sh"
PYTHON_NEEDED = "fetch"  # printed by the script if it needs the pinned Python, and the argument to fetch it
UPDATES_SCRIPT = "updates.sh"
UPDATED = "updated "  # begins a line about a package: its name, the old version or "-", the new one
UPDATES = "facts/updates.json"
TOOLS_SCRIPT = "scripts/00-tools.sh"
# By bake's own setuptools, as it is pinned; not by pip, which environments of uv lack.
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
_UNPACK = 'mkdir -p -m 755 "$1" && exec tar --extract --gzip --directory "$1" --owner=root'
NEURON_SCRIPT = "compile-neuron.sh"  # not in scripts/, since it needs the weights


@dataclass(frozen=True)
class Wheel:
    """The worker's wheel: the name and the content of its file."""

    name: str
    content: bytes


def build_worker(plan: Plan) -> Future[Wheel]:
    """Build the worker's wheel in the background, while the builder boots."""
    return background.start(lambda: _build(plan))


def _build(plan: Plan) -> Wheel:
    with worker_source.unpacked(plan.provision.worker) as project, TemporaryDirectory() as scratch:
        file = build_wheel(project, Path(scratch))
        return Wheel(file.name, file.read_bytes())


def prepare(session: Session, plan: Plan, aws: Aws, run: Run, wheel: Future[Wheel]) -> None:
    """Send what provisioning needs and install its tools, with which the prefetch can start."""
    with run.progress.step("tools"):
        upload(session, plan, run, wheel)
        if plan.profile.base.updates == "security":
            install_updates(session, plan, run)
        install_tools(session, plan, aws, run)


def install_updates(session: Session, plan: Plan, run: Run) -> None:
    """Install the base's pending security updates, before anything runs on what they replace.

    What was upgraded is kept in `facts/updates.json`: the report calls it meant.
    """
    result = _run_script(session, run, UPDATES_SCRIPT)
    stop_upgrades(session, plan, run)  # an upgraded package starts its timers again, apt's own too
    lines = [line.split() for line in result.stdout.splitlines() if line.startswith(UPDATED)]
    updated = [{"package": name, "old": "" if old == "-" else old, "new": new} for _, name, old, new in lines]
    run.keep(UPDATES, json.dumps({"updated": updated}, indent=1) + "\n")


def upload(session: Session, plan: Plan, run: Run, built: Future[Wheel] | None = None) -> None:
    """Send scripts, rendered files, locks and the worker's wheel to the builder."""
    with run.progress.tally.waiting("the worker's wheel"):
        wheel = built.result() if built is not None else _build(plan)
    run.keep(f"wheels/{wheel.name}", wheel.content)
    bundle = pack(plan, wheel)
    run.progress.status(f"sending {len(bundle) // 1024} KiB to {BAKE}")
    session.run("sh", "-c", _UNPACK, "sh", BAKE, stdin=bundle, sudo=True)


def install_tools(session: Session, plan: Plan, aws: Aws, run: Run) -> None:
    """Run the scripts that the prefetch needs; the others run at the same time as the prefetch.

    The pinned Python is fetched if the base AMI has no suitable one.
    """
    found = _run_script(session, run, PYTHON_SCRIPT)
    if PYTHON_NEEDED in found.stdout.splitlines():
        urls = "".join(f"{url}\n" for url in python_urls(plan, aws, run))
        _run_script(session, run, PYTHON_SCRIPT, PYTHON_NEEDED, stdin=urls.encode())
    _run_script(session, run, TOOLS_SCRIPT)


def run_scripts(session: Session, run: Run, look: Callable[[], None]) -> None:
    """Run the remaining scripts, in the order of their names.

    `look` is called every second; an error that it raises, such as the download's, ends the step at once.
    """
    with run.progress.step("provision"):
        for script in sorted((PROVISION / "scripts").glob("*.sh")):
            if script.name != Path(TOOLS_SCRIPT).name:
                _run_script(session, run, f"scripts/{script.name}", look=look)


def compile_for_neuron(session: Session, plan: ProvisionPlan, run: Run) -> None:
    """Compile the model for the profile's image sizes if the worker uses Neuron; this takes hours."""
    if plan.drivers.compiled:
        with run.progress.step("compile"):
            _run_script(session, run, NEURON_SCRIPT)


def _run_script(
    session: Session,
    run: Run,
    script: str,
    *words: str,
    look: Callable[[], None] = lambda: None,
    stdin: bytes | None = None,
) -> CommandResult:
    name = " ".join([Path(script).name, *words])
    return run.once(name, CommandResult, lambda: _run_unit(session, run, script, words, look, stdin))


def _run_unit(
    session: Session,
    run: Run,
    script: str,
    words: tuple[str, ...],
    look: Callable[[], None],
    stdin: bytes | None,
) -> CommandResult:
    name = " ".join([Path(script).name, *words])
    run.progress.status(name)
    with run.progress.unit(name):
        unit = units.start(
            session,
            "-".join(["bake", Path(script).stem, *words]),
            "bash",
            f"{BAKE}/{script}",
            *words,
            directory=BAKE,
            environment_file=f"{BAKE}/settings.env",
            stdin=stdin,
        )
        waits = Waits(unit, run)

        def each() -> None:
            look()
            waits.look()

        result = unit.wait(each, seconds=1.0)
    unit.save_logs(run, result)
    if result.exit_code == 0:
        run.progress.note(f"{name} {result.seconds:.1f} s")
    return check_script(result, run)


class Waits:
    """Shows what a script waits for, such as the holder of the package manager's lock."""

    EVERY = 10.0  # seconds; most scripts end sooner and are never asked

    def __init__(self, unit: units.Unit, run: Run) -> None:
        self._unit, self._run = unit, run
        self._next = time.monotonic() + self.EVERY
        self._read = 0

    def look(self) -> None:
        """Read the script's output since the last look."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self.EVERY
        text = self._unit.output("err", after=self._read)
        self._read += len(text.encode())
        if waits := [line for line in text.splitlines() if line.startswith("waiting for ")]:
            self._run.progress.tally.waits.say(waits[-1])


def build_wheel(project: Path, directory: Path) -> Path:
    """Build flux_worker's wheel into `directory`, leaving the project as it is; a wheel is taken as it is."""
    if project.suffix == ".whl":
        return project
    directory.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        source = Path(scratch) / "worker"
        for file in source_files(project):
            target = source / file.relative_to(project)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)
        done = subprocess.run(
            [sys.executable, "-P", "-c", BUILD, str(directory.resolve())],
            cwd=source,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    wheels = list(directory.glob("flux_worker-*.whl"))
    if done.returncode or not wheels:
        raise BakeError(f"the worker's wheel could not be built:\n{done.stderr.strip()}")
    return wheels[0]


def pack(plan: Plan, wheel: Wheel) -> bytes:
    """Pack everything that goes to the builder into a gzipped tar, owned by root."""
    buffer, settings = io.BytesIO(), {**layout.SETTINGS, **plan.provision.settings}
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for file in source_files(PROVISION):
            name = str(file.relative_to(PROVISION))
            content = file.read_bytes()
            if name.endswith(".j2"):
                name, content = name.removesuffix(".j2"), render(content.decode(), settings).encode()
            _add(tar, name, content, executable=bool(file.stat().st_mode & 0o100))
        _add(tar, "settings.env", environment_text(settings).encode())
        _add(tar, "seal.json", json.dumps(yaml.safe_load((PROVISION / "seal.yaml").read_text())).encode())
        _add(tar, "requirements/worker.txt", plan.sources.requirements.read_bytes())
        _add(tar, "requirements/tools.txt", plan.sources.tools.read_bytes())
        if plan.provision.drivers.compiled:
            _add(tar, "requirements/worker-neuron.txt", plan.sources.neuron.read_bytes())
        _add(tar, f"wheels/{wheel.name}", wheel.content)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, *, executable: bool = False) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = 0o755 if executable else 0o644
    tar.addfile(entry, io.BytesIO(content))


def render(template: str, settings: Mapping[str, str]) -> str:
    """Fill in a `.j2` file, which may include others of `provision/`; a name that is not in `settings` is an
    error, never an empty string.
    """
    # Unit and environment files are plain text: HTML escaping would corrupt them.
    environment = Environment(  # noqa: S701
        undefined=StrictUndefined, keep_trailing_newline=True, loader=FileSystemLoader(PROVISION)
    )
    return environment.from_string(template).render(settings)
