"""The worker's service: its unit, environment and command."""

from __future__ import annotations

import shlex
from typing import Any

from testinfra.host import Host

from bake import layout
from bake.checks.caused import Caused
from bake.checks.expectations import Expectations

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


def seconds(span: str) -> float:
    """Read a time span as systemd prints it: `1min 30s`, `infinity`."""
    if span == "infinity":
        return float("inf")
    total = 0.0
    for word in span.split():
        number = word.rstrip("abcdefghijklmnopqrstuvwxyz")
        total += float(number) * SECONDS[word[len(number) :] or "s"]
    return total


def test_unit_is_valid(host: Host, expect: Expectations) -> None:
    """systemd finds nothing wrong with the unit (R-SYSTEMD)."""
    done = host.run("systemd-analyze verify --man=no %s", expect.unit)
    said = [line for line in done.stderr.splitlines() if expect.unit in line]
    assert done.rc == 0 and said == [], done.stderr


def test_unit_sandbox(host: Host, expect: Expectations) -> None:
    """The worker is kept apart from the rest of the system: systemd rates its exposure 3.0 at most."""
    # Its last line: "→ Overall exposure level for flux-worker.service: 2.1 OK :-)".
    lines = host.check_output("systemd-analyze security --no-pager %s", expect.unit).splitlines()
    exposure = float(lines[-1].rpartition(": ")[2].split()[0])
    assert exposure <= LARGEST_EXPOSURE


def test_unit_type(unit: dict[str, str]) -> None:
    """The unit is ready only when the worker says so: Type=notify (R-SYSTEMD)."""
    assert (unit["Type"], unit["NotifyAccess"]) == ("notify", "main")


def test_unit_user(unit: dict[str, str], expect: Expectations) -> None:
    """The worker runs as the image's user, not as root (R-SYSTEMD)."""
    assert unit["User"] == expect.user


def test_unit_command(unit: dict[str, str], expect: Expectations) -> None:
    """The unit starts the worker from its own virtual environment."""
    assert f"path={expect.serving_venv}/bin/flux-worker ;" in unit["ExecStart"]
    assert f"argv[]={expect.serving_venv}/bin/flux-worker serve ;" in unit["ExecStart"]


def test_environment_files(host: Host, unit: dict[str, str], expect: Expectations) -> None:
    """The unit reads its environment from files, and the one it cannot do without exists (R-SYSTEMD)."""
    assert f"{expect.worker_env} (ignore_errors=no)" in unit["EnvironmentFiles"]
    assert host.file(expect.worker_env).is_file


def test_worker_may_read_what_it_needs(host: Host, expect: Expectations) -> None:
    """The worker's user may read and execute all that was made for it, parent folders too (R-SYSTEMD)."""
    places = [layout.WORKER, layout.LIBRARY, expect.worker_env, expect.repo_dir]
    places += [f"{layout.UNITS}/{expect.unit}", f"{expect.serving_venv}/bin/python"]
    wrong = "! -type l ! -readable -o -type d ! -executable -o -type f -perm /111 ! -executable"
    find = f"cd / && LC_ALL=C runuser -u {expect.user} -- find {shlex.join(places)} {wrong}"
    done = host.run(find)
    # Missing files are another check's business.
    refused = [line for line in done.stderr.splitlines() if not line.endswith("No such file or directory")]
    assert [*done.stdout.splitlines(), *refused] == []


def test_working_directory(host: Host, unit: dict[str, str], expect: Expectations) -> None:
    """The unit's working directory exists and belongs to the worker's user (R-SYSTEMD)."""
    assert unit["WorkingDirectory"] == expect.working_directory
    directory = host.file(expect.working_directory)
    assert directory.is_directory
    assert directory.user == expect.user


def test_unit_time_limits(unit: dict[str, str]) -> None:
    """Cold weights have time to load, and a stop ends within a spot notice."""
    assert seconds(unit["TimeoutStartUSec"]) >= SHORTEST_START_S
    assert seconds(unit["TimeoutStopUSec"]) < LONGEST_STOP_S


