"""The worker: its unit, its environment, and what it runs with."""

from __future__ import annotations

import shlex

from bake import layout
from bake.checks.declare import check
from bake.checks.evidence import Caused, Compare
from bake.checks.expectations import Expectations
from bake.checks.gathered import Answer, Answers, Facts

# A fresh volume is filled from S3 while the weights are read; systemd's default of 90 s would kill the start.
SHORTEST_START_S = 600
# A spot instance ends two minutes after its notice.
LONGEST_STOP_S = 110
# An upload with its retries may take 90 s without a sign of life.
SHORTEST_WATCHDOG_S = 100
LONGEST_WATCHDOG_S = 600
EX_CONFIG = "78"
# systemd calls up to 5.0 "OK"; a service without any protection has 9.6.
LARGEST_EXPOSURE = 3.0
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600}
OUR_UNIT = "The unit comes from provision/rootfs: find what replaced it, a drop-in among others."


def seconds(span: str) -> float:
    """Read a time span as systemd prints it: `1min 30s`, `infinity`."""
    if span == "infinity":
        return float("inf")
    total = 0.0
    for word in span.split():
        number = word.rstrip("abcdefghijklmnopqrstuvwxyz")
        total += float(number) * SECONDS[word[len(number) :] or "s"]
    return total


@check(
    "high",
    "systemd ignores a line that it does not understand, and the protection that it asked for is missing.",
    OUR_UNIT,
    asks=lambda expect: {"said": f"systemd-analyze verify --man=no {expect.unit} 2>&1"},
)
def test_unit_is_valid(answers: Answers, compare: Compare, expect: Expectations) -> None:
    """systemd finds nothing wrong with the unit (R-SYSTEMD)."""
    said = answers["said"]
    found = [line for line in said.lines if expect.unit in line]
    found += [f"exit code {said.code}: {said.out.strip()}"] if said.code and not found else []
    compare.none(said, found, "no remark on the unit")


@check(
    "medium",
    "The worker reads what strangers send: prompts. A hole in it must not open the rest of the machine.",
    OUR_UNIT,
    asks=lambda expect: {"rated": f"systemd-analyze security --no-pager {expect.unit}"},
)
def test_unit_sandbox(answers: Answers, compare: Compare) -> None:
    """The worker is kept apart from the rest of the system: systemd rates it 3.0 at most (R-SYSTEMD)."""
    exposure = _exposure(answers["rated"])
    compare.holds(answers["rated"], exposure <= LARGEST_EXPOSURE, f"{LARGEST_EXPOSURE} at most", exposure)


def _exposure(rated: Answer) -> float:
    """What is said in the last line: "→ Overall exposure level for flux-worker.service: 2.1 OK :-)"."""
    words = rated.lines[-1].rpartition(": ")[2].split() if rated.lines else []
    return float(words[0]) if words else float("inf")


def _of_several(expect: Expectations) -> dict[str, str]:
    first = layout.SERVICE_OF_SEVERAL.replace("@", "@0")
    return {
        "shown": f"systemctl show {first} -p Type -p NotifyAccess -p User -p Restart -p PartOf",
        "said": f"systemd-analyze verify --man=no {first} 2>&1",
        "rated": f"systemd-analyze security --no-pager {first}",
    }


@check(
    "high",
    "An instance with several GPUs runs one worker on each, from a unit of its own.",
    OUR_UNIT,
    asks=_of_several,
)
def test_unit_of_several(answers: Answers, compare: Compare, expect: Expectations) -> None:
    """The unit of one worker of several is valid, kept apart, and stops with the service (R-SYSTEMD)."""
    shown = answers["shown"]
    wanted = ["NotifyAccess=main", f"PartOf={expect.unit}", "Restart=on-failure", "Type=notify"]
    compare.equal(shown, [*wanted, f"User={expect.user}"], sorted(shown.lines))
    said, rated = answers["said"], answers["rated"]
    remarks = [line for line in said.lines if layout.SERVICE_OF_SEVERAL.removesuffix(".service") in line]
    remarks += [f"exit code {said.code}: {said.out.strip()}"] if said.code and not remarks else []
    compare.none(said, remarks, "no remark on the unit")
    exposure = _exposure(rated)
    compare.holds(rated, exposure <= LARGEST_EXPOSURE, f"{LARGEST_EXPOSURE} at most", exposure)


@check("high", "Otherwise a boot is called finished before the model is loaded.", OUR_UNIT)
def test_unit_type(unit: Facts, compare: Compare) -> None:
    """The unit is ready only when the worker says so: Type=notify (R-SYSTEMD)."""
    compare.equal(unit, ("notify", "main"), (unit.get("Type"), unit.get("NotifyAccess")))


