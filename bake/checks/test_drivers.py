"""The accelerator's driver, and the kernel that it is built for."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable

import pytest

from bake import layout
from bake.checks.declare import check
from bake.checks.evidence import Compare, not_applicable
from bake.checks.expectations import Expectations
from bake.checks.gathered import Answer, Answers, as_worker

CONTAINED = "systemd-detect-virt --quiet --container && echo yes || echo no"
# The release of the kernel that the image boots, as provision/lib/kernel.sh finds it.
KERNEL = (
    "image=$(grubby --default-kernel 2>/dev/null || ls /boot/vmlinuz-* 2>/dev/null | sort -V | tail -n 1); "
    "case $image in */vmlinuz-*) kernel=${image##*/vmlinuz-} ;; *) kernel=$(uname --kernel-release) ;; esac"
)
# The driver's version by its module for the image's kernel; a container has its package alone.
DRIVER = f"""\
if systemd-detect-virt --quiet --container; then
  if command -v dpkg-query >/dev/null; then dpkg-query --show --showformat '${{Version}}' nvidia-open
  else rpm --query --queryformat '%{{VERSION}}' nvidia-open; fi 2>/dev/null \\
    | sed '/not installed/d; s/^[0-9]*://; s/-.*$//'
else {KERNEL}; modinfo --set-version="$kernel" --field=version nvidia 2>/dev/null; fi || :"""
LIBRARIES = "ldconfig -p | sed -n 's/.*libcuda[.]so[.]1 .* => //p' | xargs -r readlink -f"
KERNELS = """\
if command -v dpkg-query >/dev/null
then dpkg-query --show --showformat '${Package} ${db:Status-Status}\\n' \\
  'linux-image*' 'linux-aws*' 2>/dev/null
else rpm --query --all --queryformat '%{NAME} installed\\n' 'kernel*'; fi || :"""
HELD = """\
if command -v apt-mark >/dev/null; then apt-mark showhold
else sed -n 's/^exclude=//p' /etc/dnf/dnf.conf /etc/yum.conf 2>/dev/null | tr ' ' '\\n'; fi || :"""
STACK = ("aws-neuronx-runtime-lib", "aws-neuronx-dkms", "aws-neuronx-collectives", "aws-neuronx-tools")
NO_DRIVER = "The worker cannot use the accelerator, and the image is useless on the types that it is for."
PIN_DRIVER = "Name `nvidia.driver` in the profile, or a base AMI whose driver is new enough."

Applies = Callable[[Expectations], str | None]


def _on(accelerator: str) -> Applies:
    """The check is for images for that accelerator."""
    return lambda expect: (
        None
        if expect.accelerator == accelerator
        else f"the image is for {expect.accelerator}, not {accelerator}"
    )


def _with_device(accelerator: str) -> Applies:
    """The check needs that accelerator itself."""
    return lambda expect: (
        _on(accelerator)(expect)
        or (None if expect.device else f"the machine has no {accelerator} device; the worker's own type has")
    )


def _driver_needed(expect: Expectations) -> str | None:
    return None if expect.driver_minimum else "the worker's torch needs no NVIDIA driver"


def _numbers(version: str) -> list[int]:
    """`580.65.06` as numbers, to be compared."""
    return [int(part) for part in re.findall(r"\d+", version)]


def _torch(expect: Expectations) -> dict[str, str]:
    return {"torch": f"cat {expect.venv}/lib/python*/site-packages/torch/version.py"}


@check(
    "high",
    "The driver was chosen for one version of CUDA.",
    "Bake again, from the worker's lock.",
    asks=_torch,
)
def test_torch_is_built_for_the_planned_cuda(
    answers: Answers, compare: Compare, expect: Expectations
) -> None:
    """The worker's torch is the build that the plan reckoned the driver for (R-HW)."""
    found = re.search(r"^cuda\b.*= *'?(None|\d+)", answers["torch"].out, re.MULTILINE)
    compare.equal(
        answers["torch"], f"CUDA {expect.cuda}", f"CUDA {found[1]}" if found else answers["torch"].said
    )


@check("critical", NO_DRIVER, PIN_DRIVER, asks=lambda expect: {"driver": DRIVER}, applies=_driver_needed)
def test_driver_is_new_enough(answers: Answers, compare: Compare, expect: Expectations) -> None:
    """Where torch needs an NVIDIA driver, one that is new enough is built for the image's kernel (R-HW)."""
    have, need = answers["driver"].out.strip(), expect.driver_minimum or ""
    right = bool(have) and _numbers(have) >= _numbers(need)
    compare.holds(answers["driver"], right, f"{need} or newer", have or "no driver")


