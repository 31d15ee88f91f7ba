"""Paths and unit names on the image and on the builder, each stated once.

`SETTINGS` go to provisioning: scripts read them from `settings.env`, and `.j2` files are rendered with them.
The folders of `provision/rootfs` mirror `/`, and the list in `provision/seal.yaml` is read by itself, so both
spell paths out; a test compares them with this module.
"""

from __future__ import annotations

# On the image, all of it root's: the worker can change neither its code nor its model.
WORKER = "/opt/flux-worker"
VENV = f"{WORKER}/venv"
NEURON_VENV = f"{WORKER}/neuron-venv"
NEURON_MODELS = f"{WORKER}/neuron"
"""What was compiled for NeuronCores, a folder a size."""
COMPILED = f"{WORKER}/compiled"
"""Blocks that were compiled on the builder for its GPU, a folder for each GPU and set of versions."""
INT8_MODEL = f"{WORKER}/int8"
WORKER_ENV = "/etc/flux-worker/worker.env"
"""What every worker of an image shares; written by the bake."""
INSTANCE_ENV = "/etc/flux-worker/instance.env"
"""Queue, bucket, bus and region of one instance; written when it is launched."""
LIBRARY = "/usr/lib/flux-worker"
TRACE = f"{LIBRARY}/trace.json"
"""What a start reads, in which order; written by the bake before the seal."""
NOTICE = "/usr/share/doc/flux-worker/NOTICE"
UNITS = "/etc/systemd/system"
SERVICE = "flux-worker.service"
"""The worker; where there are several GPUs, what starts and stops all workers."""
SERVICE_OF_SEVERAL = "flux-worker@.service"
"""One of several workers, rendered from the same text; its instances are the indexes of the GPUs."""
WARM_SERVICE = "flux-warm.service"
"""Reads what the worker will need, from the start of a boot on (docs/cold-start.md)."""
WARM_REPORT = "/run/flux-warm/report.json"
"""What it has read, replaced once a second."""
UNIT_ENV = "/run/%N.env"
"""FLUX_WORKERS, written at each start of a unit of that name, by `workers.sh` in LIBRARY."""
WORKERS_ENV = UNIT_ENV.replace("%N", SERVICE.removesuffix(".service"))

# On the image, and the worker's to write to.
STATE = "/var/lib/flux-worker"

# On the builder, and removed by the seal.
BAKE = "/opt/bake"
"""What `provision/` is there: scripts, programs, locks, wheels, settings."""
TOOLS = f"{BAKE}/tools/bin"
"""Programs of the bake's own virtual environment: python, uv."""
UNFINISHED_PACKAGES = f"{BAKE}/unfinished-packages"
"""Names of packages that dpkg could not finish to install, one a line."""

UPDATES = f"{BAKE}/updates"
"""The index that security updates were taken from, and what became of them (provision/updates.sh)."""

LEASE_KEPT = f"{BAKE}/lease"
"""When the builder's lease ends, in seconds since 1970; for a reboot."""

# On the builder, in memory: never in the snapshot.
LEASE = "/run/bake-lease"
LEASE_UNIT = "bake-lease"
"""Its timer and its service power the builder off when its lease ends."""
UNITS_IN_MEMORY = "/run/systemd/system"
UNIT_LOGS = "/run/bake"
"""Output of transient units, and the named pipes that their input comes by."""
SCRATCH = "/run/bake-scratch"
"""Where the instance store is mounted while the int8 checkpoint is made."""
SEAL = "/run/bake-seal"

# On every base AMI.
SYSTEM_PYTHON = "/usr/bin/python3"

SETTINGS = {
    "WORKER_FOLDER": WORKER,
    "WORKER_VENV": VENV,
    "NEURON_VENV": NEURON_VENV,
    "NEURON_MODELS": NEURON_MODELS,
    "COMPILED": COMPILED,
    "WORKER_ENV": WORKER_ENV,
    "INSTANCE_ENV": INSTANCE_ENV,
    "WORKER_LIBRARY": LIBRARY,
    "WORKER_STATE": STATE,
    "TRACE": TRACE,
    "WARM_REPORT": WARM_REPORT,
    "UNIT_ENV": UNIT_ENV,
}