@check("critical", "A worker that runs as root owns the machine, and so does a hole in it.", OUR_UNIT)
def test_unit_user(unit: Facts, compare: Compare, expect: Expectations) -> None:
    """The worker runs as the image's user, not as root (R-SYSTEMD)."""
    compare.equal(unit, expect.user, unit.get("User"))


@check("high", "Another Python has other packages: nobody has tried the model with them.", OUR_UNIT)
def test_unit_command(unit: Facts, compare: Compare, expect: Expectations) -> None:
    """The unit starts the worker from its own virtual environment (R-SYSTEMD)."""
    command = f"{expect.serving_venv}/bin/flux-worker"
    found = unit.get("ExecStart", "")
    right = f"path={command} ;" in found and f"argv[]={command} serve ;" in found
    compare.holds(unit, right, f"{command} serve", found)


@check(
    "high",
    "Without its file the worker would start with the wrong model, or download one.",
    OUR_UNIT,
    asks=lambda expect: {"kind": f"stat --format=%F {expect.worker_env}"},
)
def test_environment_files(answers: Answers, unit: Facts, compare: Compare, expect: Expectations) -> None:
    """The unit reads its environment from files, and the one it cannot do without exists (R-SYSTEMD)."""
    found, wanted = unit.get("EnvironmentFiles", ""), f"{expect.worker_env} (ignore_errors=no)"
    compare.holds(unit, wanted in found, wanted, found)
    compare.equal(answers["kind"], "regular file", answers["kind"].said)


def _unreadable(expect: Expectations) -> dict[str, str]:
    places = [layout.WORKER, layout.LIBRARY, expect.worker_env, expect.repo_dir]
    places += [f"{layout.UNITS}/{unit}" for unit in (expect.unit, layout.SERVICE_OF_SEVERAL)]
    places += [f"{expect.serving_venv}/bin/python"]
    wrong = "! -type l ! -readable -o -type d ! -executable -o -type f -perm /111 ! -executable"
    return {"found": f"cd / && runuser -u {expect.user} -- find {shlex.join(places)} {wrong} 2>&1"}


@check(
    "critical",
    "A worker that cannot read its model or its code does not start.",
    "Give the files to root with mode 644, their folders 755, in the script of provision/ that makes them.",
    asks=_unreadable,
)
def test_worker_may_read_what_it_needs(answers: Answers, compare: Compare) -> None:
    """The worker's user may read and execute all that was made for it, parent folders too (R-SYSTEMD)."""
    # Missing files are another check's business.
    found = [line for line in answers["found"].lines if not line.endswith("No such file or directory")]
    compare.none(answers["found"], found, "nothing that it may not read or execute")


@check(
    "high",
    "systemd does not start a unit whose working directory is missing.",
    "Restore the folder in provision/40-service.sh.",
    asks=lambda expect: {"folder": f"stat --format='%F %U' {expect.working_directory}"},
)
def test_working_directory(answers: Answers, unit: Facts, compare: Compare, expect: Expectations) -> None:
    """The unit's working directory exists and belongs to the worker's user (R-SYSTEMD)."""
    compare.equal(unit, expect.working_directory, unit.get("WorkingDirectory"))
    compare.equal(answers["folder"], f"directory {expect.user}", answers["folder"].said)


@check("high", "A cold volume fills slowly, and a spot instance ends two minutes after its notice.", OUR_UNIT)
def test_unit_time_limits(unit: Facts, compare: Compare) -> None:
    """Cold weights have time to load, and a stop ends within a spot notice (R-SPOT)."""
    start, stop = unit.get("TimeoutStartUSec", "0"), unit.get("TimeoutStopUSec", "infinity")
    compare.holds(unit, seconds(start) >= SHORTEST_START_S, f"a start of {SHORTEST_START_S} s or more", start)
    compare.holds(unit, seconds(stop) < LONGEST_STOP_S, f"a stop of less than {LONGEST_STOP_S} s", stop)


@check(
    "medium",
    "A worker that hangs takes jobs and draws nothing, for as long as its instance is paid for.",
    OUR_UNIT,
    # `systemctl show` knows the watchdog of a running service only.
    asks=lambda expect: {"unit": f"systemctl cat {expect.unit}"},
)
def test_unit_watchdog(answers: Answers, compare: Compare) -> None:
    """A worker that hangs, on its GPU say, is noticed and started again (R-SYSTEMD)."""
    lines = answers["unit"].lines
    spans = [line.removeprefix("WatchdogSec=") for line in lines if line.startswith("WatchdogSec=")]
    right = bool(spans) and SHORTEST_WATCHDOG_S <= seconds(spans[-1]) <= LONGEST_WATCHDOG_S
    expected = f"WatchdogSec= of {SHORTEST_WATCHDOG_S} to {LONGEST_WATCHDOG_S} s"
    compare.holds(
        answers["unit"], right, expected, f"WatchdogSec={spans[-1]}" if spans else "no WatchdogSec="
    )