@check(
    "critical",
    NO_DRIVER,
    "Install driver and libraries from one source: nvidia-open brings both.",
    asks=lambda expect: {"driver": DRIVER, "libraries": LIBRARIES},
    applies=_driver_needed,
)
def test_driver_has_its_libraries(answers: Answers, compare: Compare) -> None:
    """Where torch needs an NVIDIA driver, CUDA's library is of the module's version (R-HW)."""
    have, libraries = answers["driver"].out.strip(), answers["libraries"]
    right = bool(libraries.words) and all(path.endswith(f".so.{have}") for path in libraries.words)
    compare.holds(libraries, right, f"libcuda.so.{have}", libraries.words or "no libcuda.so.1")


@check(
    "critical",
    NO_DRIVER,
    "Read what nvidia-smi says, and the kernel's log for NVRM.",
    asks=lambda expect: {
        "driver": DRIVER,
        "gpus": "nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>&1",
    },
    applies=_with_device("cuda"),
)
def test_gpus_answer(answers: Answers, compare: Compare) -> None:
    """The builder's GPUs answer, by the driver that the image boots with (R-HW)."""
    gpus, driver = answers["gpus"], answers["driver"].out.strip()
    right = gpus.code == 0 and set(gpus.words) == {driver}
    compare.holds(gpus, right, f"each GPU by driver {driver}", gpus.said)


@check(
    "critical",
    NO_DRIVER,
    "Compare torch's version of CUDA with the driver's.",
    asks=lambda expect: {
        "torch": f"{expect.venv}/bin/python -B -c 'import torch; print(torch.cuda.is_available())' 2>&1"
    },
    applies=_with_device("cuda"),
)
def test_torch_has_the_gpu(answers: Answers, compare: Compare) -> None:
    """The worker's torch can use the builder's GPU (R-HW)."""
    compare.equal(answers["torch"], "True", answers["torch"].said)


@check(
    "low",
    "Without it the driver is loaded anew for each process, which takes seconds.",
    "`systemctl enable nvidia-persistenced` in the base AMI.",
    asks=lambda expect: {
        "unit": "systemctl show --property=LoadState,UnitFileState,WantedBy,RequiredBy "
        "nvidia-persistenced.service"
    },
    applies=_on("cuda"),
)
def test_persistence_daemon_is_enabled(answers: Answers, compare: Compare) -> None:
    """Where the NVIDIA persistence daemon is there, a boot starts it: the driver stays loaded (R-HW)."""
    found = dict(line.split("=", 1) for line in answers["unit"].lines)
    if found["LoadState"] in ("not-found", "masked"):
        not_applicable("the machine has no persistence daemon")
    # Enabled, generated or static with a link: what counts is that a target wants it.
    wanted = f"{found.get('WantedBy', '')} {found.get('RequiredBy', '')}"
    started = found.get("UnitFileState") == "enabled" or ".target" in wanted
    compare.holds(answers["unit"], started, "enabled, or wanted by a target", answers["unit"].out)


@check(
    "high",
    "A new kernel has no driver until one is built for it, and a boot has no time to build one.",
    "Hold its packages: provision/lib/kernel.sh does; find what took the hold away.",
    asks=lambda expect: {"kernels": KERNELS, "held": HELD},
)
def test_kernel_is_held(answers: Answers, compare: Compare) -> None:
    """No upgrade replaces the kernel that the driver was built for (R-HW)."""
    kernels = {line.split()[0] for line in answers["kernels"].lines if line.endswith(" installed")}
    if not kernels:
        not_applicable("the machine has no kernel of its own: it is a container")
    compare.none(answers["held"], sorted(kernels - set(answers["held"].words)), "no kernel package unheld")


def _package(expect: Expectations, name: str) -> str:
    if expect.packages == "rpm":
        return f"rpm --query --queryformat '%{{VERSION}}-%{{RELEASE}}\\n' {name}"
    return f"dpkg-query --show --showformat '${{Version}}\\n' {name} 2>&1"


@check(
    "critical",
    "Torch on Neuron needs its runtime, its driver and its tools in versions that fit each other.",
    "Pin the versions in `neuron`, and look at the repository that they come from.",
    asks=lambda expect: {"held": HELD, **{name: _package(expect, name) for name in STACK}},
    applies=_on("neuron"),
)
@pytest.mark.parametrize("name", STACK)
def test_neuron_stack(answers: Answers, compare: Compare, expect: Expectations, name: str) -> None:
    """The Neuron stack is complete, at the pinned versions, and held (R-NEURON)."""
    package = answers[name]
    have = package.out.strip() if package.code == 0 else ""
    pinned = expect.neuron.get(name, have)
    right = bool(have) and (have == pinned or have.startswith(f"{pinned}-"))
    compare.holds(package, right, pinned or "installed", have or "not installed")
    held = name in answers["held"].words
    compare.holds(answers["held"], held, f"{name} is held", "held" if held else "not held")


