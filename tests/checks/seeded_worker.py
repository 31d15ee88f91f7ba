"""Faults to seed on a provisioned builder: of the worker's unit, its environment, its packages, its model."""

from __future__ import annotations

from .faults import Change, Fault, stand_in
from .seeded_faults import NOT_LOADED

UNIT = "/etc/systemd/system/flux-worker.service"
DROP_INS = f"{UNIT}.d"
ONE_OF_SEVERAL = "/etc/systemd/system/flux-worker@.service.d"
ENVIRONMENT = "/etc/flux-worker/worker.env"
PACKAGES = "/opt/flux-worker/venv/lib/$PY/site-packages"


def _drop_in(name: str, red: str, found: str, *lines: str, section: str = "Service") -> Fault:
    """A drop-in of the worker's unit, which systemd reads."""
    text, file = "\\n".join([f"[{section}]", *lines]), f"{DROP_INS}/{name}.conf"
    return Fault(
        f"worker.{red}",
        found,
        f"install -d {DROP_INS}; printf '{text}\\n' >{file}; systemctl daemon-reload",
        f"rm {file}; rmdir --ignore-fail-on-non-empty {DROP_INS}; systemctl daemon-reload",
    )


def _environment(red: str, found: str, change: str) -> Fault:
    """A change of worker.env by sed."""
    kept = f"/root/env-{red}"
    return Fault(
        f"worker.{red}",
        found,
        f"cp -a {ENVIRONMENT} {kept}; sed -i '{change}' {ENVIRONMENT}",
        f"mv {kept} {ENVIRONMENT}",
    )


# A package of a module's name comes before the module, whose file, bytecode and trace stay as they are.
_BEFORE = """\
from pathlib import Path as _Path
_module = _Path(__file__).parent.with_suffix(".py")
__package__ = __name__.rpartition(".")[0]
exec(compile(_module.read_text(), str(_module), "exec"))"""


def _code(red: str, found: str, module: str, *lines: str) -> Fault:
    """Lines at the end of a module of the worker, after those of an earlier fault."""
    folder, text = f"{PACKAGES}/flux_worker/{module.removesuffix('.py')}", "\n".join(lines)
    file, kept = f"{folder}/__init__.py", f"/root/code-{red}"
    return Fault(
        red,
        found,
        f"if [ -e {file} ]; then cp {file} {kept}; else install -d {folder}; cat >{file} <<'END'\n"
        f"{_BEFORE}\nEND\nfi; cat >>{file} <<'END'\n{text}\nEND",
        f"if [ -e {kept} ]; then mv {kept} {file}; else rm -r {folder}; fi",
    )


def _loading(red: str, found: str, change: str) -> Fault:
    """A worker whose `load` does something more."""
    before = f"_without_{red}"
    lines = (f"{before} = load", "def load(*given, **named):", f"    model = {before}(*given, **named)")
    return _code(f"weights.{red}", found, "inference/model.py", *lines, f"    {change}", "    return model")


