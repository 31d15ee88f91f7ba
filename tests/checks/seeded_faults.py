"""Faults to seed on a provisioned builder, each with the checks that must see it.

The scripts run as root by bash, with these set: SNAPSHOT and BLOBS (folders of the cache), BLOB (the name of
one), PY (such as `python3.11`), TOKEN.
"""

from __future__ import annotations

from dataclasses import dataclass

from .seeded_secrets import AWS_KEY, HF_TOKEN, PRIVATE_KEY

CACHE = "/home/ubuntu/.cache/huggingface/hub"
UNIT = "/etc/systemd/system/flux-worker.service"
ENVIRONMENT = "/etc/flux-worker/worker.env"
XFORMERS = "/opt/flux-worker/venv/lib/$PY/site-packages/xformers-1.0.dist-info"


@dataclass(frozen=True)
class Fault:
    """One fault: how to seed it, how to mend it, and the checks that must go red."""

    seed: str
    mend: str
    red: tuple[str, ...]


SYSTEM = [
    Fault(
        "sed -i.kept 's/^ID=.*/ID=arch/' /etc/os-release",
        "mv /etc/os-release.kept /etc/os-release",
        ("system.operating_system",),
    ),
    Fault("chmod 777 ~ubuntu", "chmod 755 ~ubuntu", ("users.home_belongs_to_user",)),
    Fault("echo ubuntu:letmein | chpasswd", "passwd -qdl ubuntu", ("users.no_passwords",)),
    Fault(
        "systemd-run -q --unit=fault-port python3 -m http.server --bind 0.0.0.0 8099; "
        "until (: </dev/tcp/127.0.0.1/8099) 2>/dev/null; do sleep 0.1; done",
        "systemctl stop fault-port",
        ("security.only_ssh_listens",),
    ),
    Fault(
        "systemd-run -q --unit=fault-failed false; "
        "until systemctl is-failed -q fault-failed; do sleep 0.1; done",
        "systemctl reset-failed fault-failed",
        ("system.no_failed_units",),
    ),
    Fault("install -m 4755 /usr/bin/env /opt/env", "rm /opt/env", ("security.no_new_rights",)),
    Fault(
        "cp -a /usr/lib/$PY/this.py /root/; echo >> /usr/lib/$PY/this.py",
        "mv /root/this.py /usr/lib/$PY/",
        ("system.system_python_is_untouched",),
    ),
    Fault(
        "echo '/swapfile none swap sw 0 0' >> /etc/fstab",
        "sed -i /swapfile/d /etc/fstab",
        ("system.no_swap",),
    ),
    Fault(
        "install -m 664 /dev/null '/opt/flux-worker/a name'; chmod 757 /etc/systemd/system/flux-worker.path",
        "rm '/opt/flux-worker/a name'; chmod 644 /etc/systemd/system/flux-worker.path",
        ("security.nothing_is_writable_for_others",),
    ),
]
SERVICE = [
    Fault(
        "rmdir /var/lib/flux-worker",
        "install -d -o ubuntu -g ubuntu /var/lib/flux-worker",
        ("worker.working_directory",),
    ),
    Fault("systemctl disable -q flux-worker", "systemctl enable -q flux-worker", ("worker.enabled",)),
    Fault(
        f"cp -a {UNIT} /root/unit; sed -i 's/^User=.*/User=root/; s/^Type=.*/Type=exec/;"
        " s/^TimeoutStopSec=.*/TimeoutStopSec=600/; s/^Restart=.*/Restart=no/; s/^WatchdogSec=.*//;"
        " s/^Protect.*//; s/^Restrict.*//;"
        f" s/^WorkingDirectory=/#/; s#^EnvironmentFile={ENVIRONMENT}##' {UNIT}; systemctl daemon-reload",
        f"mv /root/unit {UNIT}; systemctl daemon-reload",
        (
            "worker.unit_user",
            "worker.unit_type",
            "worker.unit_time_limits",
            "worker.unit_restarts",
            "worker.unit_watchdog",
            "worker.environment_files",
            "worker.working_directory",
            "worker.unit_sandbox",
        ),
    ),
    Fault(f"chmod 666 {ENVIRONMENT}", f"chmod 644 {ENVIRONMENT}", ("worker.environment_is_roots",)),
    Fault(
        "echo 'export HF_HOME=/opt/hf' > /etc/profile.d/hf.sh",
        "rm /etc/profile.d/hf.sh",
        ("worker.no_hf_home",),
    ),
    Fault(
        f"sed -i 's#^HF_HUB_CACHE=.*#&/#' {ENVIRONMENT}",
        f"sed -i 's#^\\(HF_HUB_CACHE=.*\\)/$#\\1#' {ENVIRONMENT}",
        ("worker.worker_environment",),
    ),
    Fault(
        f"sed -i 's/^FLUX_BACKEND=.*/FLUX_BACKEND=auto/' {ENVIRONMENT}",
        f"sed -i 's/^FLUX_BACKEND=.*/FLUX_BACKEND=cuda/' {ENVIRONMENT}",
        ("worker.backend",),
    ),
    Fault(
        f"install -d {XFORMERS}; touch {XFORMERS}/RECORD;"
        f" printf 'Wheel-Version: 1.0\\nTag: py3-none-any\\n' > {XFORMERS}/WHEEL;"
        f" printf 'Metadata-Version: 2.1\\nName: xformers\\nVersion: 1.0\\n' > {XFORMERS}/METADATA",
        f"rm -r {XFORMERS}",
        ("worker.no_xformers",),
    ),
]
FILES = [
    Fault(
        "mv /usr/share/doc/flux-worker/NOTICE /root/",
        "mv /root/NOTICE /usr/share/doc/flux-worker/",
        ("weights.licence_notice",),
    ),
    Fault(
        "install -o ubuntu /dev/null $BLOBS/0123.incomplete",
        "rm $BLOBS/0123.incomplete",
        ("weights.nothing_partly_downloaded",),
    ),
    Fault(
        f"install -D -o ubuntu /dev/null {CACHE}/.locks/x/y.lock",
        f"rm -r {CACHE}/.locks",
        ("weights.no_locks",),
    ),
    Fault(
        "ln -s ../../blobs/$BLOB $SNAPSHOT/flux1-dev.safetensors; chown -h ubuntu $SNAPSHOT/flux1*",
        "rm $SNAPSHOT/flux1-dev.safetensors",
        ("weights.nothing_unneeded",),
    ),
    Fault(
        # One byte of white space is another: the same size, the same configuration, and not what is locked.
        "mv $SNAPSHOT/vae/config.json /root/link;"
        " cp -p $BLOBS/$(basename $(readlink /root/link)) $BLOBS/89ab;"
        " printf ' ' | dd of=$BLOBS/89ab bs=1 seek=1 conv=notrunc status=none;"
        " ln -s ../../../blobs/89ab $SNAPSHOT/vae/config.json; chown -h ubuntu $SNAPSHOT/vae/config.json",
        "mv -f /root/link $SNAPSHOT/vae/config.json; rm $BLOBS/89ab",
        ("weights.files_are_the_locked_ones", "weights.no_unused_blobs"),
    ),
    Fault(
        "echo 0123 > $SNAPSHOT/../../refs/old; chown ubuntu $SNAPSHOT/../../refs/old",
        "rm $SNAPSHOT/../../refs/old",
        ("weights.only_this_revision",),
    ),
    Fault("install -o ubuntu /dev/null $BLOBS/4567", "rm $BLOBS/4567", ("weights.no_unused_blobs",)),
    Fault(
        f"install -d -o ubuntu {CACHE}/models--black-forest-labs--FLUX.1-schnell",
        f"rmdir {CACHE}/models--black-forest-labs--FLUX.1-schnell",
        ("weights.only_this_model",),
    ),
    Fault(
        "install -d -o ubuntu $SNAPSHOT/../0123",
        "rmdir $SNAPSHOT/../0123",
        ("weights.only_this_revision",),
    ),
    Fault("chown root $BLOBS/$BLOB", "chown ubuntu $BLOBS/$BLOB", ("weights.cache_belongs_to_worker",)),
]
SECRETS = [
    Fault(
        'echo "token = $TOKEN" > /srv/notes.txt',
        "rm /srv/notes.txt",
        ("security.token_not_on_disk",),
    ),
    Fault(
        "HF_TOKEN=$TOKEN setsid sleep infinity > /dev/null 2>&1 & echo $! > /run/fault.pid",
        "kill $(cat /run/fault.pid); rm /run/fault.pid",
        ("security.token_not_in_processes",),
    ),
    Fault(
        'journalctl --relinquish-var; logger <<< "fetching with $TOKEN"; journalctl --sync',
        "rm -rf /run/log/journal/*; systemctl restart systemd-journald; journalctl --flush",
        ("security.token_not_in_journal",),
    ),
    Fault(
        "install -D /dev/null /root/.cache/huggingface/token",
        "rm /root/.cache/huggingface/token",
        ("security.no_hf_token_file",),
    ),
    Fault(f"echo {HF_TOKEN} > /etc/motd.hf", "rm /etc/motd.hf", ("security.no_other_hf_token",)),
    Fault(
        f"mkdir ~ubuntu/.aws; echo {AWS_KEY} > ~ubuntu/.aws/credentials",
        "rm -r ~ubuntu/.aws",
        ("security.no_aws_keys",),
    ),
    Fault(f"echo '{PRIVATE_KEY}' > ~ubuntu/.ssh/id_x", "rm ~ubuntu/.ssh/id_x", ("security.no_private_keys",)),
]
PERSISTENCED = "/etc/systemd/system/nvidia-persistenced.service"
DAEMON = "[Service]\\nExecStart=/bin/true\\n[Install]\\nWantedBy=multi-user.target\\n"
KERNEL = "Package: linux-image-fault\\nVersion: 1\\nArchitecture: all\\nMaintainer: x\\nDescription: x\\n"
TORCH = "/opt/flux-worker/venv/lib/$PY/site-packages/torch/version.py"
DRIVERS = [
    Fault(
        f"printf '{DAEMON}' > {PERSISTENCED}",
        f"rm {PERSISTENCED}; systemctl daemon-reload",
        ("drivers.persistence_daemon_is_enabled",),
    ),
    Fault(
        f"mkdir -p /root/k/DEBIAN; printf '{KERNEL}' > /root/k/DEBIAN/control;"
        " dpkg-deb -b /root/k /root/k.deb; dpkg -i /root/k.deb",
        "dpkg --purge linux-image-fault; rm -r /root/k /root/k.deb",
        ("drivers.kernel_is_held",),
    ),
    Fault(
        f"cp -a {TORCH} /root/version.py; sed -i \"s/^cuda.*/cuda = '12.8'/\" {TORCH}",
        f"mv /root/version.py {TORCH}",
        ("drivers.torch_is_built_for_the_planned_cuda",),
    ),
    Fault(
        "touch /etc/apt/sources.list.d/bake-neuron.list",
        "rm /etc/apt/sources.list.d/bake-neuron.list",
        ("drivers.no_source_of_the_bake_is_left",),
    ),
]
# All of these live on one machine together, since each has a check of its own.
FAULTS = [*SYSTEM, *DRIVERS, *SERVICE, *FILES, *SECRETS]