@check(
    "critical",
    NO_DRIVER,
    "Look at the log of dkms: the kernel's headers are missing, or of another version.",
    asks=lambda expect: {
        "contained": CONTAINED,
        "module": f'{KERNEL}; modinfo --set-version="$kernel" --field=version neuron 2>&1',
    },
    applies=_on("neuron"),
)
def test_neuron_module(answers: Answers, compare: Compare) -> None:
    """The Neuron driver is built for the image's kernel (R-NEURON)."""
    if answers["contained"].out.strip() == "yes":
        not_applicable("the machine is a container, whose kernel is its host's")
    module = answers["module"]
    compare.holds(module, module.code == 0, "a module for the kernel", module.said)


@check(
    "critical",
    NO_DRIVER,
    "Read the kernel's log for neuron.",
    asks=lambda expect: {"devices": "ls /dev | grep '^neuron' || :"},
    applies=_with_device("neuron"),
)
def test_neuron_devices_are_there(answers: Answers, compare: Compare) -> None:
    """The builder's Neuron devices are there, as their driver makes them (R-INF2)."""
    devices = answers["devices"]
    compare.holds(devices, "neuron0" in devices.words, "neuron0 among them", devices.words)


@check(
    "high",
    "A source that is left installs from it at the next upgrade; one that is unsigned, from anybody.",
    "Remove the files that were found.",
    asks=lambda expect: {
        "found": "find /etc -maxdepth 3 -name 'bake-n*' -o -maxdepth 3 -name '*.bake-aside'"
    },
)
def test_no_source_of_the_bake_is_left(answers: Answers, compare: Compare) -> None:
    """No source that the bake installed from is left, least of all one that is taken unsigned (R-NEURON)."""
    compare.none(answers["found"], answers["found"].lines, "no source of the bake")


def _compiled(expect: Expectations) -> str | None:
    if (reason := _on("neuron")(expect)) is not None:
        return reason
    return None if expect.neuron_sizes else "the profile compiles nothing for Neuron"


@check(
    "critical",
    "A worker on Neuron draws the sizes that were compiled, and no others.",
    "Bake again: compiling takes its builder's Neuron devices and hours.",
    asks=lambda expect: {"made": f"cat {layout.NEURON_MODELS}/*/compiled.json"},
    applies=_compiled,
)
def test_compiled_for_neuron(answers: Answers, compare: Compare, expect: Expectations) -> None:
    """The planned sizes of images are compiled for Neuron, of the planned model, and no others (R-INF2)."""
    made = answers["made"]
    sizes = {f"{w}x{h}" for w, h in re.findall(r'"width": (\d+),\s+"height": (\d+)', made.out)}
    compare.equal(made, set(expect.neuron_sizes), sizes)
    compare.equal(made, {expect.revision}, set(re.findall(r'"revision": "(\w+)"', made.out)))


def _worker_check(expect: Expectations) -> dict[str, str]:
    command = [f"{expect.serving_venv}/bin/flux-worker", "check", "--json"]
    return {"found": shlex.join([*as_worker(expect), *command])}


@check(
    "critical",
    "What the worker does not find it does not serve.",
    "Run `flux-worker check` as its user, and read what it says.",
    asks=_worker_check,
    applies=_compiled,
)
def test_worker_finds_what_is_compiled(answers: Answers, compare: Compare, expect: Expectations) -> None:
    """The worker's own command, run as its user, finds all that is compiled and names its sizes (R-INF2)."""
    found = answers["found"]
    # It ends with 78 where the builder has too few devices to draw: what it found is told all the same.
    compare.holds(found, found.code in (0, 78), "exit code 0 or 78", found.code)
    compare.equal(found, set(expect.neuron_sizes), _sizes(found))


def _sizes(found: Answer) -> set[str]:
    try:
        shapes = json.loads(found.out)["neuron"]["shapes"]
    except (ValueError, KeyError, TypeError):
        return {found.said}
    return {f"{shape['width']}x{shape['height']}" for shape in shapes}


@check(
    "medium",
    "What the compiler leaves takes gigabytes of every volume.",
    "Remove the folders that were found.",
    asks=lambda expect: {
        "found": f"find /tmp /var/tmp /root {layout.NEURON_MODELS} -maxdepth 1 "
        "\\( -name 'neuron-*' -o -name '.partial-*' \\) 2>/dev/null || :"
    },
    applies=_on("neuron"),
)
def test_compiler_left_nothing_else(answers: Answers, compare: Compare) -> None:
    """Neuron's compiler left no cache and no half of a model behind (R-DISK)."""
    compare.none(answers["found"], answers["found"].lines, "no folder of the compiler")