def _package(name: str, *more: str) -> tuple[str, str]:
    """Scripts that install a package without content, and remove it."""
    folder = f"{PACKAGES}/{name}-1.0.dist-info"
    metadata = "\\n".join(["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *more])
    return (
        f"install -d {folder}; touch {folder}/RECORD; printf '{metadata}\\n' >{folder}/METADATA;"
        f" printf 'Wheel-Version: 1.0\\nTag: py3-none-any\\n' >{folder}/WHEEL",
        f"rm -r {folder}",
    )


# Started with other lines than it has afterwards: what its unit says is right, and all the same it runs.
_RUNNING = "/run/systemd/system/flux-worker.service.d"
_STARTS = "[Service]\\nType=exec\\nExecCondition=\\nExecStart=\\nExecStart=/bin/sleep infinity\\n"
SERVICE = [
    Fault(
        "worker.not_started_here",
        "found active",
        f"install -d {_RUNNING}; printf '{_STARTS}' >{_RUNNING}/start.conf; systemctl daemon-reload;"
        f" systemctl start flux-worker; rm -r {_RUNNING}; systemctl daemon-reload",
        "systemctl kill --signal=KILL flux-worker; systemctl stop flux-worker;"
        " systemctl reset-failed flux-worker 2>/dev/null || :",
    ),
    _drop_in("key", "unit_is_valid", "'ProtectAll'", "ProtectAll=yes"),
    _drop_in(
        "sandbox",
        "unit_sandbox",
        "3.0 at most",
        "ProtectSystem=no",
        "RestrictNamespaces=no",
        "CapabilityBoundingSet=~",
        "SystemCallFilter=",
    ),
    Fault(
        "worker.unit_of_several",
        "User=root",
        f"install -d {ONE_OF_SEVERAL}; printf '[Service]\\nUser=root\\n' >{ONE_OF_SEVERAL}/user.conf;"
        " systemctl daemon-reload",
        f"rm -r {ONE_OF_SEVERAL}; systemctl daemon-reload",
    ),
    _drop_in("type", "unit_type", "all", "NotifyAccess=all"),
    _drop_in("user", "unit_user", "found root", "User=root"),
    _drop_in(
        "command",
        "unit_command",
        "/usr/bin/python3",
        "ExecStart=",
        "ExecStart=/usr/bin/python3 -m flux_worker",
    ),
    _drop_in(
        "files",
        "environment_files",
        "(ignore_errors=yes)",
        "EnvironmentFile=",
        f"EnvironmentFile=-{ENVIRONMENT}",
    ),
    _drop_in("folder", "working_directory", "found /srv", "WorkingDirectory=/srv"),
    _drop_in("stop", "unit_time_limits", "found 10min", "TimeoutStopSec=600"),
    _drop_in("watchdog", "unit_watchdog", "found WatchdogSec=20", "WatchdogSec=20"),
    _drop_in("restart", "unit_restarts", "no", "Restart=no"),
    Fault(
        "worker.working_directory",
        "found exit code 1: stat: cannot statx '/var/lib/flux-worker'",
        "rmdir /var/lib/flux-worker",
        "install -d -o ubuntu -g ubuntu /var/lib/flux-worker",
    ),
    Fault(
        "worker.enabled", "disabled", "systemctl disable -q flux-worker", "systemctl enable -q flux-worker"
    ),
    Fault(
        "worker.warm_up",
        "exit code 1: disabled",
        "systemctl disable -q flux-warm; chown ubuntu /usr/lib/flux-worker/warm.py",
        "systemctl enable -q flux-warm; chown root /usr/lib/flux-worker/warm.py",
    ),
    Fault(
        "worker.environment_is_roots",
        f"{ENVIRONMENT} ubuntu 644",
        f"chown ubuntu {ENVIRONMENT}",
        f"chown root {ENVIRONMENT}",
    ),
    Fault(
        "worker.worker_may_read_what_it_needs",
        "'/usr/lib/flux-worker'",
        "chmod 700 /usr/lib/flux-worker",
        "chmod 755 /usr/lib/flux-worker",
    ),
    Fault(
        "worker.no_hf_home",
        "/etc/profile.d/hf.sh",
        "echo 'export HF_HOME=/opt/hf' >/etc/profile.d/hf.sh",
        "rm /etc/profile.d/hf.sh",
    ),
    _environment("worker_environment", "hub/", "s#^HF_HUB_CACHE=.*#&/#"),
    _environment("backend", "found auto", "s/^FLUX_BACKEND=.*/FLUX_BACKEND=auto/"),
    # Anything is a token to huggingface_hub; this one looks like none.
    _environment("no_token_for_worker", "found a token", "$aHF_TOKEN=anything"),
    Fault("worker.no_xformers", "found 1.0", *_package("xformers")),
    Fault("worker.packages_fit", "not-there", *_package("misfit", "Requires-Dist: not-there")),
    _code("worker.command_runs", "exit code 1", "cli.py", "raise SystemExit('broken')"),
    Fault("worker.python", "expected 3.99", expect=lambda expect: {"python": "3.99"}),
]
MODEL = [
    # The worker itself refuses another model, so that it is the worker that must be broken here.
    _loading(
        "is_flux_dev",
        "FLUX.1-schnell, without guidance",
        "model.pipeline.transformer.register_to_config(guidance_embeds=False)",
    ),
    _loading("precision", "vae: torch.float16", "model.pipeline.vae.to(torch.float16)"),
    _loading("no_offload", "text_encoder", "model.pipeline.text_encoder._hf_hook = None"),
    # A machine that can't cut a unit off from its network, where systemd only says so in its log.
    Fault(
        "weights.loads_offline",
        "eth0",
        stand_in(
            "systemd-run",
            'for one; do shift; case $one in *PrivateNetwork*) ;; *) set -- "$@" "$one" ;; esac; done\n'
            'exec /usr/bin/systemd-run "$@"',
        ),
        "rm /usr/local/bin/systemd-run",
    ),
]


# As when nobody asks for it any more: what the worker itself requires is there.
NO_ACCELERATE = Change(
    f"cd {PACKAGES}; mv accelerate-*.dist-info /root/; cd flux_worker-*.dist-info;"
    " mv METADATA /root/; grep -v '^Requires-Dist: accelerate' /root/METADATA >METADATA",
    f"cd {PACKAGES}; mv /root/accelerate-*.dist-info .; mv /root/METADATA flux_worker-*.dist-info/",
    {
        "worker.accelerate": "found not installed",
        "weights.loads_offline": "'accelerate",
        "performance.trace": "accelerate-",
        **NOT_LOADED,
    },
    why="transformers can't be imported without accelerate: the model does not load, and a start read of it",
)


def _start(change: str, **red: str) -> Change:
    """A change of what the service starts with: of worker.env, or to be written to $FAULT, a drop-in."""
    return Change(
        f"cp -a {ENVIRONMENT} /root/env; install -d {DROP_INS}; FAULT={DROP_INS}/fault.conf;"
        f" echo '[Service]' >$FAULT; {change}; systemctl daemon-reload",
        f"mv /root/env {ENVIRONMENT}; rm -rf {DROP_INS} /root/more; systemctl daemon-reload",
        {f"worker.{name}": found for name, found in red.items()},
        select="backend or unit_restarts",
    )


# One after the other, each by itself.
START = {
    "auto": _start(f"sed -i s/=cuda/=auto/ {ENVIRONMENT}", backend="expected cuda, found auto"),
    "nothing": _start(f"sed -i /FLUX_BACKEND/d {ENVIRONMENT}", backend="expected cuda, found not set"),
    "another, later on": _start(f"echo FLUX_BACKEND=cpu >>{ENVIRONMENT}", backend="found cpu"),
    "another file": _start(
        "echo FLUX_BACKEND=cpu >/root/more; echo EnvironmentFile=/root/more >>$FAULT", backend="found cpu"
    ),
    "taken away": _start("echo UnsetEnvironment=FLUX_BACKEND >>$FAULT", backend="found not set"),
    "a variable, which files override": _start("echo Environment=FLUX_BACKEND=cpu >>$FAULT"),
    "started again whatever it says": _start("echo Restart=always >>$FAULT", unit_restarts="found always"),
    "given up by systemd": _start(
        "printf '[Unit]\\nStartLimitIntervalSec=10\\n' >>$FAULT", unit_restarts="10s"
    ),
    "a bad setting, again and again": _start(
        "echo RestartPreventExitStatus= >>$FAULT", unit_restarts="no restart after exit code 78"
    ),
}