def test_unit_watchdog(host: Host, expect: Expectations) -> None:
    """A worker that hangs, on its GPU say, is noticed and started again (R-SYSTEMD)."""
    # `systemctl show` knows the watchdog of a running service only.
    lines = host.check_output("systemctl cat %s", expect.unit).splitlines()
    spans = [line.removeprefix("WatchdogSec=") for line in lines if line.startswith("WatchdogSec=")]
    assert spans, "the unit has no WatchdogSec="
    assert SHORTEST_WATCHDOG_S <= seconds(spans[-1]) <= LONGEST_WATCHDOG_S


def test_unit_restarts(unit: dict[str, str]) -> None:
    """A crashed worker is started again, however often, a misconfigured one is not."""
    assert (unit["Restart"], unit["StartLimitIntervalUSec"]) == ("on-failure", "0")
    assert EX_CONFIG in unit["RestartPreventExitStatus"].split()


def test_enabled(host: Host, unit: dict[str, str], expect: Expectations) -> None:
    """A boot starts the worker, after cloud-init has written its queue (R-SYSTEMD, R-USERDATA)."""
    assert host.service(expect.unit).is_enabled
    assert "cloud-final.service" in unit["After"].split()


def test_not_started_here(unit: dict[str, str]) -> None:
    """The worker has not been started on the builder, so nothing of a run is on the image."""
    assert unit["ActiveState"] == "inactive"


def test_worker_environment(worker_env: dict[str, str], expect: Expectations) -> None:
    """The baked environment names model, revision and place, and forbids downloads (R-CACHE, R-MODEL)."""
    wanted = {
        "FLUX_MODEL_REPO": expect.repo,
        "FLUX_MODEL_REVISION": expect.revision,
        "HF_HUB_CACHE": expect.cache_dir,
        "HF_HUB_OFFLINE": "1",
        "FLUX_MODEL_DIR": expect.model_dir if expect.precision == "int8" else None,
    }
    assert {name: worker_env.get(name) for name in wanted} == wanted


def test_backend(host: Host, unit: dict[str, str], expect: Expectations) -> None:
    """The service draws on what the plan says, and on nothing that it finds: FLUX_BACKEND names it (R-HW)."""
    # Let systemd merge the unit's environment: files after variables, the last one wins.
    given = [f"{name}={unit[name]}" for name in ("Environment", "UnsetEnvironment") if unit.get(name)]
    for line in unit.get("EnvironmentFiles", "").splitlines():
        path, _, ignore = line.rpartition(" (ignore_errors=")
        given.append(f"EnvironmentFile={'-' if ignore == 'yes)' else ''}{path}")
    command = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect"]
    command += [f"--property={one}" for one in given]
    found = host.run(shlex.join([*command, "printenv", "FLUX_BACKEND"])).stdout.strip()
    assert found == expect.backend, (
        f"FLUX_BACKEND is {found or 'not set'}, and the plan says {expect.backend}"
    )


def test_environment_is_roots(host: Host, expect: Expectations) -> None:
    """Only root can change what the worker runs with (R-SYSTEMD)."""
    command, unit = f"{expect.serving_venv}/bin/flux-worker", f"{layout.UNITS}/{expect.unit}"
    for path in (expect.worker_env, command, unit):
        file = host.file(path)
        assert (file.user, file.mode & 0o022) == ("root", 0), path


def test_no_hf_home(system: dict[str, Any], caused: Caused) -> None:
    """HF_HOME, which holds the token beside the cache, is set nowhere; HF_HUB_CACHE alone is (R-CACHE)."""
    assert caused("hf_home", system["hf_home"]) == []


def test_command_runs(host: Host, expect: Expectations) -> None:
    """The worker's command runs as its user."""
    with host.sudo(expect.user):
        done = host.run("%s --help", f"{expect.serving_venv}/bin/flux-worker")
    assert done.rc == 0, done.stderr
    assert "serve" in done.stdout


def test_packages_fit(host: Host, expect: Expectations) -> None:
    """The packages in the worker's environment fit each other."""
    python = shlex.quote(f"{expect.venv}/bin/python")
    done = host.run(f"{layout.TOOLS}/uv pip check --no-cache --python {python}")
    assert done.rc == 0, done.stderr