@check("high", "A crash must not idle an instance; a mistake in its settings must not loop.", OUR_UNIT)
def test_unit_restarts(unit: Facts, compare: Compare) -> None:
    """A crashed worker is started again, however often, a misconfigured one is not (R-SYSTEMD)."""
    compare.equal(unit, ("on-failure", "0"), (unit.get("Restart"), unit.get("StartLimitIntervalUSec")))
    prevented = unit.get("RestartPreventExitStatus", "")
    compare.holds(unit, EX_CONFIG in prevented.split(), f"no restart after exit code {EX_CONFIG}", prevented)


@check(
    "critical",
    "An instance that boots without its worker costs money and draws nothing.",
    "`systemctl enable` the unit in provision/40-service.sh.",
    asks=lambda expect: {"enabled": f"systemctl is-enabled {expect.unit}"},
)
def test_enabled(answers: Answers, unit: Facts, compare: Compare) -> None:
    """A boot starts the worker, after cloud-init has written its queue (R-SYSTEMD, R-USERDATA)."""
    compare.equal(answers["enabled"], "enabled", answers["enabled"].said)
    after = unit.get("After", "")
    compare.holds(unit, "cloud-final.service" in after.split(), "After=cloud-final.service", f"After={after}")


def _of_warm_up(expect: Expectations) -> dict[str, str]:
    programs = " ".join(f"{layout.LIBRARY}/{name}.py" for name in ("warm", "reading_order", "surroundings"))
    return {
        "enabled": f"systemctl is-enabled {layout.WARM_SERVICE}",
        "said": f"systemd-analyze verify --man=no {layout.WARM_SERVICE} 2>&1",
        "files": f"stat --format='%n %U %a' {layout.UNITS}/{layout.WARM_SERVICE} {programs}",
    }


@check(
    "medium",
    "A fresh volume is filled from S3 while it is read: without reading ahead a start takes minutes longer.",
    "`systemctl enable` the unit in provision/40-service.sh, and find what replaced it or changed its owner.",
    asks=_of_warm_up,
)
def test_warm_up(answers: Answers, compare: Compare) -> None:
    """Each boot reads ahead what the worker needs, by a unit that only root can change (R-SPOT)."""
    enabled, said, files = (answers[name] for name in ("enabled", "said", "files"))
    compare.equal(enabled, "enabled", enabled.said)
    compare.none(said, [line for line in said.lines if layout.WARM_SERVICE in line], "no remark on the unit")
    compare.holds(files, files.code == 0 and len(files.lines) == 4, "four files", files.said)
    rows = [line.rsplit(" ", 2) for line in files.lines]
    wrong = [" ".join(row) for row in rows if row[1] != "root" or int(row[2], 8) & 0o022]
    compare.none(files, wrong, "root's, and for nobody else to write")


@check(
    "high",
    "What a run leaves in its state would be on every instance.",
    "Do not start it while baking.",
    on_builder=True,
)
def test_not_started_here(unit: Facts, compare: Compare) -> None:
    """The worker has not been started on the builder, so nothing of a run is on the image (R-SPOT)."""
    compare.equal(unit, "inactive", unit.get("ActiveState"))


@check(
    "critical",
    "A wrong variable makes the worker load another model, or fetch 34 GB at each start.",
    "The file is rendered from provision/rootfs: bake again, and look at what changes it.",
    booted=True,
)
def test_worker_environment(worker_env: Facts, compare: Compare, expect: Expectations) -> None:
    """The baked environment names model, revision and place, and forbids downloads (R-CACHE, R-MODEL)."""
    wanted = {
        "FLUX_MODEL_REPO": expect.repo,
        "FLUX_MODEL_REVISION": expect.revision,
        "HF_HUB_CACHE": expect.cache_dir,
        "HF_HUB_OFFLINE": "1",
        "FLUX_MODEL_DIR": expect.model_dir if expect.precision == "int8" else None,
    }
    compare.equal(worker_env, wanted, {name: worker_env.get(name) for name in wanted})


def _merged(expect: Expectations) -> dict[str, str]:
    """Let systemd merge the unit's environment: files after variables, the last one wins."""
    return {"backend": _MERGE.format(unit=expect.unit)}


_MERGE = """\
set --
for name in Environment UnsetEnvironment; do
  value=$(systemctl show --value --property=$name {unit})
  [ -z "$value" ] || set -- "$@" "--property=$name=$value"
done
while read -r path ignore; do
  [ -n "$path" ] || continue
  case $ignore in *yes*) path=-$path ;; esac
  set -- "$@" "--property=EnvironmentFile=$path"
done <<END
$(systemctl show --value --property=EnvironmentFiles {unit})
END
systemd-run --quiet --pipe --wait --collect "$@" printenv FLUX_BACKEND"""