DROP_IN = "/etc/systemd/system/flux-worker.service.d"


def _start(change: str, *red: str) -> Fault:
    """A change of what the service starts with: of worker.env, or to be written to $FAULT, a drop-in."""
    return Fault(
        f"cp -a {ENVIRONMENT} /root/env; install -d {DROP_IN}; FAULT={DROP_IN}/fault.conf;"
        f" echo '[Service]' >$FAULT; {change}; systemctl daemon-reload",
        f"mv /root/env {ENVIRONMENT}; rm -rf {DROP_IN} /root/more; systemctl daemon-reload",
        red,
    )


# One after the other, each by itself.
START = {
    "auto": _start(f"sed -i s/=cuda/=auto/ {ENVIRONMENT}", "worker.backend"),
    "nothing": _start(f"sed -i /FLUX_BACKEND/d {ENVIRONMENT}", "worker.backend"),
    "another, later on": _start(f"echo FLUX_BACKEND=cpu >>{ENVIRONMENT}", "worker.backend"),
    "another file": _start(
        "echo FLUX_BACKEND=cpu >/root/more; echo EnvironmentFile=/root/more >>$FAULT", "worker.backend"
    ),
    "taken away": _start("echo UnsetEnvironment=FLUX_BACKEND >>$FAULT", "worker.backend"),
    "a variable, which files override": _start("echo Environment=FLUX_BACKEND=cpu >>$FAULT"),
    "started again whatever it says": _start("echo Restart=always >>$FAULT", "worker.unit_restarts"),
    "given up by systemd": _start(
        "printf '[Unit]\\nStartLimitIntervalSec=10\\n' >>$FAULT", "worker.unit_restarts"
    ),
}