@check(
    "critical",
    "A worker that chooses by itself falls back to the CPU where a driver is missing: slow, and unnoticed.",
    "Look at FLUX_BACKEND in the worker's environment files and in drop-ins of its unit.",
    asks=_merged,
)
def test_backend(answers: Answers, compare: Compare, expect: Expectations) -> None:
    """The service draws on what the plan says, and on nothing that it finds: FLUX_BACKEND names it (R-HW)."""
    wanted = expect.drawn_on if expect.moment == "booted" else expect.backend
    compare.equal(answers["backend"], wanted, answers["backend"].out.strip() or "not set")


@check(
    "high",
    "Whoever can change what the worker runs with can have it run what they like.",
    "Give the file to root with mode 644.",
    cis="Ubuntu 22.04 v2.0.0: 7.1.11",
    asks=lambda expect: {
        "files": f"stat --format='%n %U %a' {expect.worker_env} {expect.serving_venv}/bin/flux-worker "
        f"{layout.UNITS}/{expect.unit} {layout.UNITS}/{layout.SERVICE_OF_SEVERAL}"
    },
)
def test_environment_is_roots(answers: Answers, compare: Compare) -> None:
    """Only root can change what the worker runs with (R-SYSTEMD)."""
    files = answers["files"]
    compare.holds(files, files.code == 0 and len(files.lines) == 4, "four files", files.said)
    rows = [line.rsplit(" ", 2) for line in files.lines]
    wrong = [" ".join(row) for row in rows if row[1] != "root" or int(row[2], 8) & 0o022]
    compare.none(files, wrong, "root's, and for nobody else to write")


@check(
    "medium",
    "HF_HOME holds the token beside the cache, and would move both.",
    "Remove the line from the file of the base AMI that was found.",
)
def test_no_hf_home(system: Facts, compare: Compare, caused: Caused) -> None:
    """HF_HOME, which holds the token beside the cache, is set nowhere; HF_HUB_CACHE alone is (R-CACHE)."""
    compare.none(system, caused("hf_home", system["hf_home"]), "no file that sets HF_HOME")


@check(
    "critical",
    "A worker that does not even show its help does not start.",
    "Read the message: a package is missing, or its Python.",
    asks=lambda expect: {"help": f"runuser -u {expect.user} -- {expect.serving_venv}/bin/flux-worker --help"},
)
def test_command_runs(answers: Answers, compare: Compare) -> None:
    """The worker's command runs as its user (R-SYSTEMD)."""
    said = answers["help"]
    compare.holds(said, said.code == 0 and "serve" in said.out, "its help, which names `serve`", said.said)


@check(
    "high",
    "Packages of the wrong versions fail when they are used first, which may be hours after the boot.",
    "Compile the locks anew: `make lock`.",
    on_builder=True,  # the seal removes uv
    asks=lambda expect: {
        "said": f"{layout.TOOLS}/uv pip check --no-cache --python {expect.venv}/bin/python 2>&1"
    },
)
def test_packages_fit(answers: Answers, compare: Compare) -> None:
    """The packages in the worker's environment fit each other (R-GIT-S3)."""
    compare.holds(answers["said"], answers["said"].code == 0, "no conflict", answers["said"].said)


@check(
    "high", "The image serves from its disk: a token on it would leak to all who launch it.", "See R-CONFIG."
)
def test_no_token_for_worker(model: Facts, compare: Compare) -> None:
    """The worker finds no Hugging Face token: it needs none (R-CONFIG)."""
    compare.equal(model, "no token", "a token" if model["token_visible"] else "no token")


@check(
    "high",
    "xformers breaks FLUX in diffusers 0.31 and newer: TypeError, UnboundLocalError.",
    "Remove it from what the worker's lock installs.",
)
def test_no_xformers(model: Facts, compare: Compare) -> None:
    """xformers is not installed: it breaks FLUX in diffusers >= 0.31 (R-XFORMERS)."""
    compare.equal(model, "not installed", model["packages"]["xformers"] or "not installed")


@check(
    "high",
    "Without accelerate, diffusers loads the model twice into memory, and the OOM killer ends the worker.",
    "Put it back into worker/pyproject.toml.",
)
def test_accelerate(model: Facts, compare: Compare) -> None:
    """accelerate is installed: diffusers quietly drops low_cpu_mem_usage without it (R-DTYPE, R-OOM)."""
    found = model["packages"]["accelerate"]
    compare.holds(model, found is not None, "installed", found or "not installed")


@check(
    "medium",
    "The locked packages were chosen for one version of Python.",
    "Bake again: 20-worker.sh makes the environment with the version of the lock.",
)
def test_python(model: Facts, compare: Compare, expect: Expectations) -> None:
    """The worker's environment runs the profile's version of Python (R-SYSTEMD)."""
    compare.equal(model, expect.python, model["python"])
